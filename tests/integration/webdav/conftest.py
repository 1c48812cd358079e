"""Real WebDAV servers for real clients."""

from __future__ import annotations

from support.dav_fixtures import apache, lighttpd, rclone_dav, wsgidav

__all__ = ["apache", "lighttpd", "rclone_dav", "wsgidav"]
