"""What a worker is told when it starts, and at a reload."""

from __future__ import annotations

import base64
import io
import pickle
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from attrs import evolve, frozen

from resticd.assembly import Resolved
from resticd.config.settings import Settings
from resticd.listeners.addresses import Address


@frozen
class Assignment:
    """All that a worker needs.

    It is not told by its command line, which everybody can read, nor does it read settings for itself: all workers have
    the same, and one that is started later has what is in force, whatever the files hold by then.

    :ivar index: of the worker, from 0.
    :ivar processes: how many workers there are.
    :ivar board: the descriptor of the board.
    :ivar places: where to listen, and the descriptors of the sockets; a text is the name of a socket of the service
        manager.
    :ivar directory: from which paths in settings count.
    :ivar relays: whether the worker writes its log for the supervisor to read.
    :ivar suspended: whether bandwidth limits are switched off.
    """

    settings: Settings
    resolved: Resolved
    index: int
    processes: int
    board: int
    places: Sequence[tuple[Address | str, Sequence[int]]]
    directory: str
    relays: bool
    suspended: bool


def quiet(resolved: Resolved) -> Resolved:
    """The same without the warnings, which the supervisor has logged."""
    return resolved._replace(spec=evolve(resolved.spec, warnings=()))


def pack(value: object) -> str:
    """As text, for ``Channel``; only ever from the supervisor to its own children, which run the same code."""
    packed = io.BytesIO()
    _Pickler(packed).dump(value)
    return base64.b64encode(packed.getvalue()).decode()


def unpack(text: str) -> Any:
    """What ``pack`` made."""
    return pickle.loads(base64.b64decode(text))  # noqa: S301 - of the process that started this one


class _Pickler(pickle.Pickler):
    """Takes read-only mappings too."""

    def reducer_override(self, obj: object) -> Any:
        """See ``pickle.Pickler``."""
        if isinstance(obj, MappingProxyType):
            return _read_only, (dict(obj),)
        return NotImplemented


def _read_only(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    """What unpickling calls."""
    return MappingProxyType(mapping)
