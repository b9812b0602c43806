"""Sends a client a canary: a logout token for a user and session that cannot exist. Explains the answer.

The token is made, signed and sent like any other, so the canary tests keys, clocks, token settings and route at once.
Nothing is queued, retried or counted, and no session ends.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from notifier.delivery.ports import CanaryChannel, Channel, Transport
from notifier.delivery.verdict import Dead
from notifier.model.client import Client, ClientKey
from notifier.model.delivery import Delivery
from notifier.model.errors import ConfigurationError, InputIssue, InternalFault
from notifier.model.outcome import Delivered, Failed, Outcome, Reason, Refused, StaleConnection, TransportFailure
from notifier.model.pauses import Pause
from notifier.model.presets import PRESETS
from notifier.operators.doctor.doctor import Area, Finding, failure, ok, warning
from notifier.operators.doctor.doctor_clients import ADVICE
from notifier.operators.status.web_page_watch import TEXT as WEB_PAGE_TEXT

CANARY_SUBJECT_PREFIX = "notifier-canary-"
_WEB_PAGE_ADVICE = "compare its address with its documentation: an application's start page answers so to everything"


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryTools:
    """The dependencies of a canary. `new_id` returns a random name that no user and no session has.

    `channels`: by `Client.channel_kind`, as for a delivery. `risk_accepted`: the operator accepts the risk that a
    canary has by some channels (`ClientChannel.canary_risk`). `pauses` returns those in force.
    """

    channels: Mapping[str, Channel]
    transport: Transport
    new_id: Callable[[], str]
    risk_accepted: bool = False
    pauses: Callable[[], Mapping[ClientKey, Pause]] = dict


def canary_client(clients: Iterable[Client], client_id: str, iss: str | None) -> Client:
    """Return the client with this ID at the issuer; without `iss`, at any issuer.

    Raises ConfigurationError if there is none, or if several issuers have it.
    """
    matches = [client for client in clients if client.client_id == client_id and iss in (None, client.iss)]
    if len(matches) == 1:
        return matches[0]
    text = f"{client_id!r} has several issuers: give --iss" if matches else f"there is no client {client_id!r}"
    raise ConfigurationError([InputIssue("--canary", text)])


async def send_canary(client: Client, tools: CanaryTools) -> list[Finding]:
    """Send a canary to the client, also if it is paused. Return the findings that explain its answer, and the pause."""
    findings = await _send(client, tools)
    if (pause := tools.pauses().get(client.key)) is not None:
        advice = "only the canary was sent: its logouts wait; notifier resume ends the pause"
        findings.append(warning(Area.CANARY, client.client_id, f"is {pause.text}", advice))
    return findings


async def _send(client: Client, tools: CanaryTools) -> list[Finding]:
    name = client.client_id
    if client.channel is not None and client.channel.canary_risk and not tools.risk_accepted:
        advice = f"if that is acceptable: notifier doctor --canary {name} --yes"
        return [warning(Area.CANARY, name, f"nothing was sent: {client.channel.canary_risk}", advice)]
    if client.logout_uri is None:
        return [failure(Area.CANARY, name, "has no backchannel_logout_uri", "register one")]
    channel = tools.channels[client.channel_kind]
    try:
        prepare = channel.prepare_canary if isinstance(channel, CanaryChannel) else channel.prepare
        prepared = await prepare(_make_canary_delivery(client, tools.new_id()), client)
        if isinstance(prepared, Dead):
            return [failure(Area.CANARY, name, f"nothing can be sent: {prepared.text}", "correct its registration")]
        response = await tools.transport.post(
            prepared.to_request(client, client.logout_uri, client.timeout, new_connection=True)
        )
    except InternalFault as fault:
        return [failure(Area.CANARY, name, f"no token could be sent: {fault}", "correct this first")]
    if isinstance(response, StaleConnection):
        return [failure(Area.CANARY, name, "the connection was closed before any answer", "look at the client's log")]
    if isinstance(response, TransportFailure):
        advice = ADVICE.get(response.reason, "look at the client's log")
        return [failure(Area.CANARY, name, f"no answer ({response.reason}): {response.text}", advice)]
    return [explain_outcome(client, channel.read(response, client), prepared.jti)]


def _make_canary_delivery(client: Client, unique: str) -> Delivery:
    """Return a delivery for a user and session of a name that does not exist."""
    name = f"{CANARY_SUBJECT_PREFIX}{unique}"
    return Delivery(
        id=name,
        event_id=name,
        id_given=True,
        iss=client.iss,
        client_id=client.client_id,
        sub=name,
        sid=None if client.channel is not None and client.channel.ends_all else name,
        email=f"{name}@canary.invalid",
        entry_sub=True,
    )


def explain_outcome(client: Client, outcome: Outcome, jti: str) -> Finding:
    """Return the finding that explains the answer to a canary, more exactly if the client has a preset."""
    excerpt = f" with {outcome.text[:200]!r}" if outcome.text else ""
    answered = f"answered {outcome.status}{excerpt}" + (f" (jti {jti})" if jti else "")
    log = "look for that jti in its log" if jti else "look at its log"
    section = "" if client.channel is None else client.channel.member.removesuffix(".uri")
    hint = f"{_find_hint(client, section)}; {log}"
    match outcome:
        case Delivered(is_web_page=True):
            return warning(Area.CANARY, client.client_id, f"{answered}: {WEB_PAGE_TEXT}", _WEB_PAGE_ADVICE)
        case Delivered():
            return ok(Area.CANARY, client.client_id, f"{answered}: it accepts our tokens")
        case Refused(status=400):
            if client.preset == "nextcloud":
                text = f"{answered}: it refuses our tokens, since it accepts those for unknown sessions"
                return failure(Area.CANARY, client.client_id, text, hint)
            text = f"{answered}: it refuses our tokens, or refuses to end a session that it does not know"
            return warning(Area.CANARY, client.client_id, text, hint)
        case Refused(status=status) if status is not None and 300 <= status < 400:
            advice = "redirects are never followed: register the address to which it redirects, without a sign-in"
            return failure(Area.CANARY, client.client_id, f"{answered}, a redirect", advice)
        case Refused(status=401 | 403):
            advice = "a proxy in front of it requires a sign-in, or accepts only browsers: exempt this path"
            if section:
                advice = (
                    f"it refuses the sender: correct {section}, such as its proof or scope, or the key that it trusts"
                )
            return failure(Area.CANARY, client.client_id, answered, advice)
        case Refused(status=404 | 405 | 410):
            address = "backchannel_logout_uri" if client.channel is None else client.channel.member
            advice = f"its channel is not served at this path: correct {address}, or enable it there"
            return failure(Area.CANARY, client.client_id, answered, advice)
        case Refused():
            return failure(Area.CANARY, client.client_id, answered, log)
        case Failed(reason=Reason.INTERCEPTED):
            return failure(Area.CANARY, client.client_id, answered, ADVICE[outcome.reason])
        case Failed():
            text = f"{answered}: an internal error of the client, after which a logout is retried"
            return failure(Area.CANARY, client.client_id, text, hint)


def _find_hint(client: Client, section: str) -> str:
    """Return what to compare if the client does not accept the request. `section`: its channel, if it has one."""
    if section:
        return f"compare {section}, such as its audience or subject, with what the receiver expects"
    if client.preset is None:
        return "set its preset for a more exact explanation"
    return f"{client.preset}: {PRESETS[client.preset].answers}"
