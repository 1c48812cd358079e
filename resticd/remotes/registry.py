"""Which driver serves which type of remote, and which of rclone's options each driver takes.

To add a driver, describe it in ``resticd.remotes.drivers``:

>>> def make_tape(spec: RemoteSpec, loan: Loan) -> IRemote:
...     from resticd.remotes.tape import TapeRemote  # imported when a tape is used, and only then
...     return TapeRemote(spec.options["device"], spec.path, loan.workers)
>>> TAPE = Driver(
...     "tape",
...     make_tape,
...     (used("device"), secret("pin"), harmless("buffers", "16"), refused("rewind", "true")),
...     extra="tape",
... )

Every option that rclone has for the type is named, so that what a user wrote is either honoured, reported or refused.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from resticd.errors import ConfigurationError
from resticd.remotes.claims import Claims

if TYPE_CHECKING:
    from resticd.interfaces import IRemote
    from resticd.transport.limiter import Limiter
    from resticd.transport.settings import ClientSettings
    from resticd.workers import Workers


class Effect(enum.Enum):
    """What a driver does with an option."""

    USED = "used"
    #: has no effect here, and the stored data are the same without it: reported where it is set
    HARMLESS = "harmless"
    #: would change where or how data are stored, which the driver cannot do: an error where it is set
    REFUSED = "refused"


@frozen
class Option:
    """One option of a type of remote.

    :ivar default: rclone's, as text. An option that is set to it counts as not set where the effect is not ``USED``.
    :ivar obscured: the value is written as ``rclone obscure`` makes it; the driver gets it in clear.
    :ivar secret: never shown.
    :ivar prefixed: the flag and the variable begin with the type: ``--s3-region``, ``RCLONE_S3_REGION``.
    """

    name: str
    default: str = ""
    effect: Effect = Effect.USED
    obscured: bool = False
    secret: bool = False
    prefixed: bool = True

    def flag(self, type: str) -> str:
        """The name of the flag that sets it for remotes of this type."""
        name = self.name.replace("_", "-")
        return f"{type}-{name}" if self.prefixed else name

    def is_default(self, value: str) -> bool:
        """Whether ``value`` says the same as the default: ``False`` and ``0`` are ``false``, lists have no order."""
        return _normal(value) == _normal(self.default)


_BOOLEANS = {"1": "true", "t": "true", "0": "false", "f": "false"}


def _normal(value: str) -> frozenset[str]:
    return frozenset(_BOOLEANS.get(word, word) for word in value.lower().split(","))


def used(name: str, default: str = "") -> Option:
    """An option that the driver honours."""
    return Option(name, default)


def secret(name: str) -> Option:
    """An honoured option whose value is never shown."""
    return Option(name, secret=True)


def obscured(name: str) -> Option:
    """An honoured password, obscured in the configuration."""
    return Option(name, obscured=True, secret=True)


def harmless(name: str, default: str = "", *, prefixed: bool = True) -> Option:
    """An option without effect here that changes nothing about the stored data."""
    return Option(name, default, Effect.HARMLESS, prefixed=prefixed)


def refused(name: str, default: str = "", *, prefixed: bool = True) -> Option:
    """An option that would change where or how data are stored, which the driver cannot do."""
    return Option(name, default, Effect.REFUSED, prefixed=prefixed)


def _read_only(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(mapping))


@frozen
class RemoteSpec:
    """One remote, as the configuration describes it.

    :ivar type: rclone's name of the backend, such as ``s3``; ``combine`` for several remotes under one root.
    :ivar name: the section, ``:type`` where it was described on the fly, ``local`` for a plain path.
    :ivar path: the place on the remote, as it was written, perhaps empty.
    :ivar options: what was said of the driver's options (all of them for the bridge), obscured ones in clear where the
        driver asks for that; what nobody said is not in it.
    :ivar text: how rclone would be told of the place, aliases resolved. Has secrets.
    :ivar source: where the remote is described, for messages.
    :ivar warnings: one sentence each, for the log.
    :ivar upstreams: of a ``combine``: the remote under each directory.
    """

    type: str
    name: str
    path: str
    options: Mapping[str, str] = field(factory=dict, converter=_read_only, repr=False)
    text: str = field(default="", repr=False)
    source: str = ""
    warnings: tuple[str, ...] = ()
    upstreams: Mapping[str, RemoteSpec] = field(factory=dict, converter=_read_only)

    def __str__(self) -> str:
        return f"{self.name}:{self.path}" if self.name != "local" else self.path


@frozen
class RcloneSettings:
    """How rclone is run for the remotes that it serves; see ``resticd.remotes.bridge``.

    :ivar program: a name to look for, or a path.
    :ivar config: the path of the remotes file; empty where there is none.
    :ivar password_command: prints the password of that file.
    :ivar flags: rclone's own flags from the command line, by their names without dashes.
    :ivar environ: the daemon's environment.
    :ivar clean: takes secrets out of what rclone says.
    """

    program: str = "rclone"
    config: str = ""
    password_command: str = field(default="", repr=False)
    flags: Mapping[str, str] = field(factory=dict, converter=_read_only, repr=False)
    environ: Mapping[str, str] = field(factory=dict, converter=_read_only, repr=False)
    clean: Callable[[str], str] = str


def _own_claims(_: str) -> Claims:
    """Claims among the uploads of this process, through one remote."""
    return Claims()


@frozen
class Loan:
    """What the service lends to every driver.

    :ivar client: how to talk to remotes over HTTP.
    :ivar remotes_file: the path of the remotes file, if there is one.
    :ivar checkers: how many parts of a list are read at once (``--checkers``).
    :ivar limiter: for drivers that count their own requests (``--tpslimit``); such a driver says so by
        ``counts_requests``.
    :ivar rclone: for the bridge to rclone.
    :ivar without: the techniques to do without, for comparison (``--without``).
    :ivar claims: makes what ``claims_of`` returns, of a name for the remote.
    """

    reactor: Any
    workers: Workers
    client: ClientSettings
    remotes_file: str | None = None
    checkers: int = 8
    limiter: Limiter | None = None
    without: tuple[str, ...] = ()
    claims: Callable[[str], Claims] = _own_claims
    rclone: RcloneSettings = RcloneSettings()

    def claims_of(self, spec: RemoteSpec) -> Claims:
        """The claims on keys of one remote; where several processes serve it they are those of all of them."""
        # The text has secrets; equal digests are the same place in every process.
        return self.claims(hashlib.sha256(spec.text.encode()).hexdigest()[:16])


@frozen
class Driver:
    """How remotes of one type are made.

    :ivar type: rclone's name of the backend, the one that its flags and variables begin with.
    :ivar make: called with a spec and what the service lends; imports the driver's module.
    :ivar options: None for a driver that hands every option on.
    :ivar extra: the part of resticd to install for it, where its libraries are not always there.
    :ivar aliases: further names of the type.
    :ivar counts_requests: whether it waits for ``Loan.limiter`` before each request, so that nothing above has to.
    :ivar remembers: whether what lists and uploads said is worth remembering (``--cache-objects``): not where asking
        is cheap.
    :ivar shareable: whether several processes can serve one remote of this type (``--workers``).
    """

    type: str
    make: Callable[[RemoteSpec, Loan], IRemote]
    options: tuple[Option, ...] | None = ()
    extra: str = ""
    aliases: tuple[str, ...] = ()
    counts_requests: bool = False
    remembers: bool = True
    shareable: bool = True

    def open(self, spec: RemoteSpec, loan: Loan) -> IRemote:
        """The remote, not started. Raises ``ConfigurationError`` where the spec, or the installation, will not do."""
        try:
            return self.make(spec, loan)
        except ImportError as error:
            if not self.extra or (error.name or "").partition(".")[0] == "resticd":
                raise
            raise ConfigurationError(
                f"{spec}: remotes of type {self.type} need {error.name}: pip install 'resticd[{self.extra}]'"
            ) from error


class Registry:
    """All drivers.

    :param bridge: serves what no other driver does, through rclone; None where there is none.
    """

    def __init__(self, drivers: Iterable[Driver], bridge: Driver | None = None) -> None:
        self._drivers = {name: driver for driver in drivers for name in (driver.type, *driver.aliases)}
        self._bridge = bridge

    @property
    def drivers(self) -> tuple[Driver, ...]:
        """All of them, the bridge last."""
        own = dict.fromkeys(self._drivers.values())
        return (*own, self._bridge) if self._bridge is not None else tuple(own)

    def driver(self, type: str, source: str) -> Driver:
        """The driver for ``type``. Raises ``ConfigurationError`` that names ``source`` where there is none."""
        driver = self._drivers.get(type, self._bridge)
        if driver is None:
            raise ConfigurationError(f'{source}: didn\'t find backend called "{type}"')
        return driver

    def open(self, spec: RemoteSpec, loan: Loan) -> IRemote:
        """The remote that ``spec`` describes; ``combine`` is not for here, its upstreams are."""
        return self.driver(spec.type, spec.source).open(spec, loan)
