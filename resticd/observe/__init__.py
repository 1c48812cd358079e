"""Sinks for events: logs, statistics, metrics, audit. Nothing imports them but the service."""
