"""What is asked of keys in every place."""

import pytest

from notifier.model.client import Algorithm
from notifier.tokens.jws import is_signed_by
from notifier.tokens.signer import PublicHalf, SignatureResult, SignerBackend, SignerError

MESSAGE = b"header." + b"c" * 900
RSA = [alg for alg in Algorithm if alg.startswith(("RS", "PS"))]


async def signs(key: SignerBackend, half: PublicHalf, *algorithms: Algorithm, message: bytes = MESSAGE) -> None:
    """What the public half verifies."""
    for alg in algorithms or (Algorithm.ES256,):
        assert is_signed_by(half.key, alg, message, await key.sign(alg, message)), alg


async def refused(key: SignerBackend, alg: Algorithm = Algorithm.ES256) -> SignerError:
    """The fault of a signature that cannot be had."""
    with pytest.raises(SignerError) as found:
        await key.sign(alg, MESSAGE)
    return found.value


async def refused_once(key: SignerBackend) -> SignerError:
    """The same, of a key that nobody asks any more."""
    fault = await refused(key)
    await key.close()
    return fault


async def wrong_at_once(key: SignerBackend, text: str) -> None:
    """Check that reading the public key fails permanently, with this text."""
    with pytest.raises(SignerError, match=text) as found:
        await key.public()
    assert found.value.result is SignatureResult.WRONG
    await key.close()
