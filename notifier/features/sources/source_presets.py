"""The presets of sources: how the events of known identity servers are read (docs/sources.md).

The members of `event` are JMESPath. A configured source overrides members of its preset, and `event` member by member.
For a document without the member that decides, `when` returns null. The document is then malformed instead of ignored,
since the server may have changed its format.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePreset:
    """How the events of one server are read.

    `realm`: the expression for what a document calls its issuer, if that is not `iss`: a key of `issuers`, or if the
    source has only `issuer`, a name that matches the issuer. `sends_once`: its server tries a document no longer than a
    few seconds, so a spool keeps what the queue does not take.
    """

    event: Mapping[str, str]
    envelope: tuple[str, ...] = ()
    ignore_case: bool = False
    when: str | None = None
    realm: str | None = None
    sends_once: bool = False


_CAEP_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
_REVOKED = f'events."{_CAEP_REVOKED}"'
_WSO2 = "https://schemas.identity.wso2.org/events/session/event-type/sessionRevoked"
_WSO2_SESSIONS = (
    f"(type(events) != 'object' && [[@]] || contains(keys(events), '{_WSO2}') && [events.\"{_WSO2}\".sessions]"
    " || [`[]`])[0]"
)
# The reason is a number by default, a name with `JsonStringEnumConverter`, possibly in snake case. Unknown reasons are
# dropped, because later releases of the server may add some.
_DUENDE_REASON = (
    'look_up(logoutreason, `{"0": "user_logout", "1": "session_expiration", "2": "terminated",'
    ' "userlogout": "user_logout", "sessionexpiration": "session_expiration", "terminated": "terminated"}`)'
)

# The user whom an event of Okta is about is a target; `actor` is who did it, also an administrator or Okta itself. The
# actor counts only at a sign-out without a target that may be a user. Two users, or one in another form, are malformed:
# the event may concern another user than the actor.
_OKTA_USERS = (
    "(eventType == 'user.session.end' && target[?type && lower(type) != 'user'] == target"
    " && [merge({type: 'User'}, actor)] || target)[?lower(type) == 'user']"
)
_OKTA_USER = f"({_OKTA_USERS} | [1] == `null` && [0].type == 'User' && [0].id || `null`)"
_OKTA_ACTOR = "(default(actor.type, 'User') == 'User' && actor.id || `null`)"
_OKTA_SESSION = "authenticationContext.externalSessionId"

SOURCE_PRESETS: Mapping[str, SourcePreset] = {
    "duende": SourcePreset(
        envelope=("masstransit",),
        ignore_case=True,
        # A session without clients needs no notification. A document that is not a context becomes a dead letter.
        when="!(subjectid || sessionid) || length(clientids || `[]`) > `0`",
        event={
            "iss": "issuer",
            "sub": "subjectid",
            "sid": "sessionid",
            "clients": "clientids",
            "reason": _DUENDE_REASON,
        },
    ),
    "identityserver4_v3": SourcePreset(
        envelope=("masstransit",),
        ignore_case=True,
        when="type(@) != 'array' || length(@) > `0`",
        event={
            "sub": "[0].subjectid",
            "sid": "[0].sessionid",
            "clients": "[].{client_id: clientid, backchannel_logout_uri: logouturi || `null`,"
            " backchannel_logout_session_required: sessionidrequired}",
        },
    ),
    "keycloak_rabbitmq": SourcePreset(
        when="(type || operationType) && (type == 'LOGOUT' && !error)",
        event={"sub": "userId", "sid": "sessionId", "ended_at": "from_ms(time)", "clients": "'*'"},
        realm="[realmId, realmName]",
    ),
    "keycloak_ssf": SourcePreset(
        when=f"(type(events) == 'object' || `null`) && contains(keys(events), '{_CAEP_REVOKED}')"
        f" && (type({_REVOKED}) == 'object' || `null`)",  # an event that is no object is malformed (RFC 8417 §2.2)
        event={
            # The subject of the event may belong to another issuer than the token's.
            "iss": f"sub_id.user.iss || sub_id.iss || {_REVOKED}.subject.user.iss || {_REVOKED}.subject.iss || iss",
            "id": "jti",
            "sub": f"sub_id.user.sub || sub_id.sub || {_REVOKED}.subject.user.sub || {_REVOKED}.subject.sub",
            # `ALL` means all sessions of the user, so `sid` is omitted.
            "sid": f"[sub_id.session.id, {_REVOKED}.subject.session.id][?@ && @ != 'ALL'] | [0]",
            "ended_at": f"from_s(default({_REVOKED}.event_timestamp, iat))",
            "clients": "'*'",
        },
    ),
    "wso2": SourcePreset(
        # Other events give an empty list; a document without events is kept whole, for `when`.
        envelope=(_WSO2_SESSIONS,),
        when="(type(\"$envelope\".events) == 'object' || `null`) && length(applications || `[]`) > `0`",
        event={
            # The session's id differs from the claim `sid` of its ID tokens, so only the user is given.
            "sub": f'"$envelope".events."{_WSO2}".user.id',
            "clients": "applications[].id",
            "ended_at": 'from_ms("$envelope".iat)',
            "id": '"$envelope".jti && id && join(`":"`, ["$envelope".jti, id])',
        },
        realm='"$envelope".iss',
        sends_once=True,  # its HTTP publisher logs a failure (HTTPEventPublisherImpl)
    ),
    "hydra_logout": SourcePreset(
        # A document without the member `clients` is malformed.
        when="!sid || !contains(keys(@), 'clients') || length(clients || `[]`) > `0`",
        # The subject is never used: a pairwise client's ID token has a different `sub`.
        event={"sid": "sid", "clients": "clients", "id": "challenge"},
    ),
    "auth0_stream": SourcePreset(
        envelope=("lines", "map(&(detail || @), default(logs, [@]))"),
        when="(data || @).type && (data || @).type == 'slo'",
        event={
            "sub": "(data || @).user_id",
            "sid": "(data || @).details.session_id || (data || @).session_id",
            "ended_at": "(data || @).date",
            "id": "log_id || data.log_id || _id",
            "clients": "'*'",
        },
    ),
    "okta_hook": SourcePreset(
        envelope=("data.events",),
        when="eventType && eventType == 'user.session.end' && (outcome.result || 'SUCCESS') == 'SUCCESS'",
        event={
            "sub": _OKTA_USER,
            # The session is that of the actor, or `unknown`: it counts only if the user is the actor.
            "sid": f"[{{of: {_OKTA_USER}, by: {_OKTA_ACTOR}, sid: {_OKTA_SESSION}}}]"
            "[?of && of == by && sid != 'unknown'].sid | [0]",
            "ended_at": "published",
            "id": "uuid",
            "clients": "'*'",
        },
        sends_once=True,  # "at most one retry", within seconds (developer.okta.com, Event hooks, Timeout and retry)
    ),
}
