"""The sample, the documentation and the flags say the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

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


def test_the_page_has_every_flag_once() -> None:
    """A row of a table for each."""
    text = (ROOT / "docs/settings.md").read_text()
    rows = re.findall(r"^\| .*?`--([a-z0-9-]+)", text, re.MULTILINE)
    assert rows == ["settings", *(flag.name for flag in FLAGS)]
    for flag in FLAGS:
        assert flag.help.replace("|", r"\|") in text
