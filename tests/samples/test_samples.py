"""The samples tell their broker by its certificate, name their user, and hold nobody up, whatever the broker does.

They are run as they stand, on a node of their own, in Python, Java and Node. C# is not run: what its sample rests on is
looked at in its text.
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
from tests.support.rabbitmq_node import RabbitmqNode, node_or_exit

pytestmark = pytest.mark.timeout(900)  # at the first time on a machine Maven and npm get what the samples need
ROOT = EXAMPLES.parents[1]
WITHIN = 30.0  # seconds: 10, as docs/publishing.md promises, and three slow starts at once; they give up after 5


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that the samples are told to trust."""
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def samples(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """What Java and Node need is got at the first run: some 20 s."""
    try:
        return Samples(tmp_path_factory.mktemp("samples"), ours.ca_file)
    except ProgramMissing as missing:
        pytest.fail(str(missing))


@pytest.fixture(scope="module")
def module_node(ours: Authority) -> Iterator[RabbitmqNode]:
    """A broker with its topology, and the publisher of docs/publishing.md, who may do what that lets it do."""
    (line,) = [
        line for line in (ROOT / "docs/publishing.md").read_text().splitlines() if "set_permissions -p / idp" in line
    ]
    with node_or_exit(ours.issue("localhost")) as node:
        asyncio.run(declare_topology(rabbit_options(node.url)))
        node.ctl("add_user", "idp", "secret")
        node.ctl(*shlex.split(line)[1:])
        yield node


def url(node: RabbitmqNode, scheme: str) -> str:
    return f"{scheme}://idp:secret@localhost:{node.tls_port if scheme == 'amqps' else node.port}"


async def taken(node: RabbitmqNode) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """The events that wait, which are gone then."""
    found = []
    async with await aio_pika.connect(node.url) as connection:
        queue = await (await connection.channel()).get_queue("notifier.events", ensure=False)
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            found.append(message)
    return found


def assert_failed(ended: dict[str, Ended], words: str = "") -> None:
    """Each within its time, and saying why."""
    for language, each in ended.items():
        assert each.status == 1, (language, each)
        assert each.seconds < WITHIN, (language, each)
        assert re.search(words, each.output), (language, each)


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
async def test_each_sample_publishes_its_event_in_the_name_of_its_user(
    scheme: str, module_node: RabbitmqNode, samples: Samples
) -> None:
    """Persistent, with `user_id`: an id is its publisher's alone."""
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
async def test_no_sample_talks_to_a_broker_that_it_cannot_tell(
    whose: str, name: str, words: str, module_node: RabbitmqNode, samples: Samples, ours: Authority, tmp_path: Path
) -> None:
    """A certificate of another name, or of an authority that it was not told to trust: the event is not sent."""
    issuer = ours if whose == "ours" else authority(tmp_path, "Stranger")
    await asyncio.to_thread(module_node.certify, issuer.issue(name))
    try:
        assert_failed(await samples.run(url(module_node, "amqps")), words)
    finally:
        await asyncio.to_thread(module_node.certify, ours.issue("localhost"))
    assert await taken(module_node) == []


async def test_each_sample_fails_where_nobody_would_get_the_event(module_node: RabbitmqNode, samples: Samples) -> None:
    """A publish that is lost does not look like one that worked."""
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
async def test_a_broker_that_is_frozen_holds_no_sample(
    scheme: str, module_node: RabbitmqNode, samples: Samples
) -> None:
    """It still takes connections, by its kernel, and says nothing on them."""
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
def test_what_is_written_in_c_sharp_is_c_sharp(path: Path) -> None:
    """By its grammar alone."""
    text = path.read_text()
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_c_sharp.language()))
    for code in re.findall(r"^```csharp\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) or [text]:
        assert not parser.parse(code.encode()).root_node.has_error, code
