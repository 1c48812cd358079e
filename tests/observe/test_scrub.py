from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resticd.observe.scrub import MASK, Scrubber


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Basic §",
        "authorization: bearer §",
        "Proxy-Authorization: Basic §",
        "Authorization: §",
        "{b'authorization': [b'Basic §']}",
        'Headers({b"Authorization": [b"Bearer §"]})',
        "('Authorization', 'Basic §')",
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIA§/20261128, SignedHeaders=host, Signature=§",
        "Authorization: SharedKey account:§",
        "Authorization: Unheard-of §",
        "sent Basic § to it",
        "sent Bearer §",
        "http://user:§@host/path",
        "sftp://user:§%40x@host:22/",
        "https://§@github.com/x",
        "https://b.example/k?X-Amz-Signature=§&X-Amz-Credential=§%2F20261128&X-Amz-Date=1",
        "https://b.example/k?X-Amz-Security-Token=§",
        "https://a.blob.example/c/b?sv=2024&sig=§%3D",
        "https://storage.example/b/o?key=§",
        "RCLONE_CONFIG_PASS=§",
        "RCLONE_CONFIG_B2_KEY_SECRET=§",
        "{'RCLONE_CONFIG_PASS': '§', 'HOME': '/root'}",
        '{"access_token":"§","expires_in":3600}',
        "AWS_SECRET_ACCESS_KEY=§",
        ":s3,access_key_id=§,secret_access_key=§:bucket",
        ':webdav,pass="§, with \\" quotes",user=me:',
        "--pass=§ --user=me",
        "Settings(pass_='§')",
        'x=\'{"password": "§"}\'',
        "account_key=§/§==",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    scrubbed = Scrubber().scrub(text.replace("§", "dGhpc0lzU2VjcmV0"))
    assert "dGhpc0lzU2VjcmV0" not in scrubbed
    assert MASK in scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "wrong user or password",
        'login refused from 192.0.2.7 for "bob": wrong user or password',
        "--pass: empty",
        "GET /laptop/data/21/2159dd48 HTTP/1.1",
        "GET /laptop/?create=true HTTP/1.1",
        "compass=3 bypass=1",
        "listening on http://127.0.0.1:8080/",
        "mail to root@host",
        "a basic authentication",
        "object key=data/21",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Scrubber().scrub(text) == text


def test_what_stands_around_a_secret_stays() -> None:
    text = "PUT https://u:p@b.example/k?X-Amz-Date=1&X-Amz-Signature=abc&x=2: 403"
    assert Scrubber().scrub(text) == "PUT https://***@b.example/k?X-Amz-Date=1&X-Amz-Signature=***&x=2: 403"


def test_a_secret_that_it_was_told_is_masked_anywhere() -> None:
    scrubber = Scrubber(["correct horse"])
    scrubber.hide("correct horse battery")
    assert scrubber.scrub("«correct horse battery» and 'correct horse'") == "«***» and '***'"
    assert scrubber.scrub("incorrect horses") == "incorrect horses"


def test_a_short_secret_is_not_told_by_the_holes_it_leaves() -> None:
    assert Scrubber(["restic", ""]).scrub("restic") == "restic"


def test_the_strings_of_a_structure_are_scrubbed() -> None:
    value = {"a": ["token=abc", 1, None, {"b": "https://u:p@h/"}], "c": True}
    assert Scrubber().scrub_all(value) == {"a": ["token=***", 1, None, {"b": "https://***@h/"}], "c": True}


@settings(deadline=None)
@given(st.text(st.sampled_from("token=:'\"&? *Basicauthorz/@\\")))
def test_scrubbing_twice_is_scrubbing_once(text: str) -> None:
    once = Scrubber().scrub(text)
    assert Scrubber().scrub(once) == once


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters='"\\\n')))
def test_a_client_hides_nothing_outside_of_its_quotes(text: str) -> None:
    scrubbed = Scrubber().scrub(f'from 192.0.2.7 for "{text}": wrong')
    assert scrubbed.startswith('from 192.0.2.7 for "')
    assert scrubbed.endswith('": wrong')
