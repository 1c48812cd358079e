"""What the names of remotes mean, beside what rclone makes of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from support.rclone_cli import rclone, rclone_options, rclone_registry

from resticd.config.obscure import obscure
from resticd.config.rcloneconf import RemotesFile, parse_remotes_file, read_remotes_file
from resticd.config.remotes import Remotes
from resticd.errors import ConfigurationError
from resticd.interfaces import IRemote
from resticd.remotes.registry import Driver, Loan, Registry, RemoteSpec, harmless, obscured, refused, used

CORPUS = Path(__file__).parent / "corpus"
STRINGS = [
    line for line in (CORPUS / "strings.txt").read_text("utf-8").splitlines() if line and not line.startswith("#")
]


def canonical(spec: RemoteSpec) -> str:
    """As ``rclone config string`` prints a remote: options that are not at their default, sorted."""
    known = rclone_options()[spec.type]
    words = [spec.type]
    for key, value in sorted(spec.options.items()):
        if known[key].is_default(value):
            continue
        if value == "true":
            words.append(key)
        elif any(char in value for char in "'\":=,"):
            words.append("{}='{}'".format(key, value.replace("'", "''")))
        else:
            words.append(f"{key}={value}")
    return f":{','.join(words)}:{spec.path}"


@pytest.mark.parametrize("text", [text for text in STRINGS if not text.startswith("!")])
def test_means_what_rclone_says(text: str) -> None:
    """Type, options and path of each name of the corpus are those that ``rclone config string`` prints."""
    assert_as_rclone(text, CORPUS / "strings.conf", {})


@pytest.mark.parametrize("text", [text[1:] for text in STRINGS if text.startswith("!")])
def test_refuses_what_rclone_refuses(text: str) -> None:
    """Names that are refused by rclone are refused with its words, where the name itself is wrong."""
    config = CORPUS / "strings.conf"
    remotes = Remotes(rclone_registry(), {}, lambda: read_remotes_file(str(config), {}))
    done = rclone("config", "string", "--", text, config=config)
    assert done.returncode != 0
    with pytest.raises(ConfigurationError) as caught:
        remotes.resolve(text)
    theirs = done.stderr.splitlines()[0].removeprefix("Error: ")
    assert theirs.partition(" (")[0] in str(caught.value) or "the section has no type" in str(caught.value)


def test_the_last_word_is_whose_rclone_says(tmp_path: Path) -> None:
    """For every set of places that may set an option, its value comes from where rclone takes it."""
    names = [name for name, option in rclone_options()["s3"].items() if not option.default and name != "provider"]
    places = ["section", "remote's variable", "type's variable", "flag", "name"]
    sets = [chosen for size in range(1, 6) for chosen in itertools.combinations(places, size)]
    # There are more sets than options without a default.
    for half in (sets[:16], sets[16:]):
        section, environ, flags, parameters = "[r]\ntype = s3\n", {}, {}, ""
        for name, chosen in zip(names, half, strict=False):
            if "section" in chosen:
                section += f"{name} = from-section\n"
            if "remote's variable" in chosen:
                environ[f"RCLONE_CONFIG_R_{name.upper()}"] = "from-remotes-variable"
            if "type's variable" in chosen:
                environ[f"RCLONE_S3_{name.upper()}"] = "from-types-variable"
            if "flag" in chosen:
                flags[f"s3-{name.replace('_', '-')}"] = "from-flag"
            if "name" in chosen:
                parameters += f",{name}=from-name"
        (config := tmp_path / "rclone.conf").write_text(section)
        assert_as_rclone(f"r{parameters}:bucket", config, environ, flags)


def assert_as_rclone(text: str, config: Path, environ: dict[str, str], flags: dict[str, str] | None = None) -> None:
    """``text`` means what ``rclone config string`` says."""
    remotes = Remotes(rclone_registry(), environ, lambda: read_remotes_file(str(config), {}), flags)
    arguments = [f"--{flag}={value}" for flag, value in (flags or {}).items()]
    done = rclone("config", "string", *arguments, "--", text, config=config, **environ)
    assert canonical(remotes.resolve(text)) + "\n" == done.stdout, done.stderr


@pytest.mark.parametrize(
    ("text", "section", "environ"),
    [
        # an empty variable of the type counts as not said, one of the remote hides the section
        ("r:b", "[r]\ntype=s3\nregion=x\nacl=y", {"RCLONE_S3_REGION": "", "RCLONE_CONFIG_R_ACL": ""}),
        ("r:b", "[r]\ntype=s3\nregion=x", {"RCLONE_S3_REGION": "", "RCLONE_CONFIG_R_REGION": "y"}),
        # a variable that says the default yields to the remote's variable, not to the section
        ("r:b", "[r]\ntype=s3", {"RCLONE_S3_CHUNK_SIZE": "5Mi", "RCLONE_CONFIG_R_CHUNK_SIZE": "6Mi"}),
        ("r:b", "[r]\ntype=s3\nchunk_size=6Mi", {"RCLONE_S3_CHUNK_SIZE": "5Mi"}),
        # remotes that the environment alone describes, and those that it changes
        ("new:x", "", {"RCLONE_CONFIG_NEW_TYPE": "memory"}),
        ("New:x", "", {"RCLONE_CONFIG_NEW_TYPE": "s3", "RCLONE_CONFIG_NEW_PROVIDER": "Minio"}),
        ("my-new:x", "", {"RCLONE_CONFIG_MY-NEW_TYPE": "memory"}),
        ("r:x", "[r]\ntype=s3\nregion=x", {"RCLONE_CONFIG_R_TYPE": "memory"}),
        (":s3,region=x:b", "", {"RCLONE_S3_REGION": "y", "RCLONE_S3_ACL": "z", "RCLONE_CONFIG_:S3_PROFILE": "p"}),
        # options of the local backend have flags and variables without its name
        ("/x", "", {"RCLONE_COPY_LINKS": "true", "RCLONE_LOCAL_LINKS": "true"}),
    ],
)
def test_the_environment_as_rclone_reads_it(tmp_path: Path, text: str, section: str, environ: dict[str, str]) -> None:
    """Variables have the effect that they have in rclone."""
    (config := tmp_path / "rclone.conf").write_text(section)
    assert_as_rclone(text, config, environ)


def test_a_variable_belongs_to_one_remote() -> None:
    """Variables of the remote ``a_b`` are not taken for options of ``a``."""
    environ = {"RCLONE_CONFIG_A_TYPE": "memory", "RCLONE_CONFIG_A_B_TYPE": "s3", "RCLONE_CONFIG_A_B_REGION": "x"}
    remotes = Remotes(rclone_registry(), environ, lambda: RemotesFile(None))
    assert remotes.resolve("a:").warnings == ()
    assert remotes.resolve("a_b:").options == {"region": "x"}


class TestStandIns:
    """Remotes that stand for others."""

    CONFIG = """
        [disk]
        type = local
        [there]
        type = alias
        remote = {root}/there
        [again]
        type = alias
        remote = there:sub
        [over]
        type = alias
        remote = disk,links=false:{root}
        [fly]
        type = alias
        remote = :local:{root}
        [both]
        type = combine
        upstreams = "one=there:a b" two=disk:{root}/two
    """

    @pytest.mark.parametrize(
        "text",
        [
            "there:",
            "there:x/y",
            "again:",
            "again:x",
            "again:../../x",
            "over:z",
            "fly:z",
            ":alias,remote='again:x':y",
            "there,remote='{root}/elsewhere':x",
            "both:one",
            "both:one/x",
            "both:two/x/",
        ],
    )
    def test_leads_where_rclone_goes(self, tmp_path: Path, text: str) -> None:
        """An alias, and a path in a combination, name the directory that rclone works in."""
        config = tmp_path / "rclone.conf"
        config.write_text(self.CONFIG.format(root=tmp_path))
        remotes = Remotes(rclone_registry(), {}, lambda: read_remotes_file(str(config), {}))
        text = text.format(root=tmp_path)
        spec = remotes.resolve(text)
        assert spec.type == "local"
        # Proved by a file that we put there, and rclone finds.
        (place := Path(spec.path)).mkdir(parents=True, exist_ok=True)
        (place / "mark").touch()
        assert "mark" in rclone("lsf", "--", text, config=config).stdout.splitlines()

    def test_a_combination_has_its_upstreams(self, tmp_path: Path) -> None:
        """At its root a combine remote is described by the remotes under its directories."""
        remotes = Remotes(
            rclone_registry(), {}, lambda: parse_remotes_file(self.CONFIG.format(root="/r").encode(), "/f")
        )
        spec = remotes.resolve("both:")
        assert spec.type == "combine"
        assert {name: upstream.path for name, upstream in spec.upstreams.items()} == {
            "one": "/r/there/a b",
            "two": "/r/two",
        }

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ("[x]\ntype=alias\nremote=x:y", '"x" -> "x"'),
            ("[x]\ntype=alias\nremote=y:\n[y]\ntype=alias\nremote=z:\n[z]\ntype=alias\nremote=x:", '"x" -> "y" -> "z"'),
            ("[x]\ntype=combine\nupstreams=a=y:\n[y]\ntype=alias\nremote=x:", '"x" -> "y" -> "x"'),
            ("[x]\ntype=alias", r"^/f:1: \[x\]: alias: remote is empty"),
            ("[x]\ntype=combine", r"^/f:1: \[x\]: combine: upstreams is empty"),
            ("[x]\ntype=combine\nupstreams=/a", "number 1 is not directory=remote:path"),
            ("[x]\ntype=combine\nupstreams=a=/x =/b", "number 2 is not directory=remote:path"),
            ("[x]\ntype=combine\nupstreams=a/b=/b", 'a directory cannot have a slash: "a/b"'),
            ("[x]\ntype=combine\nupstreams=a=/b a=/c", 'two are called "a"'),
            ('[x]\ntype=combine\nupstreams="a=/b', "a quote must"),
            ("[x]\ntype=alias\nremote=nowhere:", "nowhere:.*didn't find section"),
        ],
    )
    def test_nonsense_is_refused(self, config: str, reason: str) -> None:
        """Loops, and stand-ins for nothing, are errors that name the way or the place."""
        with pytest.raises(ConfigurationError, match=reason):
            Remotes(rclone_registry(), {}, lambda: parse_remotes_file(config.encode(), "/f")).resolve("x:")

    def test_an_unknown_directory_of_a_combination_is_refused(self) -> None:
        """A repository cannot be put beside the upstreams."""
        file = parse_remotes_file(b"[x]\ntype=combine\nupstreams=a=/b", "/f")
        with pytest.raises(ConfigurationError, match='none is called "c"'):
            Remotes(rclone_registry(), {}, lambda: file).resolve("x:c/repository")
        with pytest.raises(ConfigurationError, match='none is called "c"'):
            Remotes(rclone_registry(), {}, lambda: file).resolve("x:a/../c")


def make(spec: RemoteSpec, loan: Loan) -> IRemote:
    raise AssertionError("not made here")


TAPE = Driver("tape", make, (used("device"), obscured("pin"), harmless("buffers", "16"), refused("rewind", "true")))
BRIDGE = Driver("rclone", make, None)


def resolve(text: str, config: str = "", **environ: str) -> RemoteSpec:
    """``text`` in a world where TAPE is the only driver, beside the bridge."""
    registry = Registry([TAPE], BRIDGE)
    return Remotes(registry, environ, lambda: parse_remotes_file(config.encode(), "/f")).resolve(text)


def test_unknown_options_are_reported_once() -> None:
    """Each remote gets one sentence for the options that nobody knows, and one for those without effect."""
    spec = resolve("x:", "[x]\ntype=tape\ndevice=a\nb=1\nbuffers=8\n[x.y]\n", RCLONE_CONFIG_X_A="2")
    assert spec.options == {"device": "a"}
    assert spec.warnings == (
        'remote "x:": the type tape has no option a, b',
        'remote "x:": without effect here: buffers',
    )
    assert resolve(":tape,buffers=16,device=a:").warnings == ()


def test_options_that_would_change_the_data_are_errors() -> None:
    """The message names file and line, and the option, not its value; the default is no error."""
    assert resolve("x:", "[x]\ntype=tape\nrewind=TRUE\n").warnings == ()
    with pytest.raises(ConfigurationError, match=r"^/f:3: \[x\]: rewind would change .*the type tape$"):
        resolve("x:", "[x]\ntype=tape\nrewind=sideways\n")
    with pytest.raises(ConfigurationError, match=r"^RCLONE_CONFIG_X_REWIND: rewind would"):
        resolve("x:", "[x]\ntype=tape\n", RCLONE_CONFIG_X_REWIND="false")
    with pytest.raises(ConfigurationError, match=r'^remote "x,…:": rewind would'):
        resolve("x,rewind=false:", "[x]\ntype=tape\n")


def test_obscured_options_come_in_clear() -> None:
    """The driver gets the password, the repr of a spec does not show it."""
    spec = resolve("x:", f"[x]\ntype=tape\npin={obscure('hunter2')}\n")
    assert spec.options["pin"] == "hunter2"
    assert "hunter2" not in repr(spec)
    with pytest.raises(ConfigurationError, match=r"^/f:3: \[x\]: pin: not an obscured value") as caught:
        resolve("x:", "[x]\ntype=tape\npin=hunter2!\n")
    assert "hunter2" not in str(caught.value)


def test_values_are_utf_8() -> None:
    """Bytes that are no UTF-8 are an error where a driver would get them."""
    registry = Registry([TAPE])
    file = parse_remotes_file(b"[x]\ntype=tape\ndevice=\xff\n", "/f")
    with pytest.raises(ConfigurationError, match=r"^/f:3: \[x\]: device is not UTF-8"):
        Remotes(registry, {}, lambda: file).resolve("x:")


def test_the_bridge_gets_everything() -> None:
    """A type without a driver keeps all options of the remote as they are written, obscured ones too."""
    spec = resolve("x,host=h:path", "[x]\ntype=sftp\npass=obscured\n", RCLONE_CONFIG_X_USER="u", RCLONE_SFTP_PORT="1")
    assert spec == RemoteSpec(
        "sftp", "x", "path", {"pass": "obscured", "user": "u", "host": "h"}, "x,host=h:path", "/f:1: [x]"
    )


def test_an_alias_hands_the_bridge_the_place_behind_it() -> None:
    """``text`` is what rclone can be told instead."""
    spec = resolve("y:sub", "[x]\ntype=sftp\n[y]\ntype=alias\nremote=x,host='a:b':dir\n")
    assert spec.text == "x,host='a:b':dir/sub"


def test_without_a_bridge_other_types_are_errors() -> None:
    """The message names the section and the type."""
    file = parse_remotes_file(b"[x]\ntype=sftp\n", "/f")
    with pytest.raises(ConfigurationError, match=r'^/f:1: \[x\]: didn\'t find backend called "sftp"'):
        Remotes(Registry([TAPE]), {}, lambda: file).resolve("x:")


def test_a_missing_section_names_the_file() -> None:
    """So that a wrong --config is seen."""
    remotes = Remotes(Registry([TAPE]), {}, lambda: RemotesFile("/etc/x.conf", missing=True))
    with pytest.raises(
        ConfigurationError, match=r'"x:".*/etc/x.conf \(which does not exist\), nor RCLONE_CONFIG_X_TYPE'
    ):
        remotes.resolve("x:")
    with pytest.raises(ConfigurationError, match=r"^/f:2: \[x\]: the section has no type"):
        resolve("x:", "\n[x]\ndevice=a\n")


def test_paths_and_remotes_on_the_fly_need_no_file() -> None:
    """An encrypted file without its password is not in the way of those who name no section."""

    def read() -> RemotesFile:
        raise ConfigurationError("it is encrypted")

    remotes = Remotes(rclone_registry(), {}, read)
    assert remotes.resolve("/srv/restic").path == "/srv/restic"
    assert remotes.resolve("directory").path == "directory"
    assert remotes.resolve(":memory:").type == "memory"
    with pytest.raises(ConfigurationError, match="it is encrypted"):
        remotes.resolve("x:")


def test_a_section_named_without_its_colon_is_noticed() -> None:
    """A path that is the name of a section is most likely a slip."""
    config = "[x]\ntype=tape\n"
    remotes = Remotes(rclone_registry(), {}, lambda: parse_remotes_file(config.encode(), "/f"))
    (warning,) = remotes.resolve("x").warnings
    assert '"x" is a local directory' in warning
    assert remotes.resolve("./x").warnings == ()
    assert remotes.resolve("y").warnings == ()
