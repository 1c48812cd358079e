"""Several processes that serve as one (``--workers``); docs/design.md says what they share, and how."""
