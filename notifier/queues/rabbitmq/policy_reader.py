"""Reads from the broker's management API which policies are in force on our queues. Nothing else tells all of them.

`effective_policy_definition` is what a policy and an operator's policy amount to. For numbers the broker takes the
smaller of policy and argument, for `overflow` the policy. The definition comes with the statistics: some ten seconds
after a queue was declared, and after a policy was set, on 3.10.8 and 4.0.5.
"""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from yarl import URL

from notifier.model.client import TlsFiles
from notifier.model.errors import NotifierError, QueueUnavailable
from notifier.model.message import PolicyKey, PolicyOverride
from notifier.network.http.json_client import JsonAnswer, JsonClient
from notifier.network.http.json_parts import Bounds
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.topology import QueueSpec, topology_of

WITHIN = 5.0
PAGE = 500  # the most that the API gives at once
_BOUNDS = Bounds(answer=4 * 1024 * 1024)


async def read_policies(options: RabbitOptions) -> tuple[PolicyOverride, ...]:
    """Return which policies override the arguments of our queues. Raises QueueUnavailable, which says why not."""
    assert options.management is not None
    wanted = {queue.name: queue for queue in topology_of(options).queues}
    queues_of: dict[tuple[PolicyKey, str], list[str]] = {}
    silent = 0
    client = JsonClient(_BOUNDS, options.tls or TlsFiles())
    try:
        page = pages = 1
        while page <= pages:
            content = _content(await client.ask("GET", _address(options, page), _headers(options), within=WITHIN))
            pages, page = content.get("page_count", 1), page + 1
            for item in content["items"]:
                if (queue := wanted.get(item["name"])) is not None:
                    silent += "effective_policy_definition" not in item
                    for key, value in _overrides(queue, item.get("effective_policy_definition")):
                        queues_of.setdefault((key, value), []).append(queue.name)
    except (NotifierError, OSError) as fault:  # OSError: a file of credentials cannot be read
        raise QueueUnavailable(str(fault)) from None
    except (KeyError, TypeError, AttributeError):
        raise QueueUnavailable("what it answers is no list of queues") from None
    finally:
        await client.close()
    if silent:
        raise QueueUnavailable(
            f"it does not tell those of {silent} of our queues: they are new, or it has no statistics"
        )
    return tuple(PolicyOverride(key=key, value=value, queues=tuple(names)) for (key, value), names in queues_of.items())


def _address(options: RabbitOptions, page: int) -> str:
    vhost = URL(options.urls[0]).path[1:] or "/"
    query = {
        "page": page, "page_size": PAGE, "name": f"^{re.escape(options.prefix)}[.]", "use_regex": "true",
        "columns": "name,effective_policy_definition",
    }  # fmt: skip
    return f"{str(options.management).rstrip('/')}/api/queues/{quote(vhost, safe='')}?{urlencode(query)}"


def _headers(options: RabbitOptions) -> Mapping[str, str]:
    url = URL(options.urls[0])
    user, password = options.credentials() or (url.user or "guest", url.password or "guest")
    return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


def _content(answer: JsonAnswer) -> Any:
    if answer.status in (401, 403):
        raise QueueUnavailable(f"it answers {answer.status}: the user of the queue needs the tag `management`")
    if answer.status != 200:
        raise QueueUnavailable(f"it answers {answer.status}")
    return answer.content


def _overrides(queue: QueueSpec, definition: object) -> Iterator[tuple[PolicyKey, str]]:
    """What of a policy's definition changes the queue. An empty one may be a list."""
    if not isinstance(definition, dict):
        return
    for key in PolicyKey:
        value, declared = definition.get(key), queue.arguments.get(f"x-{key}")
        if value is None or value == declared:
            continue
        if key is PolicyKey.OVERFLOW or not isinstance(declared, int) or int(value) < declared:
            yield key, str(value)
