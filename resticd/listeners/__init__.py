"""From addresses to listening ports."""
