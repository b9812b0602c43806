"""The kinds of channels by which a client is notified: two of the core, and those of features."""

from dataclasses import dataclass

BACK_CHANNEL, FRONT_CHANNEL = "back_channel", "front_channel"
"""The kinds of the core: logout tokens, and calls of a front-channel URI by the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientChannel:
    """The channel of a feature by which one client is notified at `uri`, instead of by logout tokens.

    `kind`: its key in `Feature.channels`. `member`: the setting that has the `uri`. `settings`: the section that only
    the channel reads. `needs_sub`, `needs_email`: its requests name the user by `sub` or `email`. `names_session`: they
    name the session that ended. `ends_all`: they end all sessions of the user, so the client is skipped if only one
    session ended. `signed`: the issuer's keys sign them. `canary_risk`: why a canary needs the operator's consent, or
    empty.
    """

    kind: str
    uri: str
    member: str
    settings: object = None
    needs_sub: bool = False
    needs_email: bool = False
    names_session: bool = False
    ends_all: bool = False
    signed: bool = True
    canary_risk: str = ""
