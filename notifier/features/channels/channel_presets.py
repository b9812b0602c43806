"""Lists known receivers of the channels. A preset is a name for the settings that such a receiver needs.

`tried`: a receiver or its library was run with these settings; the others are by documentation or source text only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPreset:
    """A known receiver. `members`: its settings. `proof`: members of `proof`. `successes`: statuses besides the usual.

    `needs_access_token`: the receiver accepts an access token only. `why`: what is known, and its source.
    """

    why: str
    members: Mapping[str, object]
    proof: Mapping[str, object] = field(default_factory=dict)
    successes: tuple[int, ...] = ()
    needs_access_token: bool = False
    tried: bool = False


_NO_MEMBERS: Mapping[str, object] = {}
REVOCATION_PRESETS: Mapping[str, ChannelPreset] = {
    "auth0": ChannelPreset(
        why="Auth0, Universal Logout: the body's member is `subject`, and it may answer 200 (its API reference)",
        members={"member": "subject"},
        successes=(200,),
    ),
    "okta_app": ChannelPreset(
        why="An app written after Okta's Universal Logout guide: e-mail address, the proof has `nbf` (two demos)",
        members={"subject": "email", "not_before": True},
        tried=True,
    ),
    "okta_org": ChannelPreset(
        why="An Okta org: an access token with the scope okta.universalLogout.manage (Okta's API reference)",
        members=_NO_MEMBERS,
        proof={"scope": "okta.universalLogout.manage"},
        needs_access_token=True,
    ),
    "janssen": ChannelPreset(
        why="Janssen: an access token with the scope global_token_revocation; format is an attribute (its source)",
        members={"subject": {"format": "uid", "id": "{sub}"}},
        proof={"scope": "global_token_revocation"},
        needs_access_token=True,
    ),
}
EVENT_PRESETS: Mapping[str, ChannelPreset] = {
    "google_workspace": ChannelPreset(
        why="Google Workspace, closed beta: e-mail address, also within the event, and a fixed `aud` (its guide)",
        members={
            "audience": "https://sharedsignals.googleapis.com",
            "subject": "email",
            "session": False,
            "subject_in_event": True,
        },
    ),
    "caep_dev": ChannelPreset(
        why="Receivers with caep.dev's library for Go, which names the issuer `issuer` in iss_sub",
        members={"subject": {"format": "iss_sub", "issuer": "{iss}", "sub": "{sub}"}},
        tried=True,
    ),
}
