"""Where bytes live: one file a driver, and decorators around them. Knows no HTTP server."""
