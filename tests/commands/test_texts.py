"""``resticd help``, ``resticd version``, and how command lines are read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from resticd import __version__
from resticd.cli import COMMANDS, WITH_FLAGS, Command, find_command, main
from resticd.config.settings import FLAGS

RESTICD = Path(sys.executable).with_name("resticd")


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What the command wrote where it should."""
    assert main(list(arguments)) == status
    captured = capsys.readouterr()
    assert "" in captured
    return captured.err if status else captured.out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("version",), ("--version",), ("-V",), ("version", "-v"), ("--fast-list", "version")):
        assert said(capsys, *arguments).startswith(f"resticd {__version__}\n- python 3.")
    assert "takes no argument" in said(capsys, "version", "more", status=1)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "help")
    for command in COMMANDS:
        assert re.search(rf"^  {re.escape(command.usage)}  +{re.escape(command.help)}$", text, re.MULTILINE)
    for arguments in ((), ("--help",), ("-h",)):
        assert said(capsys, *arguments) == text


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.words))
def test_every_command_has_a_page(capsys: pytest.CaptureFixture[str], command: Command) -> None:
    """In the order of a manual page, on lines that fit, with examples that the command line's reader takes."""
    text = said(capsys, "help", *command.words)
    assert said(capsys, *command.words, "--help") == said(capsys, *command.words, "-h") == text
    titles = re.findall(r"^[A-Z][A-Z ]*$", text, re.MULTILINE)
    order = ["NAME", "SYNOPSIS", "DESCRIPTION", "FLAGS", "EXAMPLES", "SIGNALS", "EXIT STATUS"]
    assert titles == [title for title in order if title in titles]
    assert titles[:3] == order[:3]
    assert f"    {command.usage}\n" in text
    assert max(map(len, text.splitlines())) <= 100
    assert ("FLAGS" in titles) == (command.words in WITH_FLAGS)
    for line in re.findall(r"^        (resticd .*[^\\])$", text, re.MULTILINE):
        words = line.partition("|")[0].partition("&&")[0].partition(">")[0].partition("<")[0].split()[1:]
        assert find_command(words)[0] is command


def test_the_page_of_serve_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "help", "serve", "restic")
    for flag in FLAGS:
        assert re.search(rf"^  (-{flag.short}, |    )--{flag.name}( {re.escape(flag.metavar)})?$", text, re.MULTILINE)
        assert flag.help.split()[0] in text
    assert said(capsys, "help", "serve") == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lsx",), "unknown command: lsx; see resticd help"),
        (("serve",), "unknown command: serve; see resticd help"),
        (("-v", "lsx"), "unknown command: lsx; see resticd help"),
        (("--unknown", "version"), "unknown flag: --unknown"),
        (("version", "--unknown"), "unknown flag: --unknown"),
        (("serve", "restic", "--unknown", "/tmp"), "unknown flag: --unknown"),
        (("serve", "restic", "-Z", "/tmp"), "unknown flag: -Z"),
        (("serve", "restic", "--http2", "maybe", "/tmp"), "--http2: 'maybe': neither on, off nor prefer"),
        (("help", "lsx"), "help: unknown command: lsx; see resticd help"),
        (("help", "ls", "more"), "help: unknown command: ls more; see resticd help"),
        (("htpasswd", "--unknown", "me"), "unknown flag: --unknown"),
        (("obscure", "--unknown", "me"), "unknown flag: --unknown"),
        (("completion", "--unknown", "bash"), "unknown flag: --unknown"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    assert said(capsys, *arguments, status=1) == f"resticd: {message}\n"


def test_flags_of_rclone_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """Whole, with their arguments, wherever they stand."""
    words = [
        "--drive-use-trash=false",
        "serve",
        "-P",
        "restic",
        "--b2-hard-delete",
        "--fast-list",
        "--exclude",
        "x",
        "p",
    ]
    command, rest = find_command(words)
    assert command is COMMANDS[0]
    assert rest == [word for word in words if word not in ("serve", "restic")]
    assert "p  " in said(capsys, "--drive-chunk-size", "64M", "check-config", "--fast-list", "p")


def test_each_of_them_is_one_line_at_level_debug() -> None:
    command = [RESTICD, "serve", "restic", "--stdio", "--b2-hard-delete", "--fast-list", "--drive-chunk-size=64M"]
    for more, count in (("-v", 0), ("-vv", 1)):
        done = subprocess.run(
            [*command, more, ":memory:"], capture_output=True, check=True, timeout=60, stdin=subprocess.DEVNULL
        )
        for name in ("b2-hard-delete", "fast-list", "drive-chunk-size"):
            assert done.stderr.decode().count(f"--{name} has no meaning here") == count


def test_help_costs_no_reactor() -> None:
    """Neither help nor version load what they do not need."""
    code = (
        "import sys; from resticd.cli import main; main(['help']); main(['version']);"
        "sys.exit('twisted.internet.reactor' in sys.modules or 'klein' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
