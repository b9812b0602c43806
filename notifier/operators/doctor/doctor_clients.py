"""The doctor's checks of clients: can each be reached as in a delivery, and does its registration make sense?

Clients on one server share one check, since they share its address and certificate.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from notifier.model.client import Client, Route
from notifier.model.front_channel import is_on_page
from notifier.model.outcome import Reason
from notifier.model.presets import PRESETS, find_preset_doubt, find_preset_excess
from notifier.network.http.issuer_document import is_for_tests
from notifier.network.http.probe import ReachedAddress, ReachFailure
from notifier.operators.doctor.doctor import Area, Finding, failure, ok, warning
from notifier.operators.doctor.doctor_workers import (
    EXPIRY_WARNING_SECONDS,
    RENEW_ADVICE,
    ClientStates,
    expiry_finding,
    judge_client,
)

MAX_LISTED_CLIENTS = 20  # failing clients of one server with separate lines
MAX_NAMED_CLIENTS = 5  # clients of one server that are named; the others are counted

Reach = Callable[[str, Route, float], Awaitable[ReachedAddress | ReachFailure]]
"""Tries a URI by a route, within seconds. Never raises."""

ADVICE: Mapping[Reason, str] = {
    Reason.DNS: "correct the host in backchannel_logout_uri, or its entry in the name servers of this machine",
    Reason.CONNECT: "look whether it runs, and whether a firewall lets this machine through",
    Reason.TIMEOUT: "look whether a firewall drops what this machine sends; deliveries wait and are retried meanwhile",
    Reason.TLS: "name the authority that issued its certificate in notifier.tls.ca_file of the client, or renew it",
    Reason.EGRESS_DENIED: "if that address is meant, allow it in egress.allow of the client or of all",
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
        """The names of the clients."""
        return _format_names([client.client_id for client in self.clients])


def servers_of(clients: Iterable[Client]) -> list[Server]:
    """Return the servers of the clients, one for each way to reach it. Servers of tests are left out."""
    by_route: dict[tuple[str, Route], list[Client]] = {}
    for client in clients:
        if client.logout_uri is not None and not is_for_tests(client.iss):
            parts = urlsplit(client.logout_uri)
            by_route.setdefault((f"{parts.scheme}://{parts.netloc}".lower(), client.route), []).append(client)
    return [
        Server(
            origin=origin,
            route=route,
            uri=there[0].logout_uri or "",
            timeout=max(client.timeout for client in there),
            clients=tuple(there),
        )
        for (origin, route), there in by_route.items()
    ]


async def examine_server(
    server: Server, reach: Reach, clock: Callable[[], float], get_states: Callable[[], Awaitable[ClientStates]]
) -> list[Finding]:
    """Connect as a delivery would, and check the certificate. A client that fails at workers has its own finding."""
    if server.route.withheld is not None:
        advice = "until then its deliveries wait, and nothing is sent to the address"
        return [failure(Area.CLIENT, server.subject, server.route.withheld, advice)]
    reached = await reach(server.uri, server.route, server.timeout)
    if isinstance(reached, ReachFailure):
        text = f"{server.origin} cannot be reached: {reached.text}"
        advice = RENEW_ADVICE if "has expired" in text else ADVICE.get(reached.reason, ADVICE[Reason.CONNECT])
        return [failure(Area.CLIENT, server.subject, text, advice)]
    states = await get_states()
    unwell = [
        state for client in server.clients if (state := states.get(client.key)) is not None and state.state != "well"
    ]
    unwell.sort(key=lambda state: state.urgency, reverse=True)
    findings = [judge_client(state.client_id, state, server.origin, clock()) for state in unwell[:MAX_LISTED_CLIENTS]]
    if more := len(unwell) - len(findings):
        text = f"{more:,} more clients of {server.origin} are not well"
        findings.append(warning(Area.CLIENT, server.origin, text, "notifier status --all"))
    names = {state.client_id for state in unwell}
    well = [client.client_id for client in server.clients if client.client_id not in names]
    if well and reached.proxy:
        text = f"its proxy answers at {reached.address}; {server.origin} behind it was not tried: --canary does"
        findings.append(ok(Area.CLIENT, _format_names(well), text))
    elif well or (reached.expires is not None and reached.expires - clock() < EXPIRY_WARNING_SECONDS):
        text = f"{server.origin} accepts connections"
        findings.append(
            expiry_finding(Area.CLIENT, _format_names(well) or server.subject, text, reached.expires, clock())
        )
    return findings


def judge_registry(clients: Iterable[Client]) -> Iterator[Finding]:
    """Findings from the registrations, without a connection."""
    everyone = list(clients)
    clients = [client for client in everyone if not is_for_tests(client.iss)]
    for client in clients:
        if client.paused:
            advice = "nothing is lost; take paused: true out when it may be told again"
            yield warning(Area.CLIENT, client.client_id, "is paused: its logouts wait", advice)
        if client.preset is not None:
            yield from _check_preset(client, client.preset)
    silent = [client for client in clients if client.logout_uri is None]
    if by_browser := [client.client_id for client in silent if is_on_page(client)]:
        text = "has no backchannel_logout_uri: browsers alone tell it, and nobody can see whether its sessions end"
        advice = "where iss and sid suffice for it, notifier.front_channel: server has workers tell it"
        yield ok(Area.CLIENT, _format_names(by_browser), text, advice)
    if never := [client.client_id for client in silent if not is_on_page(client)]:
        advice = "give it one, if the client has sessions of its own"
        yield ok(Area.CLIENT, _format_names(never), "has no backchannel_logout_uri, so it is never told", advice)
    unnamed = [client.client_id for client in clients if client.preset is None and client.backchannel_logout_uri]
    if unnamed:
        text = "names no preset, so it gets what most receivers take"
        advice = f"if it is one of {', '.join(PRESETS)}, name it in notifier.preset"
        yield ok(Area.CLIENT, _format_names(unnamed), text, advice)
    if tested := [client.client_id for client in everyone if is_for_tests(client.iss)]:
        text = "is there only while a test of its issuer in .invalid runs, so it was not tried"
        yield ok(Area.CLIENT, _format_names(tested), text, "run that test: `helm test`, where it is the chart's")


_QUARKUS = (
    "preset quarkus: it remembers logouts in memory, ten by default and one for each sub, until the browser's next"
    " request; beyond that sessions live on though it answers 200"
)
_QUARKUS_ADVICE = (
    "set quarkus.oidc.logout.backchannel.logout-token-key=sid there, and"
    " quarkus.oidc.logout.backchannel.token-cache-size above the number of its sessions; this is not visible from here"
)


def _check_preset(client: Client, name: str) -> Iterator[Finding]:
    """Findings if the client's settings override what its preset needs."""
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
    asked: dict[str, tuple[object, object]] = {
        "typ": (preset.typ, client.token.typ),
        "subject": (preset.subject, client.token.subject),
        "audience": ("list" if preset.audience is not None else None, _audience_of(client)),
    }
    for member, (wanted, actual) in asked.items():
        if wanted is not None and wanted != actual:
            text = f"preset {name} asks for {member} {wanted}, but the registration sets {actual}: {preset.why}"
            yield warning(Area.CLIENT, client.client_id, text, f"take {member} out of notifier, or the preset")


def _audience_of(client: Client) -> str:
    return "string" if client.token.audience is None else "list"


def _format_names(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMED_CLIENTS]) + (
        f" and {len(names) - MAX_NAMED_CLIENTS:,} more" if len(names) > MAX_NAMED_CLIENTS else ""
    )
