"""Sections of ``docs/benchmarks.md``: each kind of measurement rewrites its own and leaves the others."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = "docs/benchmarks.md"
TITLE = "# Benchmarks\n"


def replace_section(page: str, name: str, body: str) -> str:
    """``page`` with ``body`` for the section ``name``, which comes last where there was none."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = f"{begin}\n\n{body.strip()}\n\n{end}\n"
    whole = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}\n", re.DOTALL)
    if whole.search(page):
        return whole.sub(lambda _: section, page)
    return f"{page.rstrip()}\n\n{section}" if page.strip() else f"{TITLE}\n{section}"


def write_section(path: Path, name: str, body: str) -> None:
    """Replace a section of the file ``path``, which need not exist."""
    page = path.read_text() if path.exists() else ""
    path.write_text(replace_section(page, name, body))
