"""The sample, the documentation and the flags say the same."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from resticd.config.flags import Flag
from resticd.config.settings import FLAGS, Settings
from resticd.config.sources import REMOTE, read_sources

ROOT = Path(__file__).parents[2]
#: A setting that is commented out; other comments have a space behind the #.
SETTING = re.compile(r"^#(?=[a-z0-9-]+ = )", re.MULTILINE)


def test_both_are_up_to_date() -> None:
    """Otherwise tools/settings-docs has to be run."""
    command = [sys.executable, ROOT / "tools/settings-docs", "--check"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_sample_has_every_setting_with_its_default(tmp_path: Path) -> None:
    """With every setting switched on it can be read, and changes nothing but what has no default."""
    text = (ROOT / "conf/resticd.toml").read_text()
    assert tomllib.loads(text) == {}
    whole = SETTING.sub("", text)
    assert list(tomllib.loads(whole)) == [REMOTE.name, *(flag.name for flag in FLAGS)]
    path = tmp_path / "resticd.toml"
    path.write_text(whole)
    reading = read_sources(["--settings", str(path)], {})
    defaults = Settings()
    for flag in (REMOTE, *FLAGS):
        assert reading.origins[flag.name].startswith(f"{path}:")
        value = getattr(reading.settings, flag.attribute)
        if flag.default not in (None, "", ()):
            assert value == getattr(defaults, flag.attribute), flag.name
        else:
            assert value != flag.default, flag.name
        assert f"# {flag.help.split(' ')[0]}" in text


def as_texts(value: object) -> list[str]:
    """A value of the file, as it is written on a command line."""
    values = value if isinstance(value, list) else [value]
    return [str(each).lower() if isinstance(each, bool) else str(each) for each in values]


@pytest.mark.parametrize("flag", [REMOTE, *FLAGS], ids=lambda flag: flag.name)
def test_every_setting_from_every_source(tmp_path: Path, flag: Flag) -> None:
    """What the sample says of it means the same in the file, as either variable, and as a flag."""
    whole = SETTING.sub("", (ROOT / "conf/resticd.toml").read_text())
    value = tomllib.loads(whole)[flag.name]
    path = tmp_path / "resticd.toml"
    path.write_text(f"{flag.name} = {json.dumps(value)}\n")
    line = io.StringIO()
    csv.writer(line).writerow(as_texts(value))
    variable = line.getvalue().strip() if flag.repeats else as_texts(value)[0]
    name = flag.name.upper().replace("-", "_")
    argv = [value] if flag is REMOTE else [f"--{flag.name}={text}" for text in as_texts(value)]
    readings = {
        f"{path}:1": read_sources(["--settings", str(path)], {}),
        f"RESTICD_{name}": read_sources([], {f"RESTICD_{name}": variable}),
        f"RCLONE_{name}": read_sources([], {f"RCLONE_{name}": variable}),
        "the command line" if flag is REMOTE else f"--{flag.name}": read_sources(argv, {}),
    }
    assert {reading.origins[flag.name] for reading in readings.values()} == set(readings)
    meant = [getattr(reading.settings, flag.attribute) for reading in readings.values()]
    assert all(each == meant[0] for each in meant)


def test_the_page_has_every_flag_once() -> None:
    """A row of a table for each."""
    text = (ROOT / "docs/settings.md").read_text()
    rows = re.findall(r"^\| .*?`--([a-z0-9-]+)", text, re.MULTILINE)
    assert rows == ["settings", *(flag.name for flag in FLAGS)]
    for flag in FLAGS:
        assert flag.help.replace("|", r"\|") in text
