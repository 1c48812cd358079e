"""A Twisted daemon that serves restic's REST backend API over pluggable remotes."""

__version__ = "0.1.0"
