from __future__ import annotations

from resticd.auth.basic import Credentials
from resticd.auth.cache import VerifiedPasswords

ALICE = Credentials("alice", "right")


def test_a_password_is_known_for_its_user_network_and_hash_alone() -> None:
    passwords = VerifiedPasswords()
    passwords.add("192.0.2.1", ALICE, "hash")
    assert passwords.holds("192.0.2.1", ALICE, "hash")
    assert not passwords.holds("192.0.2.2", ALICE, "hash")
    assert not passwords.holds("192.0.2.1", ALICE, "another hash")
    assert not passwords.holds("192.0.2.1", Credentials("alice", "wrong"), "hash")
    assert not passwords.holds("192.0.2.1", Credentials("bob", "right"), "hash")
    assert not passwords.holds("192.0.2.1", Credentials("alicer", "ight"), "hash")
    assert not passwords.holds("192.0.2.1", Credentials("alice", "righth"), "ash")


def test_the_cache_is_bounded_and_the_least_recently_used_goes_first() -> None:
    passwords = VerifiedPasswords(capacity=2)
    users = [Credentials(name, "right") for name in "abc"]
    for user in users[:2]:
        passwords.add("unix", user, "hash")
    assert passwords.holds("unix", users[0], "hash")
    passwords.add("unix", users[2], "hash")
    assert [passwords.holds("unix", user, "hash") for user in users] == [True, False, True]
    assert len(passwords) == 2


def test_the_digests_differ_between_processes() -> None:
    digests = set()
    for _ in range(2):
        passwords = VerifiedPasswords()
        passwords.add("unix", ALICE, "hash")
        digests.update(passwords._digests)
    assert len(digests) == 2
