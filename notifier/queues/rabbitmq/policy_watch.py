"""Watches which policies of the broker override the arguments of notifier's queues.

The management API reports all policies, if `queue.management` is set: `effective_policy_definition` combines a policy
and an operator policy. For numbers the broker uses the smaller of policy and argument, for `overflow` the policy. The
definition comes with the statistics: about ten seconds after a queue is declared, and after a policy is set, on 3.10.8
and 4.0.5.

Otherwise a temporary queue reveals some policies. Only a process that may declare queues can test that: with
`topology: verify` only the doctor. A worker checks during its start, which does not wait for the result.
"""

import asyncio
import re
import secrets
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import structlog
from yarl import URL

from notifier.model.client import TlsFiles
from notifier.model.errors import NotifierError, QueueError, QueueUnavailable
from notifier.model.message import PolicyKey, PolicyOverride
from notifier.network.http.json_client import JsonAnswer, JsonClient
from notifier.network.http.json_parts import Bounds
from notifier.queues.queue_state import PolicyCheck
from notifier.queues.rabbitmq.connection import CONNECTION_ERRORS, connected, is_cancelled, reason_of
from notifier.queues.rabbitmq.options import RabbitOptions
from notifier.queues.rabbitmq.policy_trial import try_policies
from notifier.queues.rabbitmq.topology import QueueSpec, topology_of

REQUEST_TIMEOUT_SECONDS = 5.0
PAGE_SIZE = 500  # the largest page of the API
_BOUNDS = Bounds(answer=4 * 1024 * 1024)
CHECK_INTERVAL_SECONDS = 600.0  # detects that an operator sets or removes a policy
INCOMPLETE_CHECK_INTERVAL_SECONDS = 60.0  # after an incomplete check
HELP = "notifier explain NotifierQueuePolicy"


async def read_policies(options: RabbitOptions) -> tuple[PolicyOverride, ...]:
    """Return the policies that override the arguments of our queues. Raises QueueUnavailable."""
    assert options.management is not None
    wanted = {queue.name: queue for queue in topology_of(options).queues}
    queues_of: dict[tuple[PolicyKey, str], list[str]] = {}
    silent = 0
    client = JsonClient(_BOUNDS, options.tls or TlsFiles())
    try:
        page = pages = 1
        while page <= pages:
            content = _read_content(
                await client.ask(
                    "GET", _page_url(options, page), _build_headers(options), within=REQUEST_TIMEOUT_SECONDS
                )
            )
            pages, page = content.get("page_count", 1), page + 1
            for item in content["items"]:
                if (queue := wanted.get(item["name"])) is not None:
                    silent += "effective_policy_definition" not in item
                    for key, value in _find_overrides(queue, item.get("effective_policy_definition")):
                        queues_of.setdefault((key, value), []).append(queue.name)
    except (NotifierError, OSError) as fault:  # OSError: credentials cannot be read
        raise QueueUnavailable(str(fault)) from None
    except (KeyError, TypeError, AttributeError):
        raise QueueUnavailable("its answer is not a list of queues") from None
    finally:
        await client.close()
    if silent:
        raise QueueUnavailable(
            f"its answer omits the policies of {silent} of our queues: they are new, or it has no statistics"
        )
    return tuple(PolicyOverride(key=key, value=value, queues=tuple(names)) for (key, value), names in queues_of.items())


def _page_url(options: RabbitOptions, page: int) -> str:
    vhost = URL(options.urls[0]).path[1:] or "/"
    query = {
        "page": page, "page_size": PAGE_SIZE, "name": f"^{re.escape(options.prefix)}[.]", "use_regex": "true",
        "columns": "name,effective_policy_definition",
    }  # fmt: skip
    return f"{str(options.management).rstrip('/')}/api/queues/{quote(vhost, safe='')}?{urlencode(query)}"


def _build_headers(options: RabbitOptions) -> Mapping[str, str]:
    url = URL(options.urls[0])
    user, password = options.credentials() or (url.user or "guest", url.password or "guest")
    return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


def _read_content(answer: JsonAnswer) -> Any:
    if answer.status in (401, 403):
        raise QueueUnavailable(f"it answers {answer.status}: the user of the queue needs the tag `management`")
    if answer.status != 200:
        raise QueueUnavailable(f"it answers {answer.status}")
    return answer.content


def _find_overrides(queue: QueueSpec, definition: object) -> Iterator[tuple[PolicyKey, str]]:
    """Yield the members of a policy's definition that change the queue. An empty definition may be a list."""
    if not isinstance(definition, dict):
        return
    for key in PolicyKey:
        value, declared = definition.get(key), queue.arguments.get(f"x-{key}")
        if value is None or value == declared:
            continue
        if key is PolicyKey.OVERFLOW or not isinstance(declared, int) or int(value) < declared:
            yield key, str(value)


async def check_policies(options: RabbitOptions, name: str, *, may_try: bool) -> PolicyCheck:
    """Query the management API, or test with queues named `name`… if `may_try`. Raises QueueError."""
    fault = ""
    if options.management is not None:
        try:
            return PolicyCheck(by="management", overrides=await read_policies(options))
        except QueueUnavailable as error:
            fault = str(error)
    if not may_try:
        return PolicyCheck(fault=fault)
    async with connected(options, "policies") as connection:
        try:
            return PolicyCheck(by="trial", overrides=await try_policies(connection, name), fault=fault)
        except (QueueUnavailable, *CONNECTION_ERRORS) as error:
            return PolicyCheck(fault=fault or f"no temporary queue can be tried: {reason_of(error)}")


class PolicyWatch:
    """Checks when a worker starts consuming, then every ten minutes if the result may change.

    A test that finds nothing is not repeated. Each new name of a queue stays in the broker's memory permanently, so a
    process uses the same names.
    """

    def __init__(self, options: RabbitOptions) -> None:
        self._options = options
        self._name = f"{options.prefix}.doctor.{secrets.token_hex(4)}"
        self._wanted = asyncio.Event()
        self._due: float | None = 0.0  # in the loop's time; None: never again
        self._fault = ""
        self._log = structlog.get_logger(__name__)
        self.overrides: tuple[PolicyOverride, ...] = ()

    def begin(self) -> None:
        """Start the checks."""
        self._wanted.set()

    async def run(self) -> None:
        """Check while there is a connection, until cancelled."""
        await self._wanted.wait()
        loop = asyncio.get_running_loop()
        while self._due is not None and not is_cancelled():
            await asyncio.sleep(max(0.0, self._due - loop.time()))
            try:
                check = await check_policies(self._options, self._name, may_try=self._options.topology == "declare")
            except QueueError as error:
                check = PolicyCheck(fault=str(error))
            self._log_changes(check)
            nothing_new = check.by == "trial" and not check.overrides and self._options.management is None
            self._due = (
                None
                if nothing_new
                else loop.time() + (INCOMPLETE_CHECK_INTERVAL_SECONDS if check.fault else CHECK_INTERVAL_SECONDS)
            )

    def _log_changes(self, check: PolicyCheck) -> None:
        """Log changes. A check without a result, such as during an alarm, ends no override."""
        if check.fault and check.fault != self._fault:
            self._log.info("queue_policies_unread", reason=check.fault)
        self._fault = check.fault
        if check.by is None:
            return
        for override in check.overrides:
            if override not in self.overrides:
                self._log.warning("queue_policy", reason=str(override), help=HELP)
        if self.overrides and not check.overrides:
            self._log.info("queue_policy_gone")
        self.overrides = check.overrides
