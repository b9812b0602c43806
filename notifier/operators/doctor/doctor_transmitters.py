"""The doctor's check of a source whose events are Security Event Tokens: can they be verified?"""

from collections.abc import Awaitable, Callable

from notifier.model.printable import counted
from notifier.network.http.issuer_document import IssuerDocument, UnreadDocument
from notifier.operators.doctor.doctor import Area, Finding, failed, ok, warning
from notifier.tokens.foreign_keys import read_jwks, unused_keys, verifying_fault


async def examine_transmitter(
    setting: str, uri: str, read: Callable[[str], Awaitable[IssuerDocument | UnreadDocument]]
) -> list[Finding]:
    """Check the JWK Set that verifies the tokens of a source. `setting` names it."""
    document = await read(uri)
    if isinstance(document, UnreadDocument):
        advice = "its tokens are answered 503 until it can be read; check the address, and tls beside it"
        where = "" if uri in document.text else f" at {uri}"  # an upstream's text names its metadata
        return [failed(Area.KEYS, setting, f"the JWK Set{where} could not be read: {document.text}", advice)]
    published = read_jwks(document.content)
    if isinstance(published, str):
        return [failed(Area.KEYS, setting, f"what stands at {uri} {published}", "correct jwks_uri")]
    if any(key.private for key in published):
        advice = "have the transmitter replace the key, and tell its operator: whoever has read it can sign users out"
        return [failed(Area.KEYS, setting, f"the JWK Set at {uri} holds a private key", advice)]
    usable, unused = sum(verifying_fault(key) is None for key in published), unused_keys(published)
    if not usable:
        advice = "its tokens are answered 400 until the transmitter publishes one; check the address"
        why = "" if unused is None else f": {unused}"
        return [failed(Area.KEYS, setting, f"the JWK Set at {uri} has no key that verifies signatures{why}", advice)]
    readable = ok(Area.KEYS, setting, f"{counted(usable, 'key')} for its tokens can be read")
    if unused is None:
        return [readable]
    advice = "tokens that they sign are refused; have the transmitter publish another key"
    return [readable, warning(Area.KEYS, setting, f"the JWK Set at {uri} has keys that are not used: {unused}", advice)]
