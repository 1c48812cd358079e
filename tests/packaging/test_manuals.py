"""The manual pages name every command, flag and setting, and are good roff."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.peers import ROOT

from resticd.cli import COMMANDS
from resticd.config.settings import FLAGS
from resticd.config.sources import SETTINGS


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages as a terminal shows them, on long lines."""
    directory = tmp_path_factory.mktemp("manuals")
    subprocess.run([sys.executable, ROOT / "tools/man-pages", directory], check=True)
    shown = {}
    for path in directory.iterdir():
        made = subprocess.run(
            ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", "-rLL=300n", "-P-cbou", path],
            check=True,
            capture_output=True,
            text=True,
        )
        assert made.stderr == ""
        shown[path.name] = made.stdout.replace("‐", "-").replace("−", "-")
    return shown


def test_names(pages: dict[str, str]) -> None:
    assert set(pages) == {"resticd.8", "resticd.toml.5"}


def test_every_command(pages: dict[str, str]) -> None:
    for command in COMMANDS:
        assert re.search(rf"(?m)^ +{re.escape(command.usage)}", pages["resticd.8"]), command.usage
        assert command.help in " ".join(pages["resticd.8"].split())


def test_every_flag(pages: dict[str, str]) -> None:
    text = " ".join(pages["resticd.8"].split())
    for flag in (*FLAGS, SETTINGS):
        assert re.search(rf"(?m)^ +(-\w, )?--{flag.name}\b", pages["resticd.8"]), flag.name
        assert " ".join(flag.help.split()) in text, flag.name


def test_every_setting(pages: dict[str, str]) -> None:
    text = " ".join(pages["resticd.toml.5"].split())
    for flag in FLAGS:
        assert re.search(rf"(?m)^ +{flag.name} = ", pages["resticd.toml.5"]), flag.name
        assert " ".join(flag.help.split()) in text, flag.name


def test_examples_are_settings(pages: dict[str, str], tmp_path: Path) -> None:
    """What the page of the settings file shows can be used."""
    from resticd.config.sources import read_sources

    examples = pages["resticd.toml.5"].partition("EXAMPLES")[2].partition("SEE ALSO")[0]
    blocks = re.split(r"\n\s*\n", re.sub(r"(?m)^ {7}\S(?!.* = ).*$", "", examples))
    found = [block for block in blocks if " = " in block]
    assert len(found) == 2
    for number, block in enumerate(found):
        path = tmp_path / f"{number}.toml"
        path.write_text("\n".join(line.strip() for line in block.splitlines()))
        assert read_sources(["--settings", str(path)], {}).settings.htpasswd == "/etc/resticd/htpasswd"
