"""The table of drivers."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.rclone_cli import rclone_options
from twisted.internet import reactor
from zope.interface.verify import verifyObject

from resticd.errors import ConfigurationError
from resticd.interfaces import IRemote
from resticd.remotes.drivers import LOCAL, MEMORY, REGISTRY, S3_OPTIONS, WEBDAV_OPTIONS
from resticd.remotes.registry import Driver, Loan, Option, Registry, RemoteSpec, harmless
from resticd.workers import Workers

LOAN = Loan(reactor=reactor, workers=Workers(reactor), client=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("type", "options"),
    [("local", LOCAL.options), ("memory", MEMORY.options), ("s3", S3_OPTIONS), ("webdav", WEBDAV_OPTIONS)],
)
def test_every_option_of_rclone_is_in_the_table(type: str, options: tuple[Option, ...]) -> None:
    """Each option that rclone lists for a type is known once, with its default, and obscured where rclone says so."""
    theirs = rclone_options()[type]
    assert sorted(option.name for option in options) == sorted(theirs)
    for option in options:
        facts = theirs[option.name]
        assert (option.default, option.obscured, option.prefixed) == (facts.default, facts.obscured, facts.prefixed)


def test_drivers_in_use_make_remotes(tmp_path: Path) -> None:
    """A path and ``:memory:`` open."""
    for spec in (RemoteSpec("local", "local", str(tmp_path)), RemoteSpec("memory", ":memory", "")):
        verifyObject(IRemote, REGISTRY.open(spec, LOAN))


def refuse(spec: RemoteSpec, loan: Loan) -> IRemote:
    raise AssertionError("another driver was meant")


def test_types_have_other_names() -> None:
    """A driver is found by its type and by its aliases, and nothing else without a bridge."""
    driver = Driver("gcs", refuse, aliases=("google cloud storage",))
    registry = Registry([driver])
    assert registry.driver("gcs", "x") is registry.driver("google cloud storage", "x") is driver
    with pytest.raises(ConfigurationError, match=r"^x: didn't find backend called .GCS.$"):
        registry.driver("GCS", "x")
    bridge = Driver("rclone", refuse, None)
    assert Registry([driver], bridge).driver("GCS", "x") is bridge


def test_a_missing_library_names_the_extra() -> None:
    """A driver whose library is not installed says what to install."""

    def make(spec: RemoteSpec, loan: Loan) -> IRemote:
        import no_such_library  # noqa: F401

        raise AssertionError

    registry = Registry([Driver("tape", make, extra="tape"), Driver("disk", make)])
    with pytest.raises(ConfigurationError, match=r"x:p: .*tape need no_such_library: pip install 'resticd\[tape\]'"):
        registry.open(RemoteSpec("tape", "x", "p"), LOAN)
    # Without an extra it is a fault of ours, and must not look like one of the user's.
    with pytest.raises(ModuleNotFoundError):
        registry.open(RemoteSpec("disk", "x", "p"), LOAN)


def test_a_missing_module_of_ours_is_no_missing_extra() -> None:
    """A module of resticd that is not there is a fault of ours."""

    def make(spec: RemoteSpec, loan: Loan) -> IRemote:
        import resticd.no_such_module  # noqa: F401

        raise AssertionError

    with pytest.raises(ModuleNotFoundError):
        Registry([Driver("tape", make, extra="tape")]).open(RemoteSpec("tape", "x", "p"), LOAN)


def test_a_spec_cannot_be_changed() -> None:
    """Options are copied and read-only, and neither they nor the text are in the repr."""
    options = {"key": "hunter2"}
    spec = RemoteSpec("s3", "x", "p", options, text="x,key=hunter2:p")
    options["key"] = "changed"
    assert spec.options["key"] == "hunter2"
    with pytest.raises(TypeError):
        spec.options["key"] = "changed"  # type: ignore[index]
    assert "hunter2" not in repr(spec)
    assert str(spec) == "x:p"


@pytest.mark.parametrize(
    ("default", "value", "same"),
    [
        ("false", "False", True),
        ("false", "0", True),
        ("false", "true", False),
        ("", "", True),
        ("", "x", False),
        ("Slash,Dot", "Dot,Slash", True),
        ("Slash,Dot", "Slash,Dot,Ctl", False),
        ("10", "1", False),
    ],
)
def test_defaults_in_other_words(default: str, value: str, same: bool) -> None:
    """A value that says the default in another way is the default."""
    assert harmless("x", default).is_default(value) is same
