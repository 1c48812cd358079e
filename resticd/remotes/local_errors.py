"""The local driver's one place where an ``OSError`` becomes an error of ``resticd.errors``."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from resticd.errors import NotFound, OutOfSpace, ResticdError, StorageError, TooLarge

#: What holds until somebody makes room, so a client need not repeat it. All else may pass.
_FINAL: dict[int | None, tuple[type[ResticdError], str]] = {
    errno.ENOSPC: (OutOfSpace, "no space is left on the server's disk"),
    errno.EDQUOT: (OutOfSpace, "the server's disk quota is used up"),
    errno.EFBIG: (TooLarge, "the file is larger than the server's file system allows"),
}


@contextmanager
def our_errors(what: str, missing: str | None = None) -> Iterator[None]:
    """Raise an ``OSError`` from within as an error of ``resticd.errors``.

    :param what: begins the sentence, such as ``"reading data/21/21…"``. It names the key, never the path.
    :param missing: the sentence of ``NotFound``, where ENOENT means that the object itself is missing; without it
        ENOENT is a fault like the others.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT and missing is not None:
            raise NotFound(missing) from None
        if error.errno in _FINAL:
            kind, sentence = _FINAL[error.errno]
            raise kind(sentence) from error
        raise StorageError(f"{what}: {error.strerror or type(error).__name__}") from error
