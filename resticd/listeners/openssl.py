"""Two methods of pyOpenSSL's ``Connection`` without the copies that they make.

``recv_into`` receives one record into a buffer of its own, copies it, and looks for errors in every callback;
``bio_read`` makes two copies of what it reads. Without that a download takes 0.86 and an upload 0.93 of the CPU time,
most of it with the interpreter's lock in hand. There is no public way: all use of pyOpenSSL's private names is here.
"""

from __future__ import annotations

from OpenSSL._util import ffi, lib
from OpenSSL.SSL import Connection, WantReadError


def open_records(connection: Connection, view: memoryview) -> int:
    """Decipher what ``connection`` has into ``view`` until that is full or no whole record is left.

    Returns how many bytes that were. Raises as ``Connection.recv_into``, but for ``WantReadError``.
    """
    ssl, size, room = connection._ssl, 0, len(view)
    with ffi.from_buffer(view, require_writable=True) as start:
        try:
            while size < room:
                count = lib.SSL_read(ssl, start + size, room - size)
                if count <= 0:
                    connection._raise_ssl_error(ssl, count)
                size += count
        except WantReadError:
            return size
    return size


def take_sealed(connection: Connection, view: memoryview) -> int:
    """Move what ``connection`` has to send into ``view``, as far as there is room. Returns how many bytes that were.

    Raises as ``Connection.bio_read``.
    """
    with ffi.from_buffer(view, require_writable=True) as start:
        count: int = lib.BIO_read(connection._from_ssl, start, len(view))
        if count <= 0:
            connection._handle_bio_errors(connection._from_ssl, count)
        return count
