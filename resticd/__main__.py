"""``python -m resticd`` is the ``resticd`` command."""

from resticd.cli import run

run()
