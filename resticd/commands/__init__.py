"""The sub-commands of ``resticd``, one module for each family."""
