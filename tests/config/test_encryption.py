"""Encrypted remotes files, made by the real rclone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.rclone_cli import rclone

from resticd.config import encryption
from resticd.config.encryption import file_password
from resticd.config.rcloneconf import read_remotes_file
from resticd.errors import ConfigurationError

PASSWORD = " \u00e4 \ufb01sh\u00b2 "  # NFKC makes "fi" and "2" of two of these, and the spaces count


@pytest.fixture
def encrypted(tmp_path: Path) -> Path:
    """A remotes file that rclone encrypted with PASSWORD."""
    path = tmp_path / "rclone.conf"
    path.write_text("[secret]\ntype = local\nkey = hunter2\n")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    command = f"cat {tmp_path / 'password'}"
    done = rclone("config", "encryption", "set", "--password-command", command, config=path, PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert path.read_text().startswith("# Encrypted rclone configuration File")
    return path


def test_the_password_comes_from_the_environment(encrypted: Path) -> None:
    """RCLONE_CONFIG_PASS opens a file that rclone encrypted, in any normal form."""
    for password in (PASSWORD, " a\u0308 fish2 "):
        file = read_remotes_file(str(encrypted), {"RCLONE_CONFIG_PASS": password})
        assert file.get("secret", "key") == "hunter2"


def test_the_password_comes_from_a_command(encrypted: Path) -> None:
    """The command's output without line ends is the password, and comes before RCLONE_CONFIG_PASS."""
    file = read_remotes_file(str(encrypted), {"RCLONE_CONFIG_PASS": "x"}, f"cat {encrypted.parent / 'password'}")
    assert file.get("secret", "key") == "hunter2"


def test_without_a_password_it_says_what_to_do(encrypted: Path) -> None:
    """There is nobody to ask, so a missing password is an error that names both ways to give it."""
    with pytest.raises(ConfigurationError, match=r"rclone\.conf: .*RCLONE_CONFIG_PASS or --password-command"):
        read_remotes_file(str(encrypted), {})


def test_a_wrong_password_is_not_shown(encrypted: Path) -> None:
    """The message says that the password is wrong, not which it was."""
    with pytest.raises(ConfigurationError, match="most likely the password is wrong") as caught:
        read_remotes_file(str(encrypted), {"RCLONE_CONFIG_PASS": "hunter3"})
    assert "hunter3" not in str(caught.value)


def test_a_missing_library_is_named(encrypted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyNaCl the message says what to install."""
    monkeypatch.setitem(sys.modules, "nacl.secret", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'resticd\[encrypted-config\]'"):
        read_remotes_file(str(encrypted), {"RCLONE_CONFIG_PASS": PASSWORD})


@pytest.mark.parametrize(
    ("keep", "reason"), [(100, "most likely the password is wrong"), (99, "not base64"), (40, "too short")]
)
def test_a_damaged_file_is_an_error(encrypted: Path, keep: int, reason: str) -> None:
    """A truncated file never reads as a shorter one."""
    header, sealed = encrypted.read_text().split("V0:\n")
    encrypted.write_text(f"{header}V0:\n{sealed[:keep]}")
    with pytest.raises(ConfigurationError, match=reason):
        read_remotes_file(str(encrypted), {"RCLONE_CONFIG_PASS": PASSWORD})


def test_the_command_has_no_shell_and_no_input() -> None:
    """Words are passed as they are; standard input, which may be the client's connection, is empty."""
    assert file_password('printf %s "$HOME; a b"', {"PATH": "/usr/bin:/bin"}) == "$HOME; a b"
    with pytest.raises(ConfigurationError, match="the password is empty"):
        file_password("cat", {"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/no/such/program x", "cannot run /no/such/program: No such file"),
        ('sh -c "echo hunter2; exit 3"', "sh ended with status 3"),
        ('"sh', "a quote must"),
        ('""', "it names no program"),
        ("sh -c \"printf '\\377'\"", "not UTF-8"),
    ],
)
def test_a_command_that_fails_is_an_error(command: str, reason: str) -> None:
    """Every failure names the flag, and nothing that the command printed."""
    with pytest.raises(ConfigurationError, match=f"--password-command: .*{reason}") as caught:
        file_password(command, {"PATH": "/usr/bin:/bin"})
    assert "hunter2" not in str(caught.value)


def test_a_command_that_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command has a time limit."""
    monkeypatch.setattr(encryption, "PASSWORD_COMMAND_TIMEOUT", 0.05)
    with pytest.raises(ConfigurationError, match="did not end within"):
        file_password("sleep 60", {"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize("password", [" \t", "\udcff"])
def test_a_password_that_cannot_be_one_is_an_error(password: str) -> None:
    """Blanks alone, and bytes that are no UTF-8, are refused, as by rclone."""
    with pytest.raises(ConfigurationError, match="RCLONE_CONFIG_PASS: the password is"):
        file_password("", {"RCLONE_CONFIG_PASS": password})


def test_without_either_there_is_no_password() -> None:
    """No command and no variable: None, so that a plain file needs neither."""
    assert file_password("", {}) is None
