"""Test which unknown members of an event get a remark."""

import json
from typing import Any

import pytest

from notifier.model.documents.event_document import parse_event
from notifier.model.documents.event_members import EntryDocument, EventBody
from notifier.model.errors import MalformedEvent
from notifier.model.message import Lane, Message
from notifier.publishing.event_remarks import remark_members

ISS = "https://id.example.com"
EVENT: dict[str, Any] = {"iss": ISS, "sub": "ann", "clients": ["shop"]}


def remarks(*entries: dict[str, Any], **members: object) -> list[str]:
    """Return the remarks on an event with these members, and with these entries beside that of `shop`."""
    body = json.dumps({**EVENT, "clients": ["shop", *entries], **members}).encode()
    message = Message(lane=Lane.EVENTS, body=body, tag=1)
    return [*remark_members(parse_event(message, max_bytes=131_072, new_id=lambda: "new", now=0.0).event)]


@pytest.mark.parametrize(
    ("meant", "names"),
    [
        ("sid", "sessionid sessionId session_id session SESSION-STATE SID s_id sessid"),
        ("sub", "user userid user_id subject uid Sub"),
        ("iss", "issuer ISS"),
        ("clients", "client clientids client_ids aud audience Clients clients_ cliens clinets cleints"),
        ("ended_at", "endedat endedAt ended-at time ended_att endet_at"),
        ("email", "Email e-mail emial emails mail"),
        ("not_after", "notAfter not-after not_afer"),
        ("reason", "Reason reson reasons raeson"),
        ("id", "ID"),
    ],
)
def test_name_that_resembles_a_member_gets_a_remark(meant: str, names: str) -> None:
    """By a synonym, without regard to case, `_` and `-`, or for longer members by one edit."""
    for name in names.split():
        [remark] = remarks(**{name: "x"})
        assert remark.startswith(f"{name} is unknown and left out")
        assert remark.endswith(f"; did you mean {meant}?")


def test_other_names_get_no_remark() -> None:
    """Members of CloudEvents and Security Event Tokens, a publisher's own, short ones with an edit, long ones."""
    names = "source type jti exp iat nbf sd suv ids tenant typ seasons clie notbefore sessions_of"
    assert remarks(**dict.fromkeys(names.split(), "x"), **{"sid" + "_" * 1000: "x"}) == []
    assert remarks(sid=None, id="e-1", email="ann@example.com", reason="why", not_after=None) == []


def test_entry_is_searched_too() -> None:
    """For its own members, at the position of the first entry that has the name; also in an event read in parts."""
    entry = {"client_id": "mail", "sessionid": "s-1", "issuer": "x"}
    for more in ((), [{"client_id": f"c{n}"} for n in range(300)]):
        [remark] = remarks({"client_id": "a", "sid": "s-1"}, entry, entry, *more)
        assert remark.startswith("clients[2].sessionid is unknown")


@pytest.mark.parametrize(
    ("meant", "names"),
    [
        ("client_id", "clientid clientId CLIENT-ID"),
        ("sid", "sessid session_id session"),
        ("sub", "user uid"),
        ("backchannel_logout_uri", "uri url logout_uri logoutUrl backchannelLogoutUri backchannel_logout_url"),
        ("backchannel_logout_session_required", "session_required backchannelLogoutSessionRequired"),
        ("id_token_signed_response_alg", "alg algorithm id_token_signed_response_algo idTokenSignedResponseAlg"),
    ],
)
def test_name_in_an_entry_that_resembles_a_member_of_entries_gets_a_remark(meant: str, names: str) -> None:
    """The same rules as for members of the event, with the members of an entry."""
    for name in names.split():
        [remark] = remarks({"client_id": "mail", name: "x"})
        assert remark.startswith(f"clients[1].{name} is unknown and left out")
        assert remark.endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize(
    ("members", "widens"),
    [
        ({"clients": ["shop"]}, True),
        ({"clients": "*"}, True),
        ({"clients": ["shop", {"client_id": "mail", "sid": "s-1"}]}, True),
        ({"clients": [{"client_id": "mail", "sid": "s-1"}]}, False),
        ({"clients": ["shop"], "sid": "s-1"}, False),
    ],
)
def test_remark_states_that_all_sessions_end_only_if_they_do(members: dict[str, Any], widens: bool) -> None:
    """A client that has a `sid` of its own, or that of the event, ends one session."""
    [remark] = remarks(**members, sessionid="s-1")
    assert ("all sessions of the user end" in remark) is widens


def test_members_of_other_formats_in_an_entry_get_no_remark() -> None:
    """Of Security Event Tokens and CloudEvents, and a publisher's own."""
    names = "iss iat jti aud toe txn exp events sub_id specversion id source type time data dataschema name tenant"
    assert remarks({"client_id": "mail", **dict.fromkeys(names.split(), "x")}) == []


@pytest.mark.parametrize(
    ("event", "mistake"),
    [
        ({"issuer": ISS, "sub": "ann", "clients": ["shop"]}, "iss: is required; is issuer meant?"),
        ({"iss": ISS, "user": "ann", "clients": ["shop"]}, "every entry of clients; is user meant?"),
        ({"iss": ISS, "sessid": "s-1", "clients": ["shop"]}, "every entry of clients; is sessid meant?"),
        ({"iss": ISS, "sub": "ann", "client": ["shop"]}, '"*" for all; is client meant?'),
        ({"iss": ISS, "sub": "ann", "clients": [{"clientid": "a"}]}, "clients[0].client_id: is required; is clientid"),
        ({"iss": ISS, "sub": "ann", "clients": [{"name": "a"}]}, "clients[0].client_id: is required"),
        ({"iss": "", "issuer": ISS, "sub": "ann", "clients": ["shop"]}, "iss: must not be empty"),
    ],
)
def test_mistake_of_a_missing_member_names_the_misspelt_one(event: dict[str, Any], mistake: str) -> None:
    """Only if the member is missing."""
    message = Message(lane=Lane.EVENTS, body=json.dumps(event).encode(), tag=1)
    with pytest.raises(MalformedEvent) as caught:
        parse_event(message, max_bytes=131_072, new_id=lambda: "new", now=0.0)
    [issue] = caught.value.mistakes
    assert mistake in str(issue)
    assert ("meant?" in str(issue)) == ("meant?" in mistake or "is clientid" in mistake)


def test_remark_names_what_a_missing_sid_does() -> None:
    """Only if the event has none."""
    text = "sessionid is unknown and left out{}; did you mean sid?"
    assert remarks(sessionid="s-1") == [text.format(", so that all sessions of the user end")]
    assert remarks(sessionid="s-1", sid="s-1") == [text.format("")]


def test_an_event_gets_three_remarks_at_most() -> None:
    """`sid` is first, whose absence widens a logout."""
    found = remarks(issuer="x", aud="x", user="x", sessionid="x")
    assert [remark.partition(" ")[0] for remark in found] == ["sessionid", "issuer", "aud"]


def test_unknown_names_are_examined_in_bounds() -> None:
    """The first hundred, and printable in the remark. Invalid entries are no obstacle."""
    assert remarks(**{f"n{n}": 1 for n in range(10_000)}, sessionid="s-1") == []
    assert remarks(**{"-session\tid" + "x" * 50: 1}) == []
    [remark] = remarks({"sessionid": "s-1"}, {"client_id": "mail", "sessionid": "s-1"})
    assert remark.startswith("clients[1].sessionid")


def test_each_member_is_found_by_its_own_letters() -> None:
    """In camel case, as many serializers write it."""
    for kind in (EventBody, EntryDocument):
        for member in kind.__annotations__:
            first, *more = member.split("_")
            camel = first + "".join(map(str.capitalize, more))
            if camel != member:
                found = remarks(**{camel: "x"}) if kind is EventBody else remarks({"client_id": "mail", camel: "x"})
                assert found[0].endswith(f"did you mean {member}?"), member
