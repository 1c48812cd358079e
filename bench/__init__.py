"""Measures resticd beside rest-server and ``rclone serve restic``; ``make bench`` runs it."""
