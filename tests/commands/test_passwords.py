"""``resticd obscure`` and ``resticd htpasswd``, with who reads what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
from support.asking import ask
from support.daemons import Server
from support.peers import peer
from support.terminal import Terminal

from resticd.cli import main

RESTICD = Path(sys.executable).with_name("resticd")


def run(*arguments: str, said: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([RESTICD, *arguments], input=said, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("password", ["secret", "ünï ±", "x" * 500, "$a'b\"c\\"])
def test_rclone_reveals_what_was_obscured(password: str) -> None:
    """Given as an argument or on standard input; never twice the same."""
    shown = [
        run("obscure", password).stdout.decode().strip(),
        run("obscure", "-", said=password.encode() + b"\n").stdout.decode().strip(),
    ]
    assert shown[0] != shown[1]
    for text in shown:
        done = subprocess.run(
            [peer("rclone"), "reveal", "--", text], capture_output=True, check=True, text=True, timeout=60
        )
        assert done.stdout == password + "\n"


def test_a_password_that_looks_like_a_flag() -> None:
    assert run("obscure", "-secret").returncode == 1
    assert run("obscure", "--", "-secret").returncode == 0


@pytest.mark.parametrize("arguments", [(), ("a", "b")])
def test_obscure_takes_one_password(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["obscure", *arguments]) == 1
    assert capsys.readouterr() == ("", "resticd: obscure: give one password, or - to read it from standard input\n")


def test_a_line_of_htpasswd_lets_its_user_in(start_resticd: Callable[..., Server], tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    with file.open("wb") as lines:
        for user, password in (("laptop", "secret"), ("ünï", "pässword")):
            lines.write(run("htpasswd", user, said=password.encode() + b"\n").stdout)
    assert re.match(r"laptop:\$2y\$10\$[./A-Za-z0-9]{53}\n", file.read_text())
    server = start_resticd(":memory:", "--htpasswd", str(file))
    assert ask(server.port, "GET", "/keys/", login=("laptop", "secret")).status == 200
    assert ask(server.port, "GET", "/keys/", login=("ünï", "pässword")).status == 200
    assert ask(server.port, "GET", "/keys/", login=("laptop", "other")).status == 401


def test_a_long_password_counts_as_far_as_bcrypt_looks() -> None:
    line = run("htpasswd", "laptop", said=b"x" * 100 + b"\n").stdout.decode().strip()
    assert bcrypt.checkpw(b"x" * 72, line.partition(":")[2].encode())


@pytest.mark.parametrize("user", ["", "a:b", "a\nb", "#a", " a", "a\t", "x" * 256])
def test_names_that_cannot_stand_in_the_file(user: str) -> None:
    done = run("htpasswd", user, said=b"secret\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"resticd: htpasswd: give one user name, without a colon\n"


def test_no_password() -> None:
    done = run("htpasswd", "laptop", said=b"\n")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"resticd: htpasswd: the password is empty\n")


@pytest.mark.parametrize("password", [b"a\x01b", b"\xff", b"x" * 5000])
def test_a_password_that_no_login_can_carry(password: bytes) -> None:
    done = run("htpasswd", "laptop", said=password + b"\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"resticd: htpasswd: the password is too long, no UTF-8 or has control characters\n"


@pytest.mark.parametrize(("second", "line"), [("secret", r"laptop:\$2y\$"), ("other", "the two passwords differ")])
def test_on_a_terminal_it_is_asked_twice_and_not_shown(second: str, line: str, tmp_path: Path) -> None:
    with Terminal([RESTICD, "htpasswd", "laptop"], os.environ, tmp_path) as terminal:
        terminal.wait_for("password for laptop: ")
        terminal.type("secret\n")
        assert "secret" not in terminal.wait_for("(.|\n)*again: ")[0]
        terminal.type(f"{second}\n")
        assert second not in terminal.wait_for(f"(.|\n)*{line}")[0]
