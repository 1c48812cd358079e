"""Settings and the remotes file: where they come from and which one wins."""
