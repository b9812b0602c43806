"""The doctor's checks of keys at signers: have each key sign once, and find clients that no key can sign for."""

import time
from collections.abc import Iterator, Sequence
from functools import partial

from notifier.configuration.clients.registry_checks import find_unsignable
from notifier.configuration.loading import LoadedConfiguration
from notifier.network.http.issuer_documents import DocumentReader
from notifier.operators.doctor.doctor import Area, Check, Finding, failure, ok, warning
from notifier.tokens.external_key import PUBLIC_KEY_TIMEOUT_SECONDS, ExternalKey
from notifier.tokens.key_ring import KeyRing
from notifier.tokens.signer import SignatureResult, SignerError

SLOW_SECONDS = 0.25  # for a signature; with slower ones, a mass logout takes long
CORRECT_ADVICE = "correct it there or in the configuration; the runbook's NotifierSignerFailing has the steps"
WAIT_CONSEQUENCE = "its deliveries wait until it signs again; see the runbook's NotifierSignerFailing"
DUPLICATE_ADVICE = "take one of the two entries out; until then this one does not sign"


def signer_checks(loaded: LoadedConfiguration, _reader: DocumentReader) -> Iterator[Check]:
    """Yield a check for each key, and one of the clients' algorithms. The public keys must have been read before."""

    async def examine_clients() -> Sequence[Finding]:
        mistakes = find_unsignable(loaded.registry, loaded.build_context.algorithms_of)
        return [
            failure(Area.CLIENT, mistake.path, mistake.text, "until then its deliveries wait") for mistake in mistakes
        ]

    keys = dict.fromkeys(key.external_key for _, key in loaded.keys.external_keys())
    if keys:
        yield Check(area=Area.CLIENT, subject="algorithms", timeout=PUBLIC_KEY_TIMEOUT_SECONDS, run=examine_clients)
    for key in keys:
        run = partial(_examine_key, key, loaded.keys)
        yield Check(area=Area.KEYS, subject=key.name, timeout=PUBLIC_KEY_TIMEOUT_SECONDS, run=run)


async def _examine_key(key: ExternalKey, ring: KeyRing) -> Sequence[Finding]:
    """Return the findings on a key, which signs once. Other entries with the same key are errors."""
    if key.fault is not None:
        is_permanent = key.fault.result is SignatureResult.WRONG
        advice = CORRECT_ADVICE if is_permanent else WAIT_CONSEQUENCE
        return [failure(Area.KEYS, key.name, key.fault.text, advice)]
    if key.half is None:
        return [failure(Area.KEYS, key.name, "is not known yet", WAIT_CONSEQUENCE)]
    alg, began_at = min(key.algorithms), time.perf_counter()
    try:
        await key.sign(alg, b"notifier doctor")
    except SignerError as fault:
        return [failure(Area.KEYS, key.name, str(fault), WAIT_CONSEQUENCE)]
    seconds = time.perf_counter() - began_at
    text = f"signs by {', '.join(sorted(key.algorithms))}; {alg} took {seconds * 1000:.1f} ms"
    findings = [ok(Area.KEYS, key.name, text)]
    if seconds > SLOW_SECONDS:
        findings = [warning(Area.KEYS, key.name, text, "raise signing.concurrency, or use ES256, which is cheaper")]
    findings += [
        failure(Area.KEYS, key.name, duplicate.text, DUPLICATE_ADVICE)
        for duplicate in ring.duplicates()
        if duplicate.key.external_key is key
    ]
    return findings
