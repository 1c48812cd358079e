"""How drivers reach their storage: HTTP agents, ssh, child processes."""
