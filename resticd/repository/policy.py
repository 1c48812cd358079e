"""What callers may do. Judged on parsed names alone, before anything is touched; every answer in doubt is no."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from resticd.errors import Forbidden, Unsupported

if TYPE_CHECKING:
    from resticd.interfaces import Caller
    from resticd.repository.names import Blob, Repository


@frozen
class Policy:
    """The rules that the settings make. Each check returns, or raises ``Forbidden`` or ``Unsupported``.

    :ivar append_only: nothing but locks is deleted.
    :ivar private_repos: a user sees the repositories below ``/<user>/`` alone.
    :ivar delete_repos: whole repositories may be deleted.
    """

    append_only: bool = False
    private_repos: bool = False
    delete_repos: bool = False

    def check_read(self, caller: Caller, repository: Repository) -> None:
        """May the caller see this repository?"""
        if self.private_repos and (caller.user is None or repository.segments[:1] != (caller.user,)):
            raise Forbidden("this repository belongs to another user")

    def check_create(self, caller: Caller, repository: Repository) -> None:
        """May the caller create this repository?"""
        self.check_read(caller, repository)

    def check_store(self, caller: Caller, blob: Blob) -> None:
        """May the caller add this file? That nothing is replaced is the upload's part."""
        self.check_read(caller, blob.repository)

    def check_delete(self, caller: Caller, blob: Blob) -> None:
        """May the caller delete this file?"""
        self.check_read(caller, blob.repository)
        if self.append_only and blob.type != "locks":
            raise Forbidden("this server is append-only: nothing but locks is deleted")

    def check_remove(self, caller: Caller, repository: Repository) -> None:
        """May the caller delete the whole repository?"""
        self.check_read(caller, repository)
        if self.append_only:
            raise Forbidden("this server is append-only: repositories are not deleted")
        if not self.delete_repos:
            raise Unsupported("this server does not delete repositories")
