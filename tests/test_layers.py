"""Who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "resticd"

FOUNDATION = {"interfaces", "errors", "streams", "workers", "events", "bandwidth", "credit", ""}

#: For each room the rooms that it may import; the foundation and the room itself are always allowed. ``""`` is the
#: package, which holds the version.
ALLOWED: dict[str, set[str]] = {
    **{name: set() for name in FOUNDATION},
    "auth": set(),
    "observe": set(),
    "repository": set(),
    "transport": set(),
    "remotes": {"transport", "remotes.registry", "remotes.claims"},
    "remotes.wrappers": set(),
    "remotes.registry": {"transport", "remotes.claims"},
    "remotes.claims": set(),
    "http": {"repository", "auth"},
    "listeners": {"http"},
    "config": {"remotes.registry"},
    "sd_notify": set(),
    "reactor": set(),
    "processes": {"auth", "observe", "remotes.claims"},
    "signals": {"config"},
}
#: The composition root and what starts it see everything.
UNBOUND = {
    *("service", "serving", "assembly", "cli", "commands", "options", "__main__"),
    *("processes.supervisor", "processes.assignment", "processes.worker"),
}


def room_of(module: str) -> str:
    """``remotes.wrappers`` for ``resticd.remotes.wrappers.cache``, ``http`` for ``resticd.http.site``."""
    parts = module.split(".")[1:]
    for length in (2, 1):
        name = ".".join(parts[:length])
        if name in ALLOWED or name in UNBOUND:
            return name
    return parts[0] if parts else ""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT.parent).with_suffix("")
        yield ".".join(part for part in relative.parts if part != "__init__"), path


def imports(path: Path) -> Iterator[str]:
    """The modules of resticd that a file imports; those for type checkers alone count too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "resticd")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "resticd":
            for alias in node.names:
                inner = ROOT.parent / node.module.replace(".", "/") / alias.name
                whole = inner.with_suffix(".py").exists() or inner.is_dir()
                yield f"{node.module}.{alias.name}" if whole else node.module


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports(module: str, path: Path) -> None:
    """A module imports only what its room may see."""
    room = room_of(module)
    if room in UNBOUND:
        return
    assert room in ALLOWED, f"{room} has no rule"
    allowed = ALLOWED[room] | FOUNDATION | {room}
    wrong = {name for name in imports(path) if room_of(name) not in allowed}
    assert not wrong


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_size(module: str, path: Path) -> None:
    """A module of more than 500 lines is two things."""
    assert len(path.read_text().splitlines()) <= 500
