"""Real S3 servers for real clients."""

from __future__ import annotations

from support.s3_fixtures import rclone, swift, weed

__all__ = ["rclone", "swift", "weed"]
