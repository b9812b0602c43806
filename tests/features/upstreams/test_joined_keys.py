"""The JWK Set that clients of a relayed identity server read: its own keys, and those of notifier."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from notifier.features.upstreams.joined_keys import JoinedSet, ServerSet, is_joined_set, join_keys, read_server_set
from notifier.network.http.json_parts import Bounds, read_json
from tests.tokens.transmitter import key, public

SERVER = public(key("P-256", "server"), "s1")
OWN = public(key("P-256", "own"), "n1", use="sig", alg="ES256")


def read(*keys: object) -> ServerSet:
    """The server's set."""
    read = read_server_set({"keys": list(keys)})
    assert isinstance(read, ServerSet), read
    return read


def served(joined: JoinedSet) -> list[Mapping[str, Any]]:
    """The keys that clients get. Fail for a constant such as `Infinity`."""
    document = json.loads(joined.body, parse_constant=pytest.fail)
    assert is_joined_set(document)
    keys: list[Mapping[str, Any]] = document["keys"]
    return keys


@pytest.mark.parametrize(
    "name",
    ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv", "D", "privateKey", "private_key", "seed", "clientSecret"],
)
def test_no_private_member_is_served_whatever_its_case(name: str) -> None:
    """Also of a type that notifier does not know. Such a set is reported."""
    odd = {"kty": "AKP", "kid": "a", "alg": "ML-DSA-65", "pub": "x"}
    server = read({**odd, name: "s3cret"})
    assert (server.passed_on, server.has_secrets) == ((odd,), True)


@pytest.mark.parametrize("empty", [None, "", []])
def test_an_empty_member_d_does_not_count_as_private(empty: object) -> None:
    """Serializers write it. It is served neither."""
    server = read({**SERVER, "d": empty})
    assert (server.passed_on, server.has_secrets) == ((SERVER,), False)
    assert not server.published[0].private


def test_only_texts_booleans_integers_and_lists_of_texts_are_served() -> None:
    """Not a nested `d`, nor `1e999`, which would make the answer invalid. The rest of an unknown key is unchanged."""
    odd = {"kty": "NEW", "kid": "o", "x5c": ["MII"], "ext": True, "size": 3, "key_ops": ["verify"]}
    dropped = json.loads('{"exp": 1e999, "rate": 0.5, "nested": {"d": "s3cret"}, "list": [{"d": "s3cret"}], "n": null}')
    joined = join_keys(read({**odd, **dropped}, "text", {"kty": "oct", "k": "s3cret"}, SERVER), [OWN])
    assert served(joined) == [odd, SERVER, OWN]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (f'[{json.dumps(SERVER)}, {{"kty": "RSA", "x5c": ["{"A" * 300_000}"]}}]', "is larger than 256 KiB"),
        (f'[{json.dumps(SERVER)}, {{"kty": "RSA", "size": {"9" * 5000}}}]', "has a number that is too long"),
        (f'[{json.dumps(SERVER)}, {{"kty": "RSA", "deep": {"[" * 33}{"]" * 33}}}]', "is nested more than 32 deep"),
        (json.dumps([SERVER] * 101), "has more than 100 keys"),
    ],
)
async def test_a_key_left_out_for_its_size_digits_depth_or_number_makes_the_set_unusable(
    keys: str, reason: str
) -> None:
    """The server might sign with that key."""
    document = await read_json(f'{{"keys": {keys}}}'.encode(), Bounds(answer=512 * 1024))
    assert reason in str(read_server_set(document))


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": []}, {"keys": [{"kty": "oct", "k": "x"}]}])
def test_a_set_without_a_public_key_is_unusable(document: object) -> None:
    """Nothing of it is served."""
    assert isinstance(read_server_set(document), str)


def test_the_keys_of_the_server_come_first() -> None:
    """A receiver that takes the first key takes the server's."""
    joined = join_keys(read(SERVER), [OWN])
    assert (served(joined), joined.left_out, joined.added) == ([SERVER, OWN], {}, 1)


def test_a_shared_key_is_listed_once() -> None:
    """The server and notifier may sign by one key."""
    joined = join_keys(read(SERVER), [dict(SERVER)])
    assert (served(joined), joined.left_out, joined.added) == ([SERVER], {}, 0)


def test_no_kid_is_listed_twice() -> None:
    """A receiver would take either key, and refuse ID tokens."""
    joined = join_keys(read(SERVER), [{**OWN, "kid": "s1"}])
    assert served(joined) == [SERVER]
    assert "another key is published under this kid" in joined.left_out["s1"]


def test_notifiers_key_published_as_enc_is_named_with_the_reason() -> None:
    """Receivers skip it. A key that is published twice, once for signatures, is none."""
    joined = join_keys(read({**OWN, "use": "enc"}), [OWN])
    assert '"use": "enc"' in joined.left_out["n1"]
    assert join_keys(read({**OWN, "use": "enc"}, OWN), [OWN]).left_out == {}


def test_a_key_without_kid_keeps_out_only_a_key_for_the_same_algorithm() -> None:
    """Tokens of the server then name no key. A P-521 key confuses no ES256 token, nor does a key for encryption."""
    rsa = public(key("RSA2048"), "n2")
    nameless = public(key("P-256", "server"), None)
    joined = join_keys(read(nameless), [OWN, rsa])
    assert served(joined) == [nameless, rsa]
    assert "without kid for ES256: give notifier a key of another type" in joined.left_out["n1"]
    for other in (public(key("P-521"), None), {**nameless, "use": "enc"}):
        assert served(join_keys(read(other), [OWN])) == [other, OWN]


def test_odd_members_of_the_server_are_no_fault() -> None:
    """Its set is foreign input."""
    odd = {"kty": 5, "kid": 7, "x": [], "name": "\ud800"}
    assert served(join_keys(read(odd), [OWN])) == [odd, OWN]
