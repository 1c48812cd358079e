"""Decorators around a remote, one a file; each provides ``IRemote`` itself."""
