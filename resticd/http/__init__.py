"""restic's REST API over HTTP: knows no storage."""
