"""``resticd check-config``."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from resticd.cli import main


def rows(text: str) -> dict[str, tuple[str, str]]:
    """Value and origin by name. Columns are two spaces or more apart."""
    made = {}
    for line in text.splitlines():
        name, value, origin = (column.strip() for column in line.split("  ") if column.strip())
        made[name] = (value, origin)
    return made


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith(("RESTICD_", "RCLONE_")):
            monkeypatch.delenv(name)
    return monkeypatch


def test_what_is_in_force_and_who_said_so(
    tmp_path: Path, variables: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, remotes = tmp_path / "resticd.toml", tmp_path / "rclone.conf"
    settings.write_text('# one\naddr = [":1", "unix:///a"]\nstats = "90m"\nresponse-header = ["A: b"]\n')
    remotes.write_text(
        "[store]\ntype = s3\nprovider = Minio\nendpoint = http://127.0.0.1:1\n"
        "access_key_id = me\nsecret_access_key = hunter2hunter2\n"
    )
    variables.setenv("RCLONE_BWLIMIT", "08:00,1M 20:00,off")
    variables.setenv("RESTICD_APPEND_ONLY", "true")
    variables.setenv("RESTICD_APEND_ONLY", "true")
    flags = ["--settings", str(settings), "--config", str(remotes), "--user", "me", "--pass", "pass-word"]
    assert main(["check-config", *flags, "--s3-region", "here", "--s3-session-token=t0ken", "-P", "store:bucket"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    seen = rows(printed.out)
    assert seen["remote"] == ("store:bucket", "the command line")
    assert seen["its type"] == ("s3", f"{remotes}:1: [store]")
    assert seen["addr"] == (":1, unix:///a", f"{settings}:2")
    assert seen["stats"] == ("1h30m", f"{settings}:3")
    assert seen["response-header"] == ("A: b", f"{settings}:4")
    assert seen["bwlimit"] == ("08:00,1M 20:00,off", "RCLONE_BWLIMIT")
    assert seen["append-only"] == ("true", "RESTICD_APPEND_ONLY")
    assert seen["user"] == ("me", "--user")
    assert seen["pass"] == ("(hidden)", "--pass")
    assert seen["server-read-timeout"] == ("1h", "default")
    assert seen["htpasswd"] == ("-", "default")
    assert seen["s3-region"] == ("here", "--s3-region")
    assert seen["s3-session-token"] == ("(hidden)", "--s3-session-token")
    assert seen["progress"] == ("(no meaning here)", "--progress")
    assert seen["RESTICD_APEND_ONLY"] == ("(no such setting)", "the environment")
    for secret in ("hunter2hunter2", "pass-word", "t0ken"):
        assert secret not in printed.out


def test_a_remote_that_is_described_on_the_fly_keeps_its_secrets(
    variables: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "check-config",
                ":s3,provider=Minio,endpoint='http://127.0.0.1:1',access_key_id=me,secret_access_key=hunter2hunter2:bucket",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert rows(printed)["remote"] == (":s3,…:bucket", "the command line")
    assert "hunter2" not in printed


def test_a_remote_that_does_not_exist(variables: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The mistake comes with status 1 below the settings."""
    assert main(["check-config", "--config", "", "nowhere:place"]) == 1
    printed = capsys.readouterr()
    assert rows(printed.out)["remote"] == ("nowhere:place", "the command line")
    assert printed.err.startswith('resticd: remote "nowhere:": didn\'t find section in config file')


def test_a_mistake_in_a_setting(
    tmp_path: Path, variables: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "resticd.toml"
    path.write_text("verbose = 1\nverbos = 1\n")
    assert main(["check-config", "--settings", str(path)]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"resticd: {path}:2: unknown setting 'verbos'\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('htpasswd = "/nowhere"\n', ":1: htpasswd: /nowhere: No such file"),
        ('\ncert = "/nowhere"\nkey = "/nowhere"\n', ":3: key: /nowhere: No such file"),
        ('addr = ["a:b:c"]\n', ":1: addr: 'a:b:c'"),
        ('user = "me"\n', ":1: user: needs --pass"),
        ("verbose = 1\nquiet = true\n", "-q: not together with -v"),
        ("private-repos = true\n", ":1: private-repos: there is no login"),
        ('unix-socket-mode = "9"\n', ":1: unix-socket-mode: '9'"),
    ],
)
def test_what_would_keep_the_server_from_starting(
    tmp_path: Path, variables: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    """It is found here too, below the settings; nothing is made at the remote."""
    path = tmp_path / "resticd.toml"
    path.write_text(text)
    assert main(["check-config", "--settings", str(path), str(tmp_path / "store")]) == 1
    printed = capsys.readouterr()
    assert "remote" in rows(printed.out)
    where = str(path) if complaint.startswith(":") else ""
    assert printed.err.startswith(f"resticd: {where}{complaint}")
    assert list(tmp_path.iterdir()) == [path]


def test_the_example_in_the_readme(
    tmp_path: Path, variables: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It shows what is printed."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    command, *expected = re.search(r"^    \$ RESTICD_BWLIMIT=10M (.*(?:\n    .*)*)", text, re.MULTILINE)[1].splitlines()
    program, name, *flags = command.removesuffix(" | grep -v default").split()
    assert (program, name) == ("resticd", "check-config")
    (tmp_path / "resticd.toml").write_text('# here\naddr = [":8000"]\nuser = "me"\n')
    variables.chdir(tmp_path)
    variables.setenv("RESTICD_BWLIMIT", "10M")
    assert main(["check-config", *flags]) == 0
    shown = [f"    {line}" for line in capsys.readouterr().out.splitlines() if "default" not in line]
    assert shown == expected


def test_a_remote_in_memory_for_several_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--workers", "2", ":memory:"]) == 1
    assert "--workers: " in capsys.readouterr().err
