"""`notifier topology` on a real broker: it shows, declares missing objects, and deletes only with permission."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest
import yaml

from notifier.network.http.aiohttp_hooks import examine_aiohttp
from notifier.queues.rabbitmq.wire.aiormq_hooks import TRIED_PAMQP, install
from tests.cli.in_process import notifier
from tests.cli.registry_files import ISS, URI, made, origins, write
from tests.support.library_changes import all_hooks_off, decoding
from tests.support.rabbit_options import BUCKETS
from tests.tokens.key_folder import pem

EVENT = json.dumps({"iss": "https://id.example.com", "sub": "alice", "clients": ["shop"]})


LARGE_BUCKETS = 1  # a quarter, but one at least
ALL_BUCKETS = BUCKETS + LARGE_BUCKETS


def test_topology_is_declared_shown_and_deleted(amqp_url: str, bare_prefix: str, tmp_path: Path) -> None:
    """Missing, then present, then deleted; a deletion requires confirmation, and `--yes` without a terminal."""
    prefix = bare_prefix
    settings = {"NOTIFIER_QUEUE__URL": amqp_url, "NOTIFIER_QUEUE__PREFIX": prefix}

    def states() -> set[str]:
        shown = json.loads(notifier("topology", "show", "--json", cwd=tmp_path, settings=settings).stdout)
        assert len(shown) == 25 + ALL_BUCKETS
        return {each["state"] for each in shown}

    assert states() == {"missing"}
    assert "`notifier topology declare`" in notifier("topology", "show", cwd=tmp_path, settings=settings).stdout
    declared = notifier("topology", "declare", cwd=tmp_path, settings=settings)
    assert (declared.returncode, declared.stdout) == (0, f"all queues and exchanges under {prefix} are declared\n")
    assert (
        declared.stderr
        == f"{22 + ALL_BUCKETS} new queues: waiting 2 s until RabbitMQ has written their names to its disk\n"
    )
    assert states() == {"ok"}
    assert notifier("topology", "declare", cwd=tmp_path, settings=settings).stderr == ""
    table = notifier("topology", "show", cwd=tmp_path, settings=settings).stdout
    assert f"{prefix}.delay.65536s" in table
    assert f"{prefix}.parked-00.delay.1024s … ({BUCKETS} buckets)" in table
    assert f"{prefix}.parked-large-00.delay.1024s … ({LARGE_BUCKETS} bucket)" in table
    assert f"{prefix}.parked-01" not in table
    assert "topology declare" not in table
    assert "x-message-ttl=65536000" in table
    assert notifier("topology", "delete", cwd=tmp_path, settings=settings).returncode == 2
    deleted = notifier("topology", "delete", "--yes", cwd=tmp_path, settings=settings)
    assert (deleted.returncode, deleted.stdout) == (
        0,
        f"deleted {25 + ALL_BUCKETS} queues and exchanges under {prefix}\n",
    )
    assert states() == {"missing"}


def test_messages_are_deleted_only_with_the_prefix(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """A queue with messages is reported and kept, until `--force` names the prefix."""
    settings = {"NOTIFIER_QUEUE__URL": amqp_url, "NOTIFIER_QUEUE__PREFIX": prefix}
    assert notifier("publish", cwd=tmp_path, stdin=EVENT, settings=settings).returncode == 0
    refused = notifier("topology", "delete", "--yes", cwd=tmp_path, settings=settings)
    assert refused.returncode == 1
    assert f"{prefix}.events holds 1 message\n" in refused.stderr
    words = ("topology", "delete", "--yes", "--force")
    assert notifier(*words, "another", cwd=tmp_path, settings=settings).returncode == 2
    deleted = notifier(*words, prefix, cwd=tmp_path, settings=settings)
    assert deleted.returncode == 0
    assert "and 1 message with them" in deleted.stdout


async def _declare_otherwise(url: str, name: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.queue_delete(name)
        await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 7})


def test_different_queue_of_the_name_is_reported(amqp_url: str, prefix: str, tmp_path: Path) -> None:
    """`show` reports the difference, `declare` fails, both with the two values."""
    settings = {"NOTIFIER_QUEUE__URL": amqp_url, "NOTIFIER_QUEUE__PREFIX": prefix}
    asyncio.run(_declare_otherwise(amqp_url, f"{prefix}.dead"))
    shown = json.loads(notifier("topology", "show", "--json", cwd=tmp_path, settings=settings).stdout)
    (different,) = [each for each in shown if each["state"] == "different"]
    assert different["name"] == f"{prefix}.dead"
    declared = notifier("topology", "declare", cwd=tmp_path, settings=settings)
    assert declared.returncode == 1
    for text in (different["difference"], declared.stderr):
        assert "'7'" in text
        assert "'2147483647'" in text


def test_the_embedded_queue_has_no_topology(tmp_path: Path) -> None:
    """The command reports it and does nothing."""
    for words in (("show",), ("declare",), ("delete", "--yes")):
        done = notifier("topology", *words, cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "sqlite:q.db"})
        assert done.returncode == 0
        assert "it has no topology" in done.stderr
    assert not list(tmp_path.iterdir())


# ── `clients show` prints the origin of each value ───────────────────────────────────────────────────────────────────


def test_each_value_has_its_origin(tmp_path: Path) -> None:
    """Also in a section of `notifier`, which a later source replaces as a whole and `registry.defaults` complete."""
    folder = made(tmp_path)
    defaults = {"timeout": "9s", "retry": {"base": "3s", "max_delay": "9m"}, "success_statuses": [299, 298]}
    registry = {"sources": [{"name": n, "file": f"{n}.yaml"} for n in ("a", "b")], "defaults": {ISS: defaults}}
    first = {"timeout": "7s", "retry": {"base": "1s", "max_delay": "8m"}}
    shop = {"client_id": "s-1", "issuer": ISS, "aliases": ["shop"], "backchannel_logout_uri": URI, "notifier": first}
    write(folder, registry, a=[shop], b=[{"client_id": "s-1", "notifier": {"retry": {"base": "2s"}}}])
    found = origins(folder)
    assert found["aliases"] == (["shop"], "a (a.yaml)")
    assert found["backchannel_logout_uri"] == (URI, "a (a.yaml)")
    assert found["notifier.timeout"] == ("7s", "a (a.yaml)")
    assert found["notifier.retry.base"] == ("2s", "b (b.yaml)")
    assert found["notifier.retry.max_delay"] == ("9m", "registry.defaults")
    assert sorted(found["notifier.success_statuses"][0]) == [298, 299]  # type: ignore[call-overload]
    assert "notifier.retry" not in found


def test_default_durations_have_a_unit(tmp_path: Path) -> None:
    """A number that is not a duration is printed unchanged."""
    folder = made(tmp_path)
    shop = {"client_id": "shop", "issuer": ISS, "backchannel_logout_uri": URI, "notifier": {"per_second": 7.5}}
    write(folder, {"sources": [{"name": "a", "file": "a.yaml"}]}, a=[shop])
    shown = notifier("clients", "show", "-c", "n.yaml", "shop", cwd=folder).stdout
    for value in ("timeout 5s", "max_age 1d", "max_concurrent 32", "per_second 7.5"):
        assert f"notifier.{value} " in " ".join(shown.split())


# ── A library with other internals: a start is refused without a public API, and possible with one ───────────────────


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Create a valid configuration, and a pamqp that cannot decode messages of publishers."""
    (tmp_path / "k.pem").write_bytes(pem("ES256"))
    settings = {
        "queue": {"url": "amqp://127.0.0.1:9/"},
        "issuers": {"https://id.example.com": {"keys": [{"file": "k.pem"}]}},
        "registry": {"file": "clients.yaml"},
    }
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "clients.yaml").write_text("[]")
    for examine in (install, examine_aiohttp):
        examine.cache_clear()
    decoding(monkeypatch.setattr)
    yield tmp_path
    monkeypatch.undo()
    for examine in (install, examine_aiohttp):
        examine.cache_clear()
    install()


@pytest.mark.parametrize("command", ["run", "check"])
def test_start_is_refused_with_the_supported_versions(folder: Path, command: str) -> None:
    """Exit status 2, as for a configuration error."""
    done = notifier(command, "-c", "n.yaml", cwd=folder)
    assert done.returncode == 2
    assert f"install one of {TRIED_PAMQP} (" in " ".join(done.stderr.split())


def test_json_error_names_the_library(folder: Path) -> None:
    """Its path is the library's name."""
    done = notifier("check", "-c", "n.yaml", "--json", cwd=folder)
    assert [each["path"] for each in json.loads(done.stdout)["mistakes"]] == ["pamqp"]


def test_embedded_queue_does_not_need_the_library(folder: Path) -> None:
    """It does not use the library."""
    done = notifier("check", "-c", "n.yaml", cwd=folder, settings={"NOTIFIER_QUEUE__URL": "sqlite:queue.db"})
    assert done.returncode == 0, done.stderr


def test_start_with_public_apis_is_not_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all hooks off, a worker can start."""
    monkeypatch.undo()
    all_hooks_off(monkeypatch.setattr)
    done = notifier("check", "-c", "n.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
