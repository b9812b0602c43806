"""The doctor's check of a source whose events are Security Event Tokens: can they be verified?"""

from collections.abc import Awaitable, Callable

from notifier.domain.issuer_document import IssuerDocument, UnreadDocument
from notifier.domain.printable import counted
from notifier.domain.published_keys import read_jwks
from notifier.operations.doctor import Area, Finding, failed, ok


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
    usable = sum(key.use in (None, "sig") and key.material[0] in ("RSA", "EC", "OKP") for key in published)
    if not usable:
        advice = "its tokens are answered 400 until the transmitter publishes one; check the address"
        return [failed(Area.KEYS, setting, f"the JWK Set at {uri} has no key that verifies signatures", advice)]
    return [ok(Area.KEYS, setting, f"{counted(usable, 'key')} for its tokens can be read")]
