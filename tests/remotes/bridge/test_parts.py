"""The parts of the bridge that need no rclone, or no more than one."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.peers import peer
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from resticd.errors import BadGateway, ConfigurationError
from resticd.remotes.bridge_command import NAME, serve_arguments, serve_environment
from resticd.remotes.bridge_files import is_moved, is_temporary, parse_time, temporary_beside
from resticd.remotes.bridge_listing import ItemParser
from resticd.remotes.bridge_log import RcloneLog
from resticd.remotes.bridge_program import find_rclone
from resticd.remotes.registry import RcloneSettings
from resticd.transport.settings import ClientSettings


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def variables(text: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in text.split())


class TestProgram:
    """Which rclone is run."""

    def test_a_path(self) -> None:
        assert find_rclone(str(peer("rclone")), "sftp", {}) == str(peer("rclone"))

    def test_what_is_not_rclone_is_passed_by(self, tmp_path: Path) -> None:
        """This program under its name, something else, and one that is too old."""
        (tmp_path / "self").mkdir()
        (tmp_path / "self/rclone").symlink_to(Path(sys.executable).with_name("resticd"))
        script(tmp_path / "other/rclone", "echo hello")
        script(tmp_path / "old/rclone", "echo rclone v1.60.1-DEV")
        places = [str(tmp_path / name) for name in ("self", "other", "old", "none")]
        environ = {"PATH": os.pathsep.join([*places, str(peer("rclone").parent)])}
        assert find_rclone("rclone", "sftp", environ) == str(peer("rclone").parent / "rclone")

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            (
                "echo rclone v1.60.1-DEV",
                r"is rclone v1.60.1-DEV, and 1\.65 or newer is needed; https://rclone.org/install/",
            ),
            ("echo hello", "/rclone is not rclone; https://rclone.org/install/ says how to install it, --rclone names"),
            ("exit 1", "/rclone is not rclone"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path: Path, text: str, complaint: str) -> None:
        program = script(tmp_path / "rclone", text)
        for name, environ in ((str(program), {}), ("rclone", {"PATH": f"{tmp_path}:/bin"})):
            with pytest.raises(ConfigurationError, match=complaint):
                find_rclone(name, "sftp", environ)

    def test_none_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r'type sftp .* no program "rclone" was found; https'):
            find_rclone("rclone", "sftp", {"PATH": str(tmp_path)})
        with pytest.raises(ConfigurationError, match="cannot be run: No such file"):
            find_rclone(str(tmp_path / "rclone"), "sftp", {})

    def test_a_type_that_nobody_knows(self) -> None:
        with pytest.raises(ConfigurationError, match=r'neither resticd nor .* has remotes of the type "sfpt"'):
            find_rclone(str(peer("rclone")), "sfpt", {"RCLONE_CONFIG": "/nonexistent"})


class TestCommand:
    """Command line and environment."""

    def test_the_command_line_is_the_same_for_all(self) -> None:
        """So there is nothing in it that anybody could read."""
        words = serve_arguments(Path("/run/x/bodies"), Path("/run/x/calls"))
        assert [word for word in words if "/" in word] == ["unix:///run/x/bodies", "unix:///run/x/calls"]
        assert words[-1] == f"{NAME}:"

    def test_what_is_handed_on(self) -> None:
        """Descriptions of remotes, options of types and how to connect; not what hides files or speaks for us."""
        kept = variables(
            "PATH=/bin HOME=/root HTTPS_PROXY=http://p SSH_AUTH_SOCK=/s AWS_PROFILE=x RCLONE_CONFIG_PASS=secret "
            "RCLONE_CONFIG_X_TYPE=sftp RCLONE_SFTP_PORT=22 RCLONE_DRIVE_USE_TRASH=false RCLONE_BIND=::1 "
            "RCLONE_MAX_BACKLOG=9 RCLONE_B2_KEY=k"
        )
        dropped = variables(
            "RCLONE_ADDR=:80 RCLONE_USER=u RCLONE_PASS=p RCLONE_RC_ADDR=:81 RCLONE_RC=true RCLONE_EXCLUDE=* "
            "RCLONE_FILTER_FROM=f RCLONE_MAX_SIZE=1 RCLONE_DRY_RUN=true RCLONE_LOG_FILE=/l RCLONE_VERBOSE=2 "
            "RCLONE_DUMP=auth RCLONE_IGNORE_EXISTING=true RCLONE_NAME_TRANSFORM=x RCLONE_BWLIMIT=1 NOTIFY_SOCKET=/n "
            "LISTEN_FDS=1 RESTIC_PASSWORD=p RESTICD_PASS=p RCLONE_PRIVATE_REPOS=true"
        )
        made = serve_environment(RcloneSettings(environ={**kept, **dropped}), ClientSettings(), "x:y")
        assert kept.items() <= made.items()
        assert not dropped.keys() & made.keys()

    def test_what_is_said_by_flags(self) -> None:
        """What is served, to the letter; the remotes file; backend flags; how to connect."""
        target = "x,pass='a,b':dir"
        settings = RcloneSettings(
            config="/etc/x.conf",
            password_command="pass show x",
            flags={"sftp-port": "23", "drive-use-trash": "false", "dry-run": "true", "rc-addr": ":1"},
            environ={"RCLONE_CONFIG": "/other", "RCLONE_SFTP_PORT": "22", "RCLONE_TIMEOUT": "1s"},
        )
        client = ClientSettings(
            contimeout=7,
            timeout=90,
            low_level_retries=4,
            user_agent="x/1",
            check_certificate=False,
            ca_cert=(Path("/a,b"),),
        )
        assert serve_environment(settings, client, target) == {
            "RCLONE_CONFIG": "/etc/x.conf",
            "RCLONE_PASSWORD_COMMAND": "pass show x",
            "RCLONE_SFTP_PORT": "23",
            "RCLONE_DRIVE_USE_TRASH": "false",
            "RCLONE_CONTIMEOUT": "7s",
            "RCLONE_TIMEOUT": "90s",
            "RCLONE_LOW_LEVEL_RETRIES": "4",
            "RCLONE_USER_AGENT": "x/1",
            "RCLONE_NO_CHECK_CERTIFICATE": "true",
            "RCLONE_CA_CERT": '"/a,b"',
            f"RCLONE_CONFIG_{NAME.upper()}_TYPE": "alias",
            f"RCLONE_CONFIG_{NAME.upper()}_REMOTE": target,
        }


class TestLog:
    """What rclone writes."""

    @pytest.fixture
    def events(self) -> Iterator[list[LogEvent]]:
        found: list[LogEvent] = []

        def observe(event: LogEvent) -> None:
            if event["log_namespace"] == "resticd.rclone":
                found.append(event)

        globalLogPublisher.addObserver(observe)
        yield found
        globalLogPublisher.removeObserver(observe)

    @pytest.mark.parametrize(
        ("said", "level", "source"),
        [
            ("critical", LogLevel.warn, "cmd/cmd.go:1"),
            ("error", LogLevel.warn, "sftp/sftp.go:1"),
            ("warning", LogLevel.warn, "sftp/sftp.go:1"),
            ("notice", LogLevel.warn, "sftp/sftp.go:1"),
            ("info", LogLevel.debug, "operations/operations.go:1"),
            ("debug", LogLevel.debug, "x.go:1"),
            # comes as an answer too
            ("error", LogLevel.debug, "rcserver/rcserver.go:1"),
            ("error", LogLevel.debug, "walk/walk.go:1"),
        ],
    )
    def test_levels(self, events: list[LogEvent], said: str, level: Any, source: str) -> None:
        log = RcloneLog("store:x", str)
        log.line(json.dumps({"level": said, "msg": "what\n it says", "object": "a/b", "source": source}))
        (event,) = events
        assert event["log_level"] is level
        assert event["message"] == "a/b: what it says"
        assert event["name"] == "store:x"
        assert log.last == ("" if level is LogLevel.debug else "a/b: what it says")

    @pytest.mark.parametrize("line", ["panic: oh", "{", "[]", "{}", '"x"', '{"level": 1}'])
    def test_lines_of_other_kinds(self, events: list[LogEvent], line: str) -> None:
        RcloneLog("x:", str).line(line)
        assert events[0]["message"] == line
        assert events[0]["log_level"] is LogLevel.warn

    def test_secrets(self, events: list[LogEvent]) -> None:
        """Are taken out, of what is raised later too."""
        log = RcloneLog("x:", lambda text: text.replace("hunter2", "***"))
        log.line("the password is hunter2")
        assert events[0]["message"] == log.last == "the password is ***"


class TestItems:
    """A list that is read while it comes."""

    @given(
        st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(), max_size=4), max_size=8),
        st.lists(st.integers(0, 400)),
        st.sampled_from([None, "\t"]),
    )
    def test_pieces_of_any_size(self, items: list[dict[str, Any]], cuts: list[int], indent: str | None) -> None:
        data = json.dumps({"list": items}, indent=indent, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        items = json.loads(data)["list"]
        parser = ItemParser()
        places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        found = [item for start, end in itertools.pairwise(places) for item in parser.feed(data[start:end])]
        parser.close()
        assert found == items

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            '{"list": [',
            '{"list": [{"Path": "a"}',
            '{"list": [{"Path": "a"}]',
            '{"list": null}',
            '{"error": "x"}',
            "[]",
        ],
    )
    def test_what_is_not_whole(self, text: str) -> None:
        """Is an error at the end, not a short list."""
        parser = ItemParser()
        parser.feed(text.encode())
        with pytest.raises(BadGateway):
            parser.close()

    def test_no_end(self) -> None:
        """What goes on and on without an item is no list."""
        for begin in (b"x", b'{"list": [{"Path": "'):
            parser = ItemParser()
            parser.feed(begin)
            with pytest.raises(BadGateway):
                for _ in range(20):
                    parser.feed(b"x" * 100_000)


class TestNames:
    """Temporary names and times."""

    @pytest.mark.parametrize(
        ("key", "directory"),
        [
            ("config", ""),
            ("a/config", "a/"),
            ("a/data/21/2159", "a/data/21/"),
            # restic's server in rclone takes names right below data apart
            ("a/data/2159", "a/"),
            ("data/2159", ""),
            ("x/data/data/21", "x/"),
        ],
    )
    def test_beside_the_file(self, key: str, directory: str) -> None:
        name = temporary_beside(key)
        assert is_temporary(name)
        assert not is_moved(name)
        assert name.rpartition("/")[0] == directory.rstrip("/")
        assert name != temporary_beside(key)

    @pytest.mark.parametrize(
        "key", ["config", ".resticd-00.tmp/config", ".resticd-00.tmp", f".resticd-{'0' * 24}.tmp/a"]
    )
    def test_other_names(self, key: str) -> None:
        assert not is_temporary(key)

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("2026-11-28T10:42:16.303790495Z", 1795862536.30379),
            ("2026-11-28T11:42:16+01:00", 1795862536.0),
            ("0001-01-01T00:00:00Z", None),
            ("", None),
            (None, None),
            ("yesterday", None),
        ],
    )
    def test_times(self, text: object, seconds: float | None) -> None:
        assert parse_time(text) == seconds
