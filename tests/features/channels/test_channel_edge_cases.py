"""What a receiver may answer, and what an event may lack: the edge cases of channels, on a worker and its stand-ins."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.features.channels.receiver_harness import (
    EMAIL,
    channel_site,
    check_messages,
    dead_letter,
    event,
    publish,
    receivers_of,
    results,
    rsa_keys,
    until_delivered,
    worker_with,
)
from tests.features.channels.receivers.schemas import validate
from tests.features.channels.receivers.verification import verify_signature
from tests.system.clients import Clients
from tests.system.command import notifier_at
from tests.system.waiting import until


async def test_unknown_user(tmp_path: Path) -> None:
    """404 is final, unless the client's `success_statuses` has it. 409 to a command means that nothing can end."""
    known = ("redfox", "bank", "janssen", "command", "strict")
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        for kind in known:
            await receivers.start(kind, kind)
        await receivers.start("redfox", "redfox-404")
        rows = [receivers.client(kind, kind) for kind in known] + [receivers.client("redfox", "redfox-404")]
        rows[-1]["notifier"]["success_statuses"] = [204, 404]
        async with worker_with(site, rows) as running:
            found = await results(running, event([*known, "redfox-404"], sub="nobody"))
            assert {name for name, each in found.items() if each["fate"] == "delivered"} == {*found} - {"redfox"}
            assert (found["redfox"]["fate"], found["redfox"]["reason"]) == ("dead", "refused")
            assert {len(receiver.requests) for receiver in receivers.by_name.values()} == {1}


async def test_final_answers_to_commands(tmp_path: Path) -> None:
    """They are dead letters at once, with the receiver's words."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        (await receivers.start("command", "unsupported_command")).commands = ("metadata",)
        await receivers.start("command", "unrecognized_provider", iss="https://other.example.com")
        names = [*receivers.by_name]
        async with worker_with(site, [receivers.client("command", name) for name in names]) as running:
            found = await results(running, event(names))
            for name in names:
                assert (found[name]["fate"], found[name]["reason"]) == ("dead", "refused")
                assert name in (await dead_letter(running, name))["error"]
                assert len(receivers.by_name[name].requests) == 1


async def test_workshop_that_stopped_is_retried(tmp_path: Path) -> None:
    """Okta's workshop answers 404 to an unknown user and stops: a dead letter, and then an unreachable receiver."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        receiver = await receivers.start("okta_workshop", "shop")
        async with worker_with(site, [receivers.client("okta_workshop", "shop")]) as running:
            found = await results(running, event(["shop"], email="nobody@example.com"))
            assert (found["shop"]["fate"], found["shop"]["reason"]) == ("dead", "refused")
            await receiver.until_stopped()
            await publish(running, event(["shop"]))
            attempt = await running.until_logged("attempt", lambda line: line["outcome"] == "failed")
            assert attempt["next_due"] is not None


async def test_missing_email_is_a_dead_letter_without_a_request(tmp_path: Path) -> None:
    """Its reason is not `no_sub`. The text names an invalid email, and the log an email that does not count."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        receiver = await receivers.start("okta_workshop", "shop")
        async with worker_with(site, [receivers.client("okta_workshop", "shop")]) as running:

            async def outcome(document: dict[str, object]) -> tuple[str, str]:
                found = (await results(running, document))["shop"]
                return found["fate"], found["reason"]

            without = {name: value for name, value in event(["shop"]).items() if name != "email"}
            assert await outcome(without) == ("dead", "no_email")
            assert await outcome(without | {"email": "alice at example.com"}) == ("dead", "no_email")
            site.config["registry"]["inline"] = "deny"
            site.write()
            await running.until_logged("reloaded")
            assert await outcome(event(["shop"])) == ("dead", "no_email")
            lines = await until(lambda: asyncio.sleep(0, running.logged("dead_letter")), lambda lines: len(lines) == 3)
            errors = [line["error"] for line in lines]
            assert ["not valid" in error for error in errors] == [False, True, False]
            assert "publisher 'idp'" in errors[2]
            assert [line["members"] for line in running.logged("members_ignored")] == ["shop: email"]
            assert receiver.requests == []


async def test_sessions_true_permits_the_end_of_all_sessions(tmp_path: Path) -> None:
    """An operator may decide so: one session ended, and all end at this receiver."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        kinds = ("redfox", "google_workspace", "command")
        for kind in kinds:
            await receivers.start(kind, kind)
        rows = [receivers.client(kind, kind, sessions=True) for kind in kinds]
        async with worker_with(site, rows) as running:
            found = await results(running, event(kinds, sid="s1"))
            assert [each["fate"] for each in found.values()] == ["delivered"] * 3
        for receiver in receivers.by_name.values():
            check_messages(site, receiver)
            assert "s1" not in json.dumps(receiver.ended)


async def test_status_202_to_a_command_is_no_success(tmp_path: Path) -> None:
    """The draft reserves it for asynchronous commands. The dead letter names the setting that accepts it."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        receiver = await receivers.start("command", "shop")
        receiver.success = 202
        row = receivers.client("command", "shop")
        async with worker_with(site, [row]) as running:
            found = await results(running, event(["shop"]))
            assert (found["shop"]["fate"], found["shop"]["reason"]) == ("dead", "refused")
            assert "add 202 to success_statuses" in (await dead_letter(running, "shop"))["error"]
            row["notifier"]["success_statuses"] = [202]
            site.write_clients([row])
            await running.until_logged("reloaded")
            assert (await results(running, event(["shop"])))["shop"]["fate"] == "delivered"


@pytest.mark.parametrize(("quoted", "reason", "requests"), [("", "refused", 1), (" " * 20_000, "rejected_token", 4)])
async def test_error_code_is_read_at_the_start_of_an_answer(
    tmp_path: Path, quoted: str, reason: str, requests: int
) -> None:
    """Beyond the first 16 KiB there is none: such a 400 is tried again as if it had no code."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        receiver = await receivers.start("strict", "shop")
        receiver.quotes = quoted
        row = receivers.client("strict", "shop", audience="https://else.example.com")
        async with worker_with(site, [row]) as running:
            await publish(running, event(["shop"]))
            assert (await dead_letter(running, "shop"))["reason"] == reason
            assert len(receiver.requests) == requests


async def test_user_in_an_error_code_does_not_change_its_meaning(tmp_path: Path) -> None:
    """The code is read before the user is hidden: both answers are final."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        (await receivers.start("command", "command")).commands = ("metadata",)
        await receivers.start("strict", "strict")
        rows = [receivers.client("command", "command")]
        rows.append(receivers.client("strict", "strict", audience="https://else.example.com"))
        async with worker_with(site, rows) as running:
            found = await results(running, event(["command", "strict"], sub="r"))
            assert {(each["fate"], each["reason"]) for each in found.values()} == {("dead", "refused")}
            assert [len(receiver.requests) for receiver in receivers.by_name.values()] == [1, 1]


async def test_answers_that_quote_the_user_are_hidden(tmp_path: Path) -> None:
    """Email, `sub` and `sid` of whatever length are neither in the log nor in the publisher's result."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        receiver = await receivers.start("strict", "shop")
        receiver.quotes = f"user u7, session s9, {EMAIL} "
        row = receivers.client("strict", "shop", audience="https://else.example.com", subject="email")
        async with worker_with(site, [row]) as running:
            await publish(running, event(["shop"], sub="u7", sid="s9"))
            line = await dead_letter(running, "shop")
            assert "user [sub], session [sid], [email]" in line["error"]
            for secret in (EMAIL, "u7", "s9"):
                assert secret not in line["error"]


async def test_changed_channel_applies_to_pending_deliveries(tmp_path: Path) -> None:
    """The next attempt uses the new one. If that ends all sessions of a user, a delivery of one session gets none."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        old, new = await receivers.start("strict", "old"), await receivers.start("command", "shop")
        receivers.by_name |= {"shop": old}
        before = receivers.client("strict", "shop")
        receivers.by_name |= {"shop": new}
        after = receivers.client("command", "shop")
        old.outage = 503
        async with worker_with(site, [before]) as running:
            await publish(running, event(["shop"], sid="s1"))
            await publish(running, event(["shop"]))
            await old.until(lambda: len(old.requests) >= 2)
            site.write_clients([after])
            await new.until(lambda: len(new.ended) == 1)
            await until_delivered(running, 1)
            line = await dead_letter(running, "shop")
            assert line["reason"] == "session_only"
        assert [(each["sub"], len(new.requests)) for each in new.ended] == [("alice", 1)]


async def test_address_in_an_event_is_not_used(tmp_path: Path) -> None:
    """A client with a channel keeps the channel and address of its file, whoever publishes others."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers, Clients() as trap:
        receiver = await receivers.start("strict", "shop")
        async with worker_with(site, [receivers.client("strict", "shop")]) as running:
            entry: dict[str, object] = {"client_id": "shop", "backchannel_logout_uri": trap.url("trap")}
            entry |= {"channel": {"command": {"uri": trap.url("trap"), "tenant": "acme"}}}
            document = event("*") | {"clients": [entry]}
            assert (await results(running, document))["shop"]["fate"] == "delivered"
            assert (len(receiver.ended), trap.hits) == (1, [])


async def test_user_without_sub(tmp_path: Path) -> None:
    """An event that names only a session has no user for `iss_sub`: a dead letter without a request."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        receiver = await receivers.start("strict", "shop")
        async with worker_with(site, [receivers.client("strict", "shop")]) as running:
            document = {name: value for name, value in event(["shop"], sid="s1").items() if name != "sub"}
            found = await results(running, document)
            assert (found["shop"]["fate"], found["shop"]["reason"]) == ("dead", "no_sub")
            assert receiver.requests == []


@pytest.mark.parametrize(
    ("email", "status"),
    [("ålice@bücher.example", 202), (f"{'a' * 242}@example.com", 202), ("a\u0000@example.com", 400), ("", 400)],
)
async def test_unusual_email(tmp_path: Path, email: str, status: int) -> None:
    """It reaches the receiver as it was published, or the event is refused."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        receiver = await receivers.start("google_workspace", "shop")
        async with worker_with(site, [receivers.client("google_workspace", "shop")]) as running:
            assert (await running.post(event(["shop"]) | {"email": email}))[0] == status
            if status == 202:
                await receiver.until(lambda: len(receiver.ended) == 1)
                assert receiver.ended[0] == {"format": "email", "email": email}


async def test_canaries_end_nothing(tmp_path: Path) -> None:
    """A verification event, the command `metadata`. A revocation has no such form, and is not sent without --yes."""
    site = channel_site(tmp_path)
    async with receivers_of(site) as receivers:
        strict = await receivers.start("strict", "strict")
        for kind in ("command", "redfox"):
            await receivers.start(kind, kind)
        rows = [receivers.client(kind, kind) for kind in ("command", "redfox")]
        site.write_clients([receivers.client("strict", "strict", stream_id="stream-1"), *rows])

        async def canary(name: str, *words: str) -> Any:
            done = await notifier_at(site, "doctor", "--canary", name, "--json", *words)
            return next(row for row in json.loads(done.stdout) if row["area"] == "canary")

        assert (await canary("strict"))["level"] == "ok"
        assert (await canary("command", "--yes"))["level"] == "ok"
        withheld = await canary("redfox")
        assert (withheld["level"], "--yes" in json.dumps(withheld)) == ("warning", True)
        assert {name: each.statuses for name, each in receivers.by_name.items()} == {
            "strict": [202], "command": [200], "redfox": [],
        }  # fmt: skip
        assert strict.verified == [None]
        token = receivers.by_name["command"].requests[0].body.decode().removeprefix("command_token=")
        validate("metadata_command", *verify_signature(token, rsa_keys(site), ["RS256"]))
        validate(
            "verification_event",
            *verify_signature(strict.requests[0].body.decode(), rsa_keys(site), ["RS256"]),
        )
        assert [receiver.ended for receiver in receivers.by_name.values()] == [[], [], []]
