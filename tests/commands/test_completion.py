"""``resticd completion`` in real shells, at a terminal."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.terminal import Terminal

from resticd.cli import COMMANDS, main
from resticd.config.settings import FLAGS

RESTICD = Path(sys.executable).with_name("resticd")
PROMPT = "ready> "


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    """An interactive shell that has read the script, in a directory with a few files."""
    program = shutil.which(request.param)
    assert program is not None, f"{request.param} is not installed; run `make peers`"
    for name in ("certificate.pem", "with space.pem", "backups/laptop", "more backups/x"):
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).touch()
    script = tmp_path / "script"
    script.write_text(
        subprocess.run([RESTICD, "completion", request.param], capture_output=True, check=True, text=True).stdout
    )
    environment = {"PATH": f"{RESTICD.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}
    options = ["--norc", "--noprofile", "-i"] if request.param == "bash" else ["-f", "-i"]
    with Terminal([program, *options], environment, tmp_path / "here") as terminal:
        if request.param == "zsh":
            terminal.type(f"autoload -Uz compinit && compinit -u -d {tmp_path}/dump; unsetopt zle_bracketed_paste\n")
            terminal.type("LISTMAX=1000; zstyle ':completion:*' list-prompt ''\n")
        else:
            terminal.type("bind 'set enable-bracketed-paste off'; bind 'set page-completions off'\n")
            terminal.type("bind 'set completion-query-items 0'; bind 'set show-all-if-ambiguous on'\n")
        terminal.type(f"PS1='{PROMPT[:-1]} '; source {script}\n")
        terminal.type("echo set''up\n")
        terminal.wait_for("setup\n(.|\n)*" + PROMPT)
        yield terminal


def completes(shell: Terminal, typed: str, expected: str) -> None:
    """``typed``, Tab, becomes ``expected``."""
    shell.type(f"{typed}\t")
    shell.wait_for(re.escape(expected))
    forget(shell)


def offers(shell: Terminal, typed: str, *expected: str) -> None:
    """``typed``, Tab, shows all of ``expected``, in whatever order."""
    shell.type(f"{typed}\t")
    shell.wait_for("(?s)" + "".join(rf"(?=.*\s{re.escape(word)}\s)" for word in expected))
    forget(shell)


def forget(shell: Terminal) -> None:
    """Give up the line that was typed."""
    shell.type("\x15echo for''gotten\n")
    shell.wait_for("forgotten\n(.|\n)*" + PROMPT)


def test_unique_words(shell: Terminal) -> None:
    completes(shell, "resticd che", "resticd check-config ")
    completes(shell, "resticd serve r", "resticd serve restic ")
    completes(shell, "resticd serve restic --appe", "resticd serve restic --append-only ")
    completes(shell, "resticd completion z", "resticd completion zsh ")
    completes(shell, "resticd help ob", "resticd help obscure ")
    completes(shell, "resticd lsd ba", "resticd lsd backups/")
    completes(shell, "resticd lsd more", "resticd lsd more\\ backups/")


def test_values_of_flags(shell: Terminal) -> None:
    completes(shell, "resticd serve restic --http2 pre", "resticd serve restic --http2 prefer ")
    completes(shell, "resticd serve restic --http2=pre", "resticd serve restic --http2=prefer ")
    completes(shell, "resticd serve restic --log-level NOT", "resticd serve restic --log-level NOTICE ")
    completes(shell, "resticd serve restic --cert cert", "resticd serve restic --cert certificate.pem ")
    completes(shell, "resticd serve restic --cert=with", "resticd serve restic --cert=with\\ space.pem ")


def test_what_there_is(shell: Terminal) -> None:
    offers(shell, "resticd ", *{command.words[0] for command in COMMANDS})
    offers(
        shell, "resticd serve restic --stats", *(f"--{flag.name}" for flag in FLAGS if flag.name.startswith("stats"))
    )
    offers(shell, "resticd serve restic --http2 ", "off", "on", "prefer")


def test_every_flag_is_known_to_both(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh"):
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert not re.search("@[A-Z_]+@", script)
        for flag in FLAGS:
            assert f"--{flag.name}" in script


@pytest.mark.parametrize("arguments", [(), ("fish",), ("bash", "zsh")])
def test_other_shells(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", *arguments]) == 1
    assert capsys.readouterr() == ("", "resticd: completion: for which shell: bash or zsh?\n")
