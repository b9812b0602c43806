"""The samples verify their broker's certificate, name their user, and end in time, whatever the broker does.

They are run unchanged, on a separate node, in Python, Java and Node. C# is not run: only its text is
checked.
"""

import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest
import tree_sitter
import tree_sitter_c_sharp

from notifier.queues.rabbitmq.administration import declare_topology
from tests.samples.languages import EXAMPLES, Ended, Samples
from tests.support.apt_programs import ProgramMissing
from tests.support.certificates import Authority, authority
from tests.support.rabbit_options import rabbit_options
from tests.support.rabbitmq_node import RabbitmqNode, rabbitmq_node

pytestmark = pytest.mark.timeout(900)  # the first run downloads dependencies
ROOT = EXAMPLES.parents[1]
WITHIN = 30.0  # seconds: 10, as docs/publishing.md promises, and three slow starts at once; they give up after 5


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the authority that the samples trust."""
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def samples(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Prepare the samples; the first run downloads dependencies in some 20 s."""
    try:
        return Samples(tmp_path_factory.mktemp("samples"), ours.ca_file)
    except ProgramMissing as missing:
        pytest.fail(str(missing))


@pytest.fixture(scope="module")
def module_node(ours: Authority) -> Iterator[RabbitmqNode]:
    """Run a broker with its topology, and the publisher of docs/publishing.md with its permissions."""
    (line,) = [
        line for line in (ROOT / "docs/publishing.md").read_text().splitlines() if "set_permissions -p / idp" in line
    ]
    with rabbitmq_node(certificate=ours.issue("localhost")) as node:
        asyncio.run(declare_topology(rabbit_options(node.url)))
        node.ctl("add_user", "idp", "secret")
        node.ctl(*shlex.split(line)[1:])
        yield node


def url(node: RabbitmqNode, scheme: str) -> str:
    return f"{scheme}://idp:secret@localhost:{node.tls_port if scheme == 'amqps' else node.port}"


async def taken(node: RabbitmqNode) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """Take the pending events."""
    found = []
    async with await aio_pika.connect(node.url) as connection:
        queue = await (await connection.channel()).get_queue("notifier.events", ensure=False)
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            found.append(message)
    return found


def assert_failed(ended: dict[str, Ended], words: str = "") -> None:
    """Check that each failed within its time, with a reason."""
    for language, each in ended.items():
        assert each.status == 1, (language, each)
        assert each.seconds < WITHIN, (language, each)
        assert re.search(words, each.output), (language, each)


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
async def test_each_sample_publishes_its_event_in_the_name_of_its_user(
    scheme: str, module_node: RabbitmqNode, samples: Samples
) -> None:
    """Persistent, with `user_id`: an id belongs to its publisher."""
    ended = await samples.run(url(module_node, scheme))
    assert {language: each.status for language, each in ended.items()} == dict.fromkeys(samples.languages, 0), ended
    messages = await taken(module_node)
    assert [message.user_id for message in messages] == ["idp"] * len(samples.languages)
    assert {message.delivery_mode for message in messages} == {aio_pika.DeliveryMode.PERSISTENT}
    assert {message.content_type for message in messages} == {"application/json"}
    events = [json.loads(message.body) for message in messages]
    assert len({event.pop("id") for event in events}) == len(events)
    told = {"iss": "https://id.example.com", "sub": "248289761001", "sid": "08a5019c", "clients": ["shop"]}
    assert events == [told] * len(events)


@pytest.mark.parametrize(
    ("whose", "name", "words"),
    [("ours", "other.example.com", "(?i)match"), ("stranger", "localhost", "(?i)certificat|certpath")],
)
async def test_samples_refuse_an_unverified_broker(
    whose: str, name: str, words: str, module_node: RabbitmqNode, samples: Samples, ours: Authority, tmp_path: Path
) -> None:
    """With a certificate of another name, or of an untrusted authority: the event is not sent."""
    issuer = ours if whose == "ours" else authority(tmp_path, "Stranger")
    await asyncio.to_thread(module_node.certify, issuer.issue(name))
    try:
        assert_failed(await samples.run(url(module_node, "amqps")), words)
    finally:
        await asyncio.to_thread(module_node.certify, ours.issue("localhost"))
    assert await taken(module_node) == []


async def test_samples_fail_if_the_event_has_no_queue(module_node: RabbitmqNode, samples: Samples) -> None:
    """A lost publish must not look like a success."""
    async with await aio_pika.connect(module_node.url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("notifier.events", ensure=False)
        await queue.unbind("notifier.events", "#")
        try:
            assert_failed(await samples.run(url(module_node, "amqp")))
        finally:
            await queue.bind("notifier.events", "#")
    assert await taken(module_node) == []


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
async def test_samples_end_in_time_with_a_frozen_broker(
    scheme: str, module_node: RabbitmqNode, samples: Samples
) -> None:
    """Its kernel still accepts connections, and the broker sends nothing."""
    module_node.freeze()
    try:
        ended = await samples.run(url(module_node, scheme))
    finally:
        module_node.thaw()
    assert_failed(ended)
    assert await taken(module_node) == []


@pytest.mark.parametrize(
    "path",
    [
        *EXAMPLES.glob("*.cs"),
        *(ROOT / "docs/identity-servers").glob("duende*.md"),
        ROOT / "docs/identity-servers/identityserver4.md",
        ROOT / "docs/upstreams.md",
    ],
    ids=lambda path: path.name,
)
def test_c_sharp_samples_are_parsed(path: Path) -> None:
    """By its grammar only."""
    text = path.read_text()
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_c_sharp.language()))
    for code in re.findall(r"^```csharp\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) or [text]:
        assert not parser.parse(code.encode()).root_node.has_error, code
