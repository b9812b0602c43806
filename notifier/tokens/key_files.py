"""Reads the issuers' signing keys from PEM and JWK files, and generates new keys.

Keys are loaded once into key objects, since PyJWT takes 30 ms per token with PEM text. No error shows a private key.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from notifier.model.client import ED25519_NAMES, Algorithm
from notifier.model.errors import ConfigurationError, InputIssue
from notifier.network.http.issuer_document import present_members
from notifier.network.http.pem_files import find_pem_issue
from notifier.tokens.foreign_keys import find_coordinate_fault
from notifier.tokens.jws import PrivateKey
from notifier.tokens.key_ring import ExternalKeyEntry, KeyRing, SigningKey
from notifier.tokens.published_keys import MIN_RSA_BITS, algorithms_of, jwk_of, thumbprint, to_published_jwk

MAX_FILE_BYTES = 65_536  # a 16,384-bit RSA key in PEM is 13 KiB
MAX_SHOWN_CHARS = 24  # of a member in a message: less than any key
_BEGIN, _END, _DASHES = "-----BEGIN ", "-----END ", "-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """One key file of an issuer. The key signs from `not_before` (epoch seconds), or always if it is None.

    `kid` overrides the `kid` in the file.
    """

    path: Path
    not_before: float | None = None
    kid: str | None = None


def load_keys(sources: Mapping[str, Sequence[KeySource]], *, clock: Callable[[], float] = time.time) -> KeyRing:
    """Read the keys of every issuer. Raises ConfigurationError with all errors of all files."""
    ring, mistakes = examine_keys(sources, clock=clock)
    if mistakes:
        raise ConfigurationError(mistakes)
    return ring


def examine_keys(
    sources: Mapping[str, Sequence[KeySource | ExternalKeyEntry | None]], *, clock: Callable[[], float] = time.time
) -> tuple[KeyRing, list[InputIssue]]:
    """Return the usable keys of every issuer, and all errors. A source of None is skipped."""
    keys: dict[str, list[SigningKey | ExternalKeyEntry]] = {}
    mistakes: list[InputIssue] = []
    for iss, issuer_sources in sources.items():
        loaded = keys.setdefault(iss, [])
        first_index: dict[object, int] = {}
        for index, source in enumerate(issuer_sources):
            if source is None:
                continue
            entry = f'issuers["{iss}"].keys[{index}]'
            try:
                key = source if isinstance(source, ExternalKeyEntry) else load_key(source)
            except ConfigurationError as error:
                mistakes += [InputIssue(f"{entry}.{mistake.path}", mistake.text) for mistake in error.mistakes]
                continue
            other_index = first_index.setdefault(_identity_of(key), index)
            if other_index != index:
                problem = "is the same key" if key.kid is None else f"has the same kid {key.kid!r}"
                text = f"{problem} as keys[{other_index}]; each key of an issuer needs its own"
                mistakes.append(InputIssue(_kid_setting(source, entry), text))
                continue
            loaded.append(key if isinstance(key, ExternalKeyEntry) else replace(key, setting=f"{entry}.file"))
    ring = KeyRing(keys, clock)
    return ring, [*mistakes, *(InputIssue(duplicate.key.setting, duplicate.text) for duplicate in ring.duplicates())]


def _identity_of(key: SigningKey | ExternalKeyEntry) -> object:
    """Return the `kid` of a key. If the `kid` is unknown until the signer is queried, return the external key."""
    return key.external_key if isinstance(key, ExternalKeyEntry) and key.kid is None else key.kid


def _kid_setting(source: KeySource | ExternalKeyEntry, entry: str) -> str:
    """Return the setting that gives the key its `kid`."""
    if source.kid is not None:
        return f"{entry}.kid"
    return source.setting if isinstance(source, ExternalKeyEntry) else f"{entry}.file"


def load_key(source: KeySource) -> SigningKey:
    """Read the key of one file. Raises ConfigurationError with the path `file` or `kid`."""
    try:
        with source.path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
            made_at = os.fstat(file.fileno()).st_mtime
    except OSError as error:
        raise _file_error(f"{source.path} cannot be read: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = ""
    is_json = text.lstrip().startswith("{")
    pem_error = None if is_json else find_pem_issue(raw)
    if pem_error is not None:
        raise _file_error(f"{source.path} {pem_error}")
    if _BEGIN in text:
        return _to_signing_key(source, _read_pem(source.path, text), {}, made_at)
    if is_json and len(raw) <= MAX_FILE_BYTES:
        key, jwk = _read_jwk(source.path, text)
        return _to_signing_key(source, key, jwk, made_at)
    hint = "for DER, run: openssl pkey -inform der -in FILE -out FILE.pem"
    raise _file_error(f"{source.path} is neither PEM nor a JWK ({hint})")


def _file_error(text: str, setting: str = "file") -> ConfigurationError:
    return ConfigurationError([InputIssue(setting, text)])


def _find_blocks(text: str) -> list[tuple[str, str]]:
    """Return the complete PEM blocks (RFC 7468), each as its label and its text."""
    blocks = []
    position = 0
    while (end := text.find(_END, position)) >= 0:
        begin = text.rfind(_BEGIN, position, end)
        label = text[begin + len(_BEGIN) : end].partition(_DASHES)[0] if begin >= 0 else ""
        position = end + len(_END)
        if label and text.startswith(label + _DASHES, position):
            blocks.append((label, text[begin : position + len(label + _DASHES)]))
    return blocks


def _read_pem(path: Path, text: str) -> object:
    """Return the only private key in the text. Raises ConfigurationError with the remedy."""
    blocks = _find_blocks(text)
    private_blocks = [(label, block) for label, block in blocks if label.endswith("PRIVATE KEY")]
    if not private_blocks:
        labels = " ".join(label for label, _ in blocks)
        contents = {"CERTIFICATE": "a certificate", "PUBLIC KEY": "a public key"}
        content = next((name for label, name in contents.items() if label in labels), "damaged")
        raise _file_error(f"{path} is {content}; the private key is needed")
    if len(private_blocks) > 1:
        raise _file_error(f"{path} holds {len(private_blocks)} private keys; put each into a separate file")
    ((label, block),) = private_blocks
    if label == "OPENSSH PRIVATE KEY":
        raise _file_error(f"{path} is an OpenSSH key; convert a copy of it by: ssh-keygen -p -m PKCS8 -f FILE")
    if label.startswith("ENCRYPTED") or "4,ENCRYPTED" in block:
        raise _file_error(
            f"{path} is encrypted; store it decrypted (openssl pkey -in FILE), readable for notifier alone"
        )
    try:
        return load_pem_private_key(block.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _file_error(
            f"{path} is damaged, or not a PKCS#8, PKCS#1 or SEC1 key of a kind that can be used"
        ) from error


def _read_jwk(path: Path, text: str) -> tuple[object, Mapping[str, object]]:
    """Return the private key and the members of a JWK. Raises ConfigurationError with the remedy."""
    try:
        jwk = json.loads(text)
    except (ValueError, RecursionError):
        raise _file_error(f"{path} is not valid JSON") from None  # the cause would hold the whole document
    jwk = present_members(jwk)
    if "keys" in jwk:
        raise _file_error(f"{path} is a JWK Set; put each private key into a separate file")
    readers: dict[str, Callable[[dict[str, object]], object]] = {
        "RSA": RSAAlgorithm.from_jwk,
        "EC": ECAlgorithm.from_jwk,
        "OKP": OKPAlgorithm.from_jwk,
    }
    kty = jwk.get("kty")
    if not isinstance(kty, str) or kty not in readers:
        raise _file_error(
            f'{path}: "kty" is {_format_member(kty)}; a logout token is signed with a key of {", ".join(readers)}'
        )
    if "d" not in jwk:
        raise _file_error(f"{path} is a public key; the private key is needed")
    if jwk.get("use", "sig") != "sig":
        raise _file_error(f'{path}: "use" is {_format_member(jwk["use"])}; a key for "sig" is needed')
    operations = jwk.get("key_ops", ["sign"])
    if not isinstance(operations, list) or "sign" not in operations:
        raise _file_error(f'{path}: "key_ops" does not hold "sign"')
    try:
        return readers[kty](jwk), jwk
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        fault = find_coordinate_fault(kty, jwk, private=True) or "cannot be read, or is of a curve that cannot be used"
        raise _file_error(f"{path} is a damaged JWK: it {fault}") from None


def _to_signing_key(source: KeySource, key: object, jwk: Mapping[str, object], made_at: float) -> SigningKey:
    """Return the key with its `kid` and algorithms. `jwk`: the members of the file; empty for PEM."""
    path = source.path
    private, algorithms, public = _describe_key(path, key)
    if "alg" in jwk:
        possible = ", ".join(sorted(algorithms))
        is_ed25519 = any(alg == jwk["alg"] for alg in ED25519_NAMES & algorithms)  # two names of one algorithm
        if not is_ed25519:
            algorithms = frozenset(alg for alg in algorithms if alg == jwk["alg"])
        if not algorithms:
            raise _file_error(f'{path}: "alg" is {_format_member(jwk["alg"])}, but this key can do {possible}')
    setting, kid = ("file", jwk.get("kid", thumbprint(public))) if source.kid is None else ("kid", source.kid)
    if not isinstance(kid, str) or not kid:
        raise _file_error(f'{path}: "kid" must be a string, and not empty', setting)
    return SigningKey(
        key=private,
        kid=kid,
        algorithms=algorithms,
        not_before=source.not_before,
        public=to_published_jwk(public, kid, algorithms),
        made_at=made_at,
    )


def _describe_key(path: Path, key: object) -> tuple[PrivateKey, frozenset[Algorithm], dict[str, str]]:
    """Return the key, its algorithms, and the required members of its public JWK."""
    if isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey):
        algorithms = algorithms_of(key.public_key())
        if algorithms:
            return key, algorithms, jwk_of(key.public_key())
        if isinstance(key, RSAPrivateKey):
            raise _file_error(f"{path} is an RSA key of {key.key_size} bits; at least {MIN_RSA_BITS} are needed")
    raise _file_error(f"{path} is not a key that can be used: RSA, EC (P-256, P-384, P-521) or Ed25519")


def _format_member(value: object) -> str:
    """Return a member of a key file for an error's text. A long member is not shown: it may be a misplaced key."""
    text = json.dumps(value)
    return text if len(text) <= MAX_SHOWN_CHARS else "something else"


def generate_key(alg: Algorithm) -> bytes:
    """Return a new private key for this algorithm as unencrypted PKCS#8 PEM.

    RSA keys have 2048 bits, with which a signature takes 200 µs.
    """
    key: PrivateKey
    curves = {Algorithm.ES256: SECP256R1(), Algorithm.ES384: SECP384R1(), Algorithm.ES512: SECP521R1()}
    if alg in curves:
        key = generate_ec(curves[alg])
    elif alg in ED25519_NAMES:
        key = Ed25519PrivateKey.generate()
    else:
        key = generate_rsa(public_exponent=65_537, key_size=MIN_RSA_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
