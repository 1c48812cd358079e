"""The sample of a remotes file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from twisted.internet import reactor

from resticd.config.rcloneconf import parse_remotes_file, read_remotes_file
from resticd.config.remotes import Remotes
from resticd.remotes.drivers import REGISTRY
from resticd.remotes.registry import Loan
from resticd.transport.settings import ClientSettings
from resticd.workers import Workers

SAMPLE = Path(__file__).parents[2] / "conf" / "rclone.conf"
#: With its commented sections switched on.
WHOLE = re.sub(r"^# (\[\w+\]|\w+ = .*)$", r"\1", SAMPLE.read_text(), flags=re.MULTILINE)
SECTIONS = parse_remotes_file(WHOLE.encode(), str(SAMPLE)).sections


def test_as_it_comes() -> None:
    """Nothing of it is in use but the alias."""
    file = read_remotes_file(str(SAMPLE), {})
    assert file.sections == ("backups",)
    assert Remotes(REGISTRY, {}, lambda: file).resolve("backups:office").path == "/srv/backups/office"
    assert len(SECTIONS) > 8


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_can_be_used(section: str) -> None:
    """Each option is known and right."""
    remotes = Remotes(REGISTRY, {}, lambda: parse_remotes_file(WHOLE.encode(), str(SAMPLE)))
    # A combine section has directories of its own.
    spec = remotes.resolve(f"{section}:{'here' if section == 'all' else 'bucket'}/path")
    assert spec.warnings == ()
    REGISTRY.open(spec, Loan(reactor, Workers(reactor), ClientSettings()))
