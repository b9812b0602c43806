"""The doctor's checks of keys at signers: each signs once."""

import time
from collections.abc import Iterator, Sequence
from functools import partial

from notifier.configuration.clients.registry_checks import find_unsignable
from notifier.configuration.loading import LoadedConfiguration
from notifier.operators.doctor.doctor import Area, Check, Finding, failure, ok, warning
from notifier.tokens.external_key import PUBLIC_KEY_TIMEOUT_SECONDS, ExternalKey
from notifier.tokens.key_ring import KeyRing
from notifier.tokens.signer import SignatureResult, SignerError

SLOW_SECONDS = 0.25  # for a signature, from which on a mass logout takes long
CORRECT_ADVICE = "correct it there or in the configuration; the runbook's NotifierSignerFailing has the steps"
WAIT_CONSEQUENCE = "its deliveries wait until it signs again; see the runbook's NotifierSignerFailing"
DUPLICATE_ADVICE = "take one of the two entries out; until then this one does not sign"


def signer_checks(loaded: LoadedConfiguration) -> Iterator[Check]:
    """Yield a check for each key, and one for clients whose algorithm no key can sign with. All keys were checked."""

    async def clients() -> Sequence[Finding]:
        mistakes = find_unsignable(loaded.registry, loaded.build_context.algorithms_of)
        return [
            failure(Area.CLIENT, mistake.path, mistake.text, "until then its deliveries wait") for mistake in mistakes
        ]

    external_key = dict.fromkeys(key.external_key for _, key in loaded.keys.external_keys())
    if external_key:
        yield Check(area=Area.CLIENT, subject="algorithms", timeout=PUBLIC_KEY_TIMEOUT_SECONDS, run=clients)
    for key in external_key:
        yield Check(
            area=Area.KEYS,
            subject=key.name,
            timeout=PUBLIC_KEY_TIMEOUT_SECONDS,
            run=partial(_examine, key, loaded.keys),
        )


async def _examine(key: ExternalKey, ring: KeyRing) -> Sequence[Finding]:
    if key.fault is not None or key.half is None:
        text = "is not known yet" if key.fault is None else key.fault.text
        wrong = key.fault is not None and key.fault.result is SignatureResult.WRONG
        return [failure(Area.KEYS, key.name, text, CORRECT_ADVICE if wrong else WAIT_CONSEQUENCE)]
    alg, began = min(key.algorithms), time.perf_counter()
    try:
        await key.sign(alg, b"notifier doctor")
    except SignerError as fault:
        return [failure(Area.KEYS, key.name, str(fault), WAIT_CONSEQUENCE)]
    seconds = time.perf_counter() - began
    text = f"signs by {', '.join(sorted(key.algorithms))}; {alg} took {seconds * 1000:.1f} ms"
    findings = [ok(Area.KEYS, key.name, text)]
    if seconds > SLOW_SECONDS:
        findings = [warning(Area.KEYS, key.name, text, "raise signing.concurrency, or use ES256, which is cheaper")]
    findings += [
        failure(Area.KEYS, key.name, double.text, DUPLICATE_ADVICE)
        for double in ring.duplicates()
        if double.key.external_key is key
    ]
    return findings
