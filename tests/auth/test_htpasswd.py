from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resticd.auth.hashes import complaint, cost, verify
from resticd.auth.htpasswd import LARGEST_FILE, HtpasswdFile, parse_htpasswd
from resticd.errors import ConfigurationError

#: of crypt(3), by ``openssl passwd``
REFUSED = {
    "rl5FQRSKZ.nQ2": "DES",
    "$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/": "1 hashes are not supported",
    "$5$rounds=1000$abc$def": "5 hashes are not supported",
    "$6$abc$def": "6 hashes are not supported",
    "$2x$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC": "2x hashes are not supported",
    "$argon2id$v=19$m=65536": "argon2id hashes are not supported",
    "{SSHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=": "SSHA hashes are not supported",
    "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRq": "the hash is damaged",
    "$2y$99$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC": "the hash is damaged",
    "$apr1$abc": "the hash is damaged",
    "{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE": "the hash is damaged",
    "myPassword": "plain text",
    "": "plain text",
}


def test_each_kind_of_hash_takes_the_right_password_alone(any_hash: str) -> None:
    assert complaint(any_hash) is None
    assert verify("myPassword", any_hash)
    assert not any(verify(wrong, any_hash) for wrong in ["mypassword", "myPassword ", "", "p" * 4096])


def test_bcrypt_looks_at_72_bytes_as_apache_does() -> None:
    stored = "$2b$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i"
    assert verify("x" * 72, stored)
    assert verify("x" * 72 + "more", stored)
    assert not verify("x" * 71, stored)
    assert not verify("x" * 71 + "ä", stored)


def test_passwords_are_hashed_as_utf_8() -> None:
    assert verify("pässword", "$apr1$abc$1VCVp5fzmFGbK.attpaai/")


@pytest.mark.parametrize(("stored", "reason"), REFUSED.items())
def test_other_hashes_are_refused_with_file_and_line_and_without_the_hash(stored: str, reason: str, sha_hash) -> None:
    data = f"# users\n\nalice:{sha_hash}\nbob:{stored}\n".encode()
    with pytest.raises(ConfigurationError, match=rf"^--htpasswd: x:4: .*{reason}") as caught:
        parse_htpasswd(data, "--htpasswd: x")
    assert not stored or stored not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"alice", "no colon after the user's name"),
        (b":{SHA}", "'' cannot be a user's name"),
        (b"a\x07b:{SHA}", "'a\\x07b' cannot be a user's name"),
        (b"\xff:x", "not UTF-8"),
    ],
)
def test_a_line_without_a_usable_name_is_refused(line: bytes, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_htpasswd(line, "--htpasswd: x")
    assert str(caught.value) == f"--htpasswd: x:1: {reason}"


def test_comments_blank_lines_line_ends_and_further_fields_do_not_count(sha_hash: str, apr1_hash: str) -> None:
    text = f"# a:b\r\n\r\n  alice:{sha_hash}  \r\n\t# indented\nbob/x:{apr1_hash}:more:fields\n..:{sha_hash}"
    hashes, warnings = parse_htpasswd(text.encode(), "x")
    assert hashes == {"alice": sha_hash, "bob/x": apr1_hash, "..": sha_hash}
    assert warnings == []


def test_the_first_of_two_lines_for_one_user_wins_with_a_warning(sha_hash: str, apr1_hash: str) -> None:
    hashes, (warning,) = parse_htpasswd(f"alice:{sha_hash}\nalice:{apr1_hash}\n".encode(), "x")
    assert hashes == {"alice": sha_hash}
    assert warning.startswith("x:2: alice ")


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode))
def test_whatever_a_file_holds_it_is_read_or_refused(data: bytes) -> None:
    try:
        hashes, _ = parse_htpasswd(data, "x")
    except ConfigurationError as error:
        assert str(error).isprintable()
    else:
        assert all(complaint(stored) is None for stored in hashes.values())


def test_a_file_that_is_cut_off_within_a_line_is_refused(any_hash: str) -> None:
    data = f"alice:{any_hash}\nbob:{any_hash}\n".encode()
    for length in range(1, len(data)):
        if data[:length].rstrip(b"\n").endswith(any_hash.encode()):
            parse_htpasswd(data[:length], "x")
        else:
            with pytest.raises(ConfigurationError):
                parse_htpasswd(data[:length], "x")


def test_the_decoy_costs_what_most_hashes_cost(
    tmp_path: Path, aged: Callable[..., HtpasswdFile], apr1_hash: str, bcrypt_hash: str
) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"a:{apr1_hash}\nb:{bcrypt_hash}\nc:{bcrypt_hash.replace('$04$', '$05$')}\nd:{bcrypt_hash}\n")
    assert aged(path).contents.decoy == bcrypt_hash
    assert cost(bcrypt_hash) != cost(bcrypt_hash.replace("$04$", "$05$"))
    path.write_text("")
    assert aged(path).contents.decoy is None


def test_a_start_without_the_file_fails_with_its_name(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path / "missing" / "x", "No such file or directory"),
        (tmp_path, "Is a directory|not a regular file"),
    ]:
        with pytest.raises(ConfigurationError, match=f"^--htpasswd: {path}: ({reason})$"):
            HtpasswdFile(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        HtpasswdFile(tmp_path / "pipe")


def test_an_endless_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(ConfigurationError, match="larger than"):
        HtpasswdFile(tmp_path / "large")


def test_a_start_with_an_unreadable_file_fails(password_file: Path) -> None:
    password_file.chmod(0)
    with as_somebody(), pytest.raises(ConfigurationError, match="Permission denied"):
        HtpasswdFile(password_file)


@contextlib.contextmanager
def as_somebody() -> Iterator[None]:
    """Whom permissions concern, which is not root."""
    us = os.geteuid()
    if us == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(us)


def test_a_file_that_did_not_change_is_not_read_again(password_file: Path, aged: Callable[..., HtpasswdFile]) -> None:
    file = aged(password_file)
    assert not file.stale()
    file.adopt(file.read())
    assert not file.stale()


def test_every_way_to_change_a_file_is_seen(password_file: Path, aged: Callable[..., HtpasswdFile], sha_hash) -> None:
    file = aged(password_file)

    def seen(user: str) -> bool:
        assert file.stale()
        file.adopt(file.read())
        assert not file.stale()
        return set(file.contents.hashes) == {user}

    password_file.write_text(f"one:{sha_hash}\n")
    assert seen("one")
    old = password_file.stat()
    (password_file.parent / "new").write_text(f"two:{sha_hash}\n")
    os.utime(password_file.parent / "new", ns=(old.st_atime_ns, old.st_mtime_ns))
    (password_file.parent / "new").replace(password_file)
    assert seen("two")


def test_a_change_in_the_same_tick_of_the_file_system_is_seen(password_file: Path, sha_hash: str) -> None:
    """As long as the time of a file is so new that another change may get the same one, it is read each time."""
    file = HtpasswdFile(
        password_file, sleep=lambda _: None, now=lambda: time.time() + 0.1, monotonic=itertools.count().__next__
    )
    assert file.stale()
    file.adopt(file.read())
    assert file.stale()


def test_a_file_is_not_read_while_it_is_being_written(tmp_path: Path, sha_hash: str) -> None:
    """The writer goes on whenever the reader waits, and has emptied the file before."""
    path = tmp_path / "htpasswd"
    path.write_text(f"old:{sha_hash}\n")
    now = path.stat().st_ctime + 3600
    lines = [f"{user}:{sha_hash}\n" for user in "abc"]

    def go_on(_: float) -> None:
        nonlocal now
        if not lines:
            now = path.stat().st_ctime + 1
            return
        with path.open("a") as writer:
            writer.write(lines.pop(0))
        now = path.stat().st_ctime

    file = HtpasswdFile(path, now=lambda: now, sleep=go_on, monotonic=itertools.count().__next__)
    path.write_text("")
    now = path.stat().st_ctime
    assert set(file.read().hashes) == {"a", "b", "c"}


def test_a_file_that_never_rests_is_given_up(password_file: Path, sha_hash: str) -> None:
    def write(_: float) -> None:
        nonlocal now
        password_file.write_text(f"alice:{sha_hash}\n")
        now = password_file.stat().st_ctime

    now = password_file.stat().st_ctime + 3600
    file = HtpasswdFile(password_file, now=lambda: now, sleep=write, monotonic=itertools.count().__next__)
    now = password_file.stat().st_ctime
    with pytest.raises(ConfigurationError, match="changes while it is read"):
        file.read()
    assert set(file.contents.hashes) == {"alice", "bob"}


def test_a_look_holds_for_a_moment(password_file: Path) -> None:
    """Requests of the same moment share one look at the file; the next moment's request sees the change."""
    moment = 0.0
    file = HtpasswdFile(password_file, now=lambda: time.time() + 3600, monotonic=lambda: moment)
    assert not file.stale()
    password_file.write_text("# nobody\n")
    assert not file.stale()
    moment = 0.0011
    assert file.stale()
    assert file.stale()
