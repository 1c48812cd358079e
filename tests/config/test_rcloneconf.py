"""The remotes file, beside what rclone reads in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rclone_cli import rclone

from resticd.config.rcloneconf import RemotesFile, find_remotes_file, parse_remotes_file, read_remotes_file
from resticd.errors import ConfigurationError

CORPUS = Path(__file__).parent / "corpus"
GOOD = sorted(path.name for path in CORPUS.glob("*.conf") if not path.name.startswith("bad-"))
BAD = sorted(path.name for path in CORPUS.glob("bad-*.conf"))


def dump(file: RemotesFile) -> dict[str, dict[str, str]]:
    """As ``rclone config dump``: bytes that are no UTF-8 become U+FFFD there."""
    return {
        readable(section): {readable(key): readable(file.get(section, key) or "") for key in file.keys(section)}
        for section in file.sections
    }


def readable(text: str) -> str:
    return "".join("\ufffd" if "\udc80" <= char <= "\udcff" else char for char in text)


@pytest.mark.parametrize("name", GOOD)
def test_reads_what_rclone_dumps(name: str) -> None:
    """Sections, keys and values of each file of the corpus are those of ``rclone config dump``."""
    expected = json.loads(rclone("config", "dump", config=CORPUS / name).stdout)
    assert dump(read_remotes_file(str(CORPUS / name), {})) == expected


@pytest.mark.parametrize("name", BAD)
def test_refuses_what_rclone_refuses(name: str) -> None:
    """A file that rclone cannot load is an error that names file and line and has nothing of its text."""
    assert rclone("config", "dump", config=CORPUS / name).returncode != 0
    with pytest.raises(ConfigurationError) as caught:
        read_remotes_file(str(CORPUS / name), {})
    message = str(caught.value)
    assert str(CORPUS / name) in message
    assert "value" not in message.removeprefix(str(CORPUS / name)).replace("key = value", "").replace("the value", "")


def test_an_error_names_file_and_line() -> None:
    """The message begins with file and line, as compilers write it."""
    with pytest.raises(ConfigurationError, match=r"^/x/rclone\.conf:3: neither a \[section\] nor"):
        parse_remotes_file(b"[a]\n\nhunter2\n", "/x/rclone.conf")


# Nothing here can make a value that refers to itself: rclone takes all memory for those.
PIECES = st.sampled_from(
    (
        *("[a]", "[a.b]", "[DEFAULT]", "[]", "[", "]", "k", "key", "-", "=", ":", " ", "\t", "\r", "\n", "#", ";"),
        *('"', '"""', "`", "%(x)s", "%(none)s", "é", "\xa0", "\nx = y\n", "k = v", "\n", "\x1f", "\ufeff"),
    )
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pieces=st.lists(PIECES, max_size=25), header=st.booleans())
def test_reads_any_file_as_rclone(tmp_path_factory: pytest.TempPathFactory, pieces: list[str], header: bool) -> None:
    """Files made of pieces that matter to the parser are read, or refused, as by rclone."""
    path = tmp_path_factory.mktemp("config") / "rclone.conf"
    path.write_bytes((("[a]\n" if header else "") + "".join(pieces)).encode())
    done = rclone("config", "dump", config=path)
    try:
        ours = dump(read_remotes_file(str(path), {}))
    except ConfigurationError:
        assert done.returncode != 0
    else:
        assert ours == json.loads(done.stdout)


def test_a_section_inherits_from_the_name_before_its_last_dot() -> None:
    """``a.b`` has what ``a`` has, but for what it says itself; an empty value hides the inherited one."""
    file = read_remotes_file(str(CORPUS / "inherit.conf"), {})
    assert file.options("base.child") == {"endpoint": "http://child", "type": "s3"}
    assert file.options("base.child.grandchild") == {"endpoint": "http://child", "type": "s3", "acl": "private"}
    assert file.options("orphan.child") == {"type": "s3"}
    assert file.options(".dot") == {"acl": "x", "host": "from-default"}


def test_says_where_a_key_stands() -> None:
    """File and line of a key are known, those of the header for a section."""
    file = parse_remotes_file(b"[a]\ntype = s3\n\n[b]\n", "/f")
    assert file.where("a", "type") == "/f:2: [a]"
    assert file.where("b") == "/f:4: [b]"
    assert file.where("a", "nothing") == "/f: [a]"


@pytest.mark.parametrize(
    "text",
    [
        "a = %(a)s%(a)s",  # of itself, in the default section
        "a = %(b)s\nb = %(a)s",
        "[s]\na = %(a)s%(a)s%(a)s",  # grows
    ],
)
def test_values_that_refer_to_themselves_end(text: str) -> None:
    """Values without end, which rclone would die of, are an error."""
    section = "s" if text.startswith("[") else "DEFAULT"
    with pytest.raises(ConfigurationError, match="/f:"):
        parse_remotes_file(text.encode(), "/f").get(section, "a")


def test_values_are_not_shown() -> None:
    """Nothing of a file's values is in its repr."""
    assert "hunter2" not in repr(parse_remotes_file(b"[a]\npass = hunter2\n", "/f"))


class TestFinding:
    """Where the file is looked for."""

    def test_the_first_of_rclones_places_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beside rclone itself, XDG_CONFIG_HOME, ~/.config, ~/.rclone.conf, then the system's file."""
        system = tmp_path / "etc" / "rclone.conf"
        monkeypatch.setattr("resticd.config.rcloneconf.SYSTEM_FILE", str(system))
        program = tmp_path / "bin" / "rclone"
        program.parent.mkdir()
        program.touch(mode=0o755)
        home = tmp_path / "home"
        environ = {"HOME": str(home), "XDG_CONFIG_HOME": str(tmp_path / "xdg"), "PATH": str(program.parent)}
        places = [
            program.parent / "rclone.conf",
            tmp_path / "xdg" / "rclone" / "rclone.conf",
            home / ".config" / "rclone" / "rclone.conf",
            home / ".rclone.conf",
            system,
        ]
        assert find_remotes_file(None, environ) is None
        for place in reversed(places):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
            assert find_remotes_file(None, environ) == str(place)

    def test_as_rclone_finds_it(self, tmp_path: Path) -> None:
        """``rclone config file`` says the same for a file in the home directory."""
        (tmp_path / ".rclone.conf").touch()
        environ = {"HOME": str(tmp_path)}
        done = rclone("config", "file", "--config=", HOME=str(tmp_path))
        assert done.stdout  # with an empty --config rclone has no file
        assert find_remotes_file("", environ) is None
        assert find_remotes_file(None, environ) == str(tmp_path / ".rclone.conf")

    @pytest.mark.parametrize("name", ["", "/dev/null", "notfound", "/a/notfound"])
    def test_a_name_that_says_there_is_no_file(self, name: str) -> None:
        """These names mean a configuration in memory, in the flag as in the variable."""
        assert read_remotes_file(name, {}) == RemotesFile(None)
        assert read_remotes_file(None, {"RCLONE_CONFIG": name}) == RemotesFile(None)

    def test_the_flag_beats_the_variable(self) -> None:
        """``--config`` comes before RCLONE_CONFIG."""
        assert find_remotes_file("/a", {"RCLONE_CONFIG": "/b"}) == "/a"
        assert find_remotes_file(None, {"RCLONE_CONFIG": "/b"}) == "/b"

    def test_a_missing_file_is_empty(self, tmp_path: Path) -> None:
        """A file that does not exist is no error, as in rclone, and is described as missing."""
        file = read_remotes_file(str(tmp_path / "nothing"), {})
        assert file.sections == ()
        assert str(file) == f"{tmp_path / 'nothing'} (which does not exist)"

    def test_an_unreadable_file_is_an_error(self, tmp_path: Path) -> None:
        """What cannot be read is never taken for empty."""
        with pytest.raises(ConfigurationError, match="cannot read"):
            read_remotes_file(str(tmp_path), {})

    def test_an_endless_file_is_an_error(self) -> None:
        """A file without end is not read into memory."""
        with pytest.raises(ConfigurationError, match="larger than"):
            read_remotes_file("/dev/zero", {})
