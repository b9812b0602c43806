"""The doctor's checks of relays: can the server's keys be read and joined, and do clients get the joined set?"""

from collections.abc import Iterator, Sequence
from functools import partial

from notifier.configuration.loading import LoadedConfiguration
from notifier.features.upstreams.configured_relays import (
    KEYS_TIMEOUT_SECONDS,
    LOOP_HEADERS,
    read_relay_keys,
)
from notifier.features.upstreams.joined_keys import is_joined_set, join_keys, read_server_set
from notifier.features.upstreams.relay_settings import (
    RelaySettings,
    find_relayed_addresses,
    jwks_path,
    relayed_issuer,
    relays_of,
)
from notifier.model.printable import counted
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.network.http.issuer_documents import DocumentReader
from notifier.operators.doctor.doctor import Area, Check, Finding, failure, ok
from notifier.tokens.foreign_keys import read_jwks
from notifier.tokens.published_keys import find_publication_faults


def relay_checks(loaded: LoadedConfiguration, reader: DocumentReader) -> Iterator[Check]:
    """Yield two checks of each relay: what notifier reads, and what clients get."""
    timeout = 2 * KEYS_TIMEOUT_SECONDS + 2
    for name, relay in relays_of(loaded.settings).items():
        iss = relayed_issuer(relay, loaded.settings)
        assert iss is not None, "`check_relays` refuses a configuration without it"
        run = partial(examine_relay, name, relay, iss, loaded)
        yield Check(area=Area.KEYS, subject=f"relays.{name}", timeout=timeout, run=run)
        examine = partial(examine_public_set, name, iss, loaded, reader)
        yield Check(area=Area.KEYS, subject=f"relays.{name} jwks", timeout=timeout, run=examine)


async def examine_relay(name: str, relay: RelaySettings, iss: str, loaded: LoadedConfiguration) -> Sequence[Finding]:
    """Read the keys of a relay as for its tokens. Return the findings on them, and on the clients' addresses."""
    setting, settings = f"relays.{name}", loaded.settings
    loops = find_relayed_addresses(iss, settings, loaded.registry)
    findings = [failure(Area.CLIENT, loop.path, loop.text, "") for loop in loops]
    reader = DocumentReader(headers=LOOP_HEADERS)
    try:
        document = await read_relay_keys(relay, iss, settings, reader)
    finally:
        await reader.close()
    if isinstance(document, IssuerDocument) and not is_joined_set(document.content):
        server = read_server_set(document.content)
    else:
        server = document.text if isinstance(document, DocumentIssue) else "lead to the joined set"
    if isinstance(server, str):
        advice = "set jwks_uri to the server's own address; meanwhile its tokens and its JWK Set are answered 503"
        return [*findings, failure(Area.KEYS, setting, f"the server's keys cannot be used: {server}", advice)]
    if server.has_secrets:
        advice = "have them replaced: whoever can read them can sign in as any user. notifier passes none on"
        findings.append(failure(Area.KEYS, setting, "the server's JWK Set holds private keys", advice))
    joined = join_keys(server, loaded.keys.jwks(iss)["keys"])
    for kid, reason in joined.left_out.items():
        text = f"clients cannot verify tokens by key {kid}: {reason}"
        findings.append(failure(Area.KEYS, setting, text, "give notifier another key"))
    read, added = counted(len(server.passed_on), "key"), counted(joined.added, "key")
    return [*findings, ok(Area.KEYS, setting, f"{read} of the server can be read, and {added} of notifier added")]


async def examine_public_set(
    name: str, iss: str, loaded: LoadedConfiguration, reader: DocumentReader
) -> Sequence[Finding]:
    """Read the set that clients get. Return a finding: it is the joined set, or has notifier's keys anyway, or not.

    No finding if its address is unknown, or it cannot be read: the check of the issuer has one.
    """
    issuer, egress = loaded.settings.issuers[iss], loaded.settings.template().route.egress
    if issuer.jwks_uri is None:
        return []
    document = await reader.read_configured(issuer.jwks_uri, egress, issuer.tls, KEYS_TIMEOUT_SECONDS)
    published = document.text if isinstance(document, DocumentIssue) else read_jwks(document.content)
    if isinstance(document, DocumentIssue) or isinstance(published, str):
        return []
    setting = f"relays.{name}"
    if is_joined_set(document.content):
        return [ok(Area.KEYS, setting, f"clients get the joined set at {issuer.jwks_uri}")]
    faults = find_publication_faults([*loaded.keys.current_keys(iss), *loaded.keys.future_keys(iss)], published)
    if not any(faults.values()):
        return [ok(Area.KEYS, setting, f"the server itself publishes notifier's keys at {issuer.jwks_uri}")]
    advice = f"have the proxy pass that path on to {jwks_path(name)} of the listener `web`"
    return [failure(Area.KEYS, setting, f"clients read {issuer.jwks_uri}, which is not the joined set", advice)]
