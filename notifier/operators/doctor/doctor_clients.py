"""The doctor's checks of clients: whether each can be reached as in a delivery, and whether its settings make sense.

Clients on one server share one check, since they share its address and certificate.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from notifier.model.client import Client, Route
from notifier.model.front_channel import is_on_page
from notifier.model.outcome import Reason
from notifier.model.presets import PRESETS, find_preset_doubt, find_preset_excess
from notifier.model.registry import Registry
from notifier.network.http.issuer_document import is_for_tests
from notifier.network.http.probe import ReachedAddress, ReachFailure
from notifier.operators.doctor.doctor import Area, Finding, failure, ok, warning
from notifier.operators.doctor.doctor_workers import (
    EXPIRY_WARNING_SECONDS,
    RENEW_ADVICE,
    Statuses,
    expiry_finding,
    judge_client,
)

MAX_LISTED_CLIENTS = 20  # failing clients of one server with separate lines
MAX_NAMED_CLIENTS = 5  # clients of one server that are named; the others are counted

Reach = Callable[[str, Route, float], Awaitable[ReachedAddress | ReachFailure]]
"""Connects to the host of a URI by a route (proxy, egress, TLS), within some seconds. Never raises."""

ADVICE: Mapping[Reason, str] = {
    Reason.DNS: "correct its host in backchannel_logout_uri or channel.….uri, or in the name servers of this machine",
    Reason.CONNECT: "look whether it runs, and whether a firewall lets this machine through",
    Reason.TIMEOUT: "look whether a firewall drops what this machine sends; deliveries wait and are retried meanwhile",
    Reason.TLS: "name the authority that issued its certificate in notifier.tls.ca_file of the client, or renew it",
    Reason.EGRESS_DENIED: "if that address is meant, allow it in egress.allow of the client or of all",
    Reason.INTERCEPTED: "have the firewall in front of it let the address of this machine pass",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server and its clients. It must accept a connection within `timeout` seconds."""

    origin: str
    route: Route
    uri: str
    timeout: float
    clients: tuple[Client, ...]

    @property
    def subject(self) -> str:
        """Return the names of the clients."""
        return _format_names([client.client_id for client in self.clients])


def servers_of(clients: Iterable[Client]) -> list[Server]:
    """Return the servers of the clients, one for each origin and route. Servers of test issuers are left out."""
    by_route: dict[tuple[str, Route], list[Client]] = {}
    for client in clients:
        if client.logout_uri is not None and not is_for_tests(client.iss):
            parts = urlsplit(client.logout_uri)
            origin = f"{parts.scheme}://{parts.netloc}".lower()
            by_route.setdefault((origin, client.route), []).append(client)
    return [
        Server(
            origin=origin,
            route=route,
            uri=same_server[0].logout_uri or "",
            timeout=max(client.timeout for client in same_server),
            clients=tuple(same_server),
        )
        for (origin, route), same_server in by_route.items()
    ]


async def examine_server(
    server: Server, reach: Reach, clock: Callable[[], float], get_states: Callable[[], Awaitable[Statuses]]
) -> list[Finding]:
    """Connect as a delivery would, and check the certificate. If that fails, return one finding for all clients.

    Otherwise, return a finding for each client that fails or is deferred at a worker, and one for all healthy clients
    together. `get_states` returns the workers' states of clients.
    """
    if server.route.withheld is not None:
        advice = "until then its deliveries wait, and nothing is sent to the address"
        return [failure(Area.CLIENT, server.subject, server.route.withheld, advice)]
    reached = await reach(server.uri, server.route, server.timeout)
    if isinstance(reached, ReachFailure):
        text = f"{server.origin} cannot be reached: {reached.text}"
        advice = RENEW_ADVICE if "has expired" in text else ADVICE.get(reached.reason, ADVICE[Reason.CONNECT])
        return [failure(Area.CLIENT, server.subject, text, advice)]
    states = await get_states()
    known_states = filter(None, (states.get(client.key) for client in server.clients))
    troubled = [state for state in known_states if state.state not in ("well", "paused")]  # a pause has its finding
    troubled.sort(key=lambda state: state.urgency, reverse=True)
    findings = [judge_client(state.client_id, state, server.origin, clock()) for state in troubled[:MAX_LISTED_CLIENTS]]
    if len(troubled) > len(findings):
        text = f"{len(troubled) - len(findings):,} more clients of {server.origin} are not healthy"
        findings.append(warning(Area.CLIENT, server.origin, text, "notifier status --all"))
    troubled_ids = {state.client_id for state in troubled}
    healthy = [client.client_id for client in server.clients if client.client_id not in troubled_ids]
    expires_soon = reached.expires is not None and reached.expires - clock() < EXPIRY_WARNING_SECONDS
    if healthy and reached.proxy:
        text = f"its proxy answers at {reached.address}; {server.origin} behind it was not tried: --canary does"
        findings.append(ok(Area.CLIENT, _format_names(healthy), text))
    elif healthy or expires_soon:
        subject, text = _format_names(healthy) or server.subject, f"{server.origin} accepts connections"
        findings.append(expiry_finding(Area.CLIENT, subject, text, reached.expires, clock()))
    return findings


def judge_registry(clients: Iterable[Client], registry: Registry | None = None) -> Iterator[Finding]:
    """Yield the findings from the settings of clients, without a connection. `registry`: judge its followers, too."""
    if registry is not None:
        yield from _judge_followers(registry)
    all_clients = list(clients)
    clients = [client for client in all_clients if not is_for_tests(client.iss)]
    for client in clients:
        if client.paused:
            advice = "nothing is lost; remove paused: true when it may be notified again"
            yield warning(Area.CLIENT, client.client_id, "is paused: its logouts wait", advice)
        if client.preset is not None:
            yield from _check_preset(client, client.preset)
    without_uri = [client for client in clients if client.logout_uri is None]
    by_browser = [client.client_id for client in without_uri if is_on_page(client)]
    if by_browser:
        text = "has no backchannel_logout_uri: only browsers notify it, and the result is unknown"
        advice = "if iss and sid suffice for it, set notifier.front_channel: server, so that workers notify it"
        yield ok(Area.CLIENT, _format_names(by_browser), text, advice)
    never_notified = [client.client_id for client in without_uri if not is_on_page(client)]
    if never_notified:
        text = "has no backchannel_logout_uri, so it is never notified"
        yield ok(Area.CLIENT, _format_names(never_notified), text, "register one, if the client has its own sessions")
    with_tokens = [client for client in clients if client.backchannel_logout_uri and client.channel is None]
    without_preset = [client.client_id for client in with_tokens if client.preset is None]
    if without_preset:
        text = "has no preset, so its tokens are as most receivers accept them"
        advice = f"if it is one of {', '.join(PRESETS)}, name it in notifier.preset"
        yield ok(Area.CLIENT, _format_names(without_preset), text, advice)
    for_tests = [client.client_id for client in all_clients if is_for_tests(client.iss)]
    if for_tests:
        text = "exists only while a test of its issuer in .invalid runs, so it was not tried"
        yield ok(Area.CLIENT, _format_names(for_tests), text, "run that test: `helm test`, if it is the chart's")


def _judge_followers(registry: Registry) -> Iterator[Finding]:
    """Yield a warning for each further address of a client that is left out."""
    for iss, followers in registry.followers.items():
        for client_id in followers.leaders:
            reason = registry.why_left_out(iss, client_id)
            if reason is not None and not registry.has_address(iss, client_id):
                yield warning(Area.CLIENT, client_id, reason, "its deliveries become dead letters after registry.grace")


_QUARKUS = (
    "preset quarkus: it remembers logouts in memory, ten by default and one for each sub, until the browser's next"
    " request; beyond that sessions live on though it answers 200"
)
_QUARKUS_ADVICE = (
    "set quarkus.oidc.logout.backchannel.logout-token-key=sid there, and"
    " quarkus.oidc.logout.backchannel.token-cache-size above the number of its sessions; this is not visible from here"
)


def _check_preset(client: Client, name: str) -> Iterator[Finding]:
    """Yield warnings of settings of the client that contradict its preset, and of limits of the preset's software."""
    preset = PRESETS[name]
    if (text := find_preset_excess(client)) is not None:
        member = "id_token_signed_response_alg"
        if client.token.alg not in preset.refuses:
            member = "id_token_encrypted_response_alg" if preset.decrypts else "client, without encrypted tokens"
        yield warning(Area.CLIENT, client.client_id, text, f"register another {member}")
    if (doubt := find_preset_doubt(client)) is not None:
        yield warning(Area.CLIENT, client.client_id, *doubt)
    if name == "quarkus":
        yield warning(Area.CLIENT, client.client_id, _QUARKUS, _QUARKUS_ADVICE)
    required_and_actual: dict[str, tuple[object, object]] = {
        "typ": (preset.typ, client.token.typ),
        "subject": (preset.subject, client.token.subject),
        "audience": ("list" if preset.audience is not None else None, _audience_of(client)),
    }
    for member, (required, actual) in required_and_actual.items():
        if required is not None and required != actual:
            text = f"preset {name} requires {member} {required}, but the registration sets {actual}: {preset.why}"
            yield warning(Area.CLIENT, client.client_id, text, f"remove {member} from notifier, or the preset")


def _audience_of(client: Client) -> str:
    return "string" if client.token.audience is None else "list"


def _format_names(names: list[str]) -> str:
    others = f" and {len(names) - MAX_NAMED_CLIENTS:,} more" if len(names) > MAX_NAMED_CLIENTS else ""
    return ", ".join(names[:MAX_NAMED_CLIENTS]) + others
