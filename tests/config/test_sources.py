"""Which source of a setting wins, and what a mistake is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from resticd.config.settings import FLAGS, Settings
from resticd.config.sources import read_sources, unknown_variables
from resticd.errors import ConfigurationError


def test_order_of_sources(tmp_path: Path) -> None:
    """A flag, then RESTICD_, then RCLONE_, then the file, then the default."""
    file = tmp_path / "resticd.toml"
    file.write_text('\nrealm = "file"\n')
    environ = {"RESTICD_SETTINGS": str(file), "RCLONE_REALM": "rclone", "RESTICD_REALM": "resticd"}
    reading = read_sources(["--realm", "flag", "/srv"], environ)
    assert (reading.settings.realm, reading.origins["realm"]) == ("flag", "--realm")
    reading = read_sources(["/srv"], environ)
    assert (reading.settings.realm, reading.origins["realm"]) == ("resticd", "RESTICD_REALM")
    del environ["RESTICD_REALM"]
    reading = read_sources(["/srv"], environ)
    assert (reading.settings.realm, reading.origins["realm"]) == ("rclone", "RCLONE_REALM")
    del environ["RCLONE_REALM"]
    reading = read_sources(["/srv"], environ)
    assert (reading.settings.realm, reading.origins["realm"]) == ("file", f"{file}:2")
    reading = read_sources(["/srv"], {})
    assert (reading.settings.realm, reading.origins["realm"]) == (None, "default")


def test_every_type_from_the_file(tmp_path: Path) -> None:
    """Lists, switches, counts, durations, sizes and limits, with either dash or underscore."""
    file = tmp_path / "resticd.toml"
    file.write_text(
        'remote = "/srv"\naddr = [":1", ":2"]\nappend_only = true\nverbose = 2\nserver-read-timeout = "1h30m"\n'
        'stats = 5\nbwlimit = "10M:1M"\nresponse-header = ["X-One: 1"]\n'
    )
    settings = read_sources(["--settings", str(file)], {}).settings
    assert settings.remote == "/srv"
    assert settings.addr == (":1", ":2")
    assert settings.append_only is True
    assert settings.verbose == 2
    assert settings.server_read_timeout == 5400
    assert settings.stats == 5
    assert settings.bwlimit.text == "10M:1M"
    assert settings.response_header == (("X-One", "1"),)


def test_every_flag_from_the_environment() -> None:
    """The name in capitals; a list is a line of CSV."""
    environ = {
        "RESTICD_ADDR": ':1,"unix:///a,b"',
        "RESTICD_APPEND_ONLY": "true",
        "RCLONE_PASS": "x",
        "RCLONE_VERBOSE": "1",
    }
    settings = read_sources([], environ).settings
    assert settings.addr == (":1", "unix:///a,b")
    assert settings.append_only
    assert settings.pass_ == "x"
    assert settings.verbose == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a = 1\n", ":1: unknown setting 'a'"),
        ('\nappend-only = "true"\n', ":2: append-only: neither true nor false"),
        ("addr = 5\n", ":1: addr: not a list of texts"),
        ("verbose = true\n", ":1: verbose: not a whole number"),
        ('\n\nstats = "soon"\n', ":3: stats: 'soon': not a duration"),
        ("realm = [1]\n", ":1: realm: not a text"),
        ("[tls]\ncert = 1\n", ":1: unknown setting 'tls'"),
        ("realm =\n", ":1: "),
        ("cert = 5\n", ":1: cert: not a text"),
        ("min-tls-version = 1.2\n", ":1: min-tls-version: not a text"),
        ("max-header-bytes = 2000-01-01\n", ":1: max-header-bytes: not a text or a number"),
        ("tpslimit = nan\n", ":1: tpslimit: 'nan': not a number"),
        ('\nlog-level = "LOUD"\n', ":2: log-level: 'LOUD': not DEBUG, INFO, "),
        ('stats-log-level = "OFF"\n', ":1: stats-log-level: 'OFF': not DEBUG, INFO, "),
        ("append-only = true\nappend_only = false\n", ":2: append_only: it is already set, as "),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "resticd.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_sources(["--settings", str(file), "/srv"], {})
    assert str(caught.value).startswith(f"{file}{complaint}")


def test_no_secret_in_a_mistake() -> None:
    """A value that cannot be used is shown, unless it is secret."""
    with pytest.raises(ConfigurationError) as caught:
        read_sources(["--pass", "", "/srv"], {})
    assert str(caught.value) == "--pass: the value: empty"
    with pytest.raises(ConfigurationError, match="'x'"):
        read_sources(["--server-read-timeout", "x", "/srv"], {})


def test_a_missing_file() -> None:
    with pytest.raises(ConfigurationError, match="--settings: cannot read /nowhere"):
        read_sources(["--settings", "/nowhere", "/srv"], {})


def test_one_remote() -> None:
    with pytest.raises(ConfigurationError, match="one thing is served"):
        read_sources(["/a", "/b"], {})


def test_flags_and_fields_agree() -> None:
    """Every flag has a field with its default, and no two share a name or a letter."""
    settings = Settings()
    for flag in FLAGS:
        assert getattr(settings, flag.attribute) == flag.default
        assert flag.help.endswith(".")
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)
    letters = [flag.short for flag in FLAGS if flag.short]
    assert len(set(letters)) == len(letters)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--nonsense"], "unknown flag: --nonsense"),
        (["-Z"], "unknown flag: -Z"),
        (["--addr"], "--addr: the argument is missing"),
        (["--append-only=perhaps"], "--append-only: 'perhaps': neither true nor false"),
        (["--max-header-bytes", "0"], "--max-header-bytes: '0': not a whole number above zero"),
        (["--response-header", "no colon"], "--response-header: 'no colon': not a header"),
    ],
)
def test_mistakes_on_the_command_line(argv: list[str], complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_sources([*argv, "/srv"] if argv != ["--addr"] else argv, {})
    assert str(caught.value).startswith(complaint)


def test_flags_of_rclone_are_taken() -> None:
    """Those without a meaning here, with and without arguments, anywhere; and both spellings of a name."""
    argv = ["--drive-chunk-size", "8M", "-c", "--fast-list", "/srv", "--b2-hard-delete", "--append_only", "-vv"]
    reading = read_sources(argv, {})
    assert reading.settings.remote == "/srv"
    assert reading.settings.append_only
    assert reading.settings.verbose == 2
    assert set(reading.line.foreign) == {"drive-chunk-size", "checksum", "fast-list", "b2-hard-delete"}


def test_a_later_error_names_the_source_too(tmp_path: Path) -> None:
    """What is found out when the value is used is told with the file and line, or the variable, that said it."""
    file = tmp_path / "resticd.toml"
    file.write_text('\nhtpasswd = "/a"\ncert = "/b"\n')
    environ = {"RESTICD_CERT": "/c", "RESTICD_SETTINGS": str(file)}
    settings = read_sources(["--key", "/d", "/srv"], environ).settings
    assert settings.explain(ConfigurationError("--htpasswd: cannot be read")) == f"{file}:2: htpasswd: cannot be read"
    assert settings.explain(ConfigurationError("--cert: cannot be read")) == "RESTICD_CERT: cannot be read"
    for other in ("--key: cannot be read", "--user: needs --pass", "-q: not together with -v", "no flag"):
        assert settings.explain(ConfigurationError(other)) == other


def test_variables_that_nobody_reads() -> None:
    """A setting that is written wrongly is found; what Kubernetes sets for a service is not meant."""
    environ = {"RESTICD_APEND_ONLY": "true", "RESTICD_PASS": "x", "RESTICD_SETTINGS": "y", "RESTICD_REMOTE": "z"}
    environ |= {"RESTICD_SERVICE_HOST": "10.0.0.1", "RESTICD_PORT": "tcp://10.0.0.1:80", "RCLONE_X": "x"}
    assert unknown_variables(environ) == ["RESTICD_APEND_ONLY"]
