"""What tests share: ports, real servers and clients, daemons. ``from support.daemons import …`` in any test."""
