"""Ports for servers that cannot choose one themselves."""

from __future__ import annotations

from bench.ports import free_port

__all__ = ["free_port"]
