"""What a restic repository is: its names, its layout, and what may be done to it by whom."""
