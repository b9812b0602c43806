"""Runs the process that signs with the keys of one PKCS#11 token: one session, one thread, one signature at a time.

The module of a vendor runs here and nowhere else. If it crashes, or a call never returns, only this process suffers:
`pkcs11_token` ends it and starts another. Requests come over stdin, answers go over
stdout, each a frame: the length of the body, a letter, the body. The first request opens the token and has the PIN, so
that neither arguments nor environment show it. The process ends with its stdin.

It imports nothing of notifier, which keeps its private memory at 10 MiB.
"""

import ctypes
import hashlib
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:  # an extra, for the one process that runs this file
    from pkcs11 import PrivateKey, Session, Token

HEAD = struct.Struct(">Ic")
OPEN, FIND, SIGN = b"o", b"f", b"s"  # requests
DONE, FAULT = b"=", b"!"  # answers; a fault is JSON: the error's name and a text
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""What can be asked for. A request to sign has the key's and the algorithm's number, a byte each, and the message."""

NEEDED: Mapping[str, str] = MappingProxyType(
    {
        **{f"RS{bits}": f"SHA{bits}_RSA_PKCS" for bits in (256, 384, 512)},
        **{f"PS{bits}": f"SHA{bits}_RSA_PKCS_PSS" for bits in (256, 384, 512)},
        # The digest is made here: ECDSA_SHA256 is a mechanism that SoftHSM does not have, among others.
        **{f"ES{bits}": "ECDSA" for bits in (256, 384, 512)},
        "EdDSA": "EDDSA",
        "Ed25519": "EDDSA",  # the name of RFC 9864
    }
)
"""The mechanism for each algorithm."""

_ED25519 = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")
"""The curve as CKA_EC_PARAMS has it: as an OID (RFC 8410 §3), or as the name that PKCS#11 3.0 takes too."""
_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")  # RFC 8410 §4; the 32 bytes of the key follow
_PARENT_DIED = 1  # PR_SET_PDEATHSIG


class _Fault(Exception):  # noqa: N818  it becomes an answer
    """An error to report to the service: its name, and a text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class _SigningSession:
    """The token, once it is open, and its keys, once they are found."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._keys: list[PrivateKey] = []

    def answer(self, kind: bytes, body: bytes) -> bytes:
        """Do what is asked. Raises _Fault or an error of the library."""
        if kind == SIGN:
            return _sign(self._keys[body[0]], ALGORITHMS[body[1]], body[2:])
        asked = json.loads(body)
        reply = self._open(**asked) if kind == OPEN else self._find(**asked)
        return json.dumps(reply).encode()

    def _open(self, module: str, token: str, pin: str) -> Sequence[str]:
        """Log in; return the names of the mechanisms that the token has."""
        import pkcs11  # noqa: PLC0415  an extra
        from pkcs11.constants import TokenFlag  # noqa: PLC0415

        try:
            library = pkcs11.lib(module)
        except RuntimeError as error:  # dlopen's
            raise _Fault("NoSuchModule", f"the module cannot be loaded: {error}") from None
        inserted: Token = _find_token(list(library.get_slots(token_present=True)), token)
        if TokenFlag.USER_PIN_FINAL_TRY in inserted.flags:
            raise _Fault("PinFinalTry", "one more wrong PIN locks the token: log in by hand, with the vendor's tool")
        self._session = inserted.open(user_pin=pin)
        return [getattr(mechanism, "name", str(mechanism)) for mechanism in inserted.slot.get_mechanisms()]

    def _find(self, label: str | None, id: str | None) -> Mapping[str, object]:  # noqa: A002  PKCS#11's word
        """Find a private key; return its number and its public half (PKCS#1 or SPKI, as hexadecimal DER)."""
        from pkcs11 import Attribute, ObjectClass  # noqa: PLC0415

        assert self._session is not None
        wanted: dict[Any, Any] = {} if label is None else {Attribute.LABEL: label}
        wanted |= {} if id is None else {Attribute.ID: bytes.fromhex(id)}
        private = list(self._session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, **wanted}))
        if len(private) != 1:
            text = f"has {len(private)} such private keys; name one by its label and its id"
            raise _Fault("NoSuchKey", text if private else "has no such private key that this PIN shows")
        public = list(self._session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, **wanted}))
        der = _read_public_half(private[0], public)
        self._keys.append(private[0])  # type: ignore[arg-type]
        return {"number": len(self._keys) - 1, "public": der.hex()}


def _find_token(slots: Sequence[Any], label: str) -> Any:
    tokens = [slot.get_token() for slot in slots]
    matches = [candidate for candidate in tokens if candidate.label == label]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise _Fault("NoSuchToken", f"the module has {len(matches)} tokens {label!r}; give each a label of its own")
    others = ", ".join(sorted(repr(other.label) for other in tokens if other.label))  # without one: not initialised
    raise _Fault("NoSuchToken", f"the module has no token {label!r}; it has {others or 'none'}")


def _read_public_half(private: Any, public: Sequence[Any]) -> bytes:
    """Return the public half: of the public key's object, or of an RSA private key, which contains it."""
    from pkcs11 import Attribute, KeyType  # noqa: PLC0415
    from pkcs11.util.ec import encode_ec_public_key  # noqa: PLC0415
    from pkcs11.util.rsa import encode_rsa_public_key  # noqa: PLC0415

    if private.key_type is KeyType.RSA:
        return bytes(encode_rsa_public_key(public[0] if public else private))
    if private.key_type not in (KeyType.EC, KeyType.EC_EDWARDS):
        raise _Fault("KeyTypeInconsistent", "is neither an RSA nor an EC nor an Ed25519 key")
    if len(public) != 1:
        raise _Fault("NoSuchKey", "has no public key object beside it; store one with the same label and id")
    if public[0][Attribute.EC_PARAMS] in _ED25519:  # tokens differ in what is before the 32 bytes, if anything is
        return _ED25519_SPKI + bytes(public[0][Attribute.EC_POINT])[-32:]
    if private.key_type is KeyType.EC_EDWARDS:
        raise _Fault("KeyTypeInconsistent", "is of another Edwards curve than Ed25519, which cannot be used")
    return bytes(encode_ec_public_key(public[0]))


def _sign(key: Any, alg: str, message: bytes) -> bytes:
    """Return the signature in the form of JWS. Names each mechanism and parameter: defaults are not reliable."""
    from pkcs11 import MGF, Mechanism  # noqa: PLC0415

    bits = alg[2:]
    mechanism = Mechanism[NEEDED[alg]]
    if alg.startswith("ES"):
        return bytes(key.sign(hashlib.new(f"sha{bits}", message).digest(), mechanism=mechanism))
    if alg.startswith(("RS", "Ed")):  # without a parameter EDDSA is the Ed25519 of RFC 8037
        return bytes(key.sign(message, mechanism=mechanism))
    salt = int(bits) // 8  # RFC 7518 §3.5
    parameters = (Mechanism[f"SHA{bits}"], MGF[f"SHA{bits}"], salt)
    return bytes(key.sign(message, mechanism=mechanism, mechanism_param=parameters))


def serve(requests: BinaryIO, answers: BinaryIO, answer: Callable[[bytes, bytes], bytes]) -> None:
    """Answer each request until the input ends."""
    while head := requests.read(HEAD.size):
        length, kind = HEAD.unpack(head)
        body = requests.read(length)
        try:
            reply, status = answer(kind, body), DONE
        except _Fault as fault:
            reply, status = json.dumps([fault.name, str(fault)]).encode(), FAULT
        except Exception as error:  # noqa: BLE001  each error is reported; the service ends this process
            reply, status = json.dumps([type(error).__name__, ""]).encode(), FAULT
        answers.write(HEAD.pack(len(reply), status) + reply)
        answers.flush()


def main() -> None:
    """Serve, alone with the module of the vendor."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # systemd sends them to all: the worker drains first
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the PIN
    if sys.platform == "linux":  # it may hang when its worker is killed
        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the module prints must not be read as an answer
    serve(sys.stdin.buffer, answers, _SigningSession().answer)


if __name__ == "__main__":
    main()
