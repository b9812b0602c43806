"""The process that signs with the keys of one PKCS#11 token: one session, one thread, one signature at a time.

Only here the vendor's library (the *module* of PKCS#11) runs. If it crashes or hangs, `pkcs11_token` kills this process
and starts another. Requests on stdin and answers on stdout are frames: the length of the body, a letter, the body. The
first request has the PIN, so that neither arguments nor environment contain it. The process ends at the end of stdin.
It imports nothing of notifier, so that it takes only 10 MiB.
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
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:  # an extra, for the one process that runs this file
    from pkcs11 import PrivateKey, Session, Token

HEAD = struct.Struct(">Ic")
OPEN, FIND, SIGN = b"o", b"f", b"s"  # letters of requests
DONE, FAULT = b"=", b"!"  # letters of answers; the body of FAULT is JSON: the error's name and a text
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""The algorithms. The body of SIGN is the key's number and the algorithm's index here, a byte each, and the message."""

NEEDED: Mapping[str, str] = {
    **{f"RS{bits}": f"SHA{bits}_RSA_PKCS" for bits in (256, 384, 512)},
    **{f"PS{bits}": f"SHA{bits}_RSA_PKCS_PSS" for bits in (256, 384, 512)},
    # This process computes the digest, since SoftHSM and other tokens lack the mechanism ECDSA_SHA256.
    **{f"ES{bits}": "ECDSA" for bits in (256, 384, 512)},
    "EdDSA": "EDDSA",
    "Ed25519": "EDDSA",  # the name of RFC 9864
}
"""The mechanism for each algorithm."""

_ED25519 = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")
"""The values of CKA_EC_PARAMS for Ed25519: an OID (RFC 8410 §3), or the name that PKCS#11 3.0 also permits."""
_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")  # RFC 8410 §4; before the 32 bytes of the key
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class _Fault(Exception):  # noqa: N818  an answer
    """An error with a text for the operator. `name`: as of an exception of the library."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class _SigningSession:
    """The session with the token, and its keys in the order in which they were found."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._keys: list[PrivateKey] = []

    def answer(self, kind: bytes, body: bytes) -> bytes:
        """Carry out a request, and return the body of its answer. Raises _Fault or an error of the library."""
        if kind == SIGN:
            return _sign(self._keys[body[0]], ALGORITHMS[body[1]], body[2:])
        arguments = json.loads(body)
        reply = self._open(**arguments) if kind == OPEN else self._find(**arguments)
        return json.dumps(reply).encode()

    def _open(self, module: str, token: str, pin: str) -> Sequence[str]:
        """Log in to the token, and return the names of its mechanisms. Raises _Fault."""
        import pkcs11  # noqa: PLC0415  an extra
        from pkcs11.constants import TokenFlag  # noqa: PLC0415

        try:
            library = pkcs11.lib(module)
        except RuntimeError as error:  # from dlopen
            raise _Fault("NoSuchModule", f"the module cannot be loaded: {error}") from None
        found: Token = _find_token(list(library.get_slots(token_present=True)), token)
        if TokenFlag.USER_PIN_FINAL_TRY in found.flags:
            raise _Fault("PinFinalTry", "one more wrong PIN locks the token: log in by hand, with the vendor's tool")
        self._session = found.open(user_pin=pin)
        return [getattr(mechanism, "name", str(mechanism)) for mechanism in found.slot.get_mechanisms()]

    def _find(self, label: str | None, id: str | None) -> Mapping[str, object]:  # noqa: A002  PKCS#11's word
        """Find a private key. Return its number, and the public key as hexadecimal DER. Raises _Fault."""
        from pkcs11 import Attribute, ObjectClass  # noqa: PLC0415

        assert self._session is not None
        name: dict[Any, Any] = {} if label is None else {Attribute.LABEL: label}
        if id is not None:
            name[Attribute.ID] = bytes.fromhex(id)
        private = list(self._session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, **name}))
        if len(private) != 1:
            text = f"has {len(private)} such private keys; name one by its label and its id"
            raise _Fault("NoSuchKey", text if private else "has no such private key that this PIN shows")
        public = list(self._session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, **name}))
        der = _to_der(private[0], public)
        self._keys.append(private[0])  # type: ignore[arg-type]
        return {"number": len(self._keys) - 1, "public": der.hex()}


def _find_token(slots: Sequence[Any], label: str) -> Any:
    """Return the only token with the label. Raises _Fault."""
    tokens = [slot.get_token() for slot in slots]
    matches = [candidate for candidate in tokens if candidate.label == label]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise _Fault("NoSuchToken", f"the module has {len(matches)} tokens {label!r}; give each a label of its own")
    others = ", ".join(sorted(repr(other.label) for other in tokens if other.label))  # a new token has no label
    raise _Fault("NoSuchToken", f"the module has no token {label!r}; it has {others or 'none'}")


def _to_der(private: Any, public: Sequence[Any]) -> bytes:
    """Return the public key of a private key: from the object `public`, or from an RSA private key. Raises _Fault."""
    from pkcs11 import Attribute, KeyType  # noqa: PLC0415
    from pkcs11.util.ec import encode_ec_public_key  # noqa: PLC0415
    from pkcs11.util.rsa import encode_rsa_public_key  # noqa: PLC0415

    if private.key_type is KeyType.RSA:
        return bytes(encode_rsa_public_key(public[0] if public else private))
    if private.key_type not in (KeyType.EC, KeyType.EC_EDWARDS):
        raise _Fault("KeyTypeInconsistent", "is neither an RSA nor an EC nor an Ed25519 key")
    if len(public) != 1:
        raise _Fault("NoSuchKey", "has no public key object beside it; store one with the same label and id")
    if public[0][Attribute.EC_PARAMS] in _ED25519:  # some tokens have bytes of DER before the 32 of the key
        return _ED25519_SPKI + bytes(public[0][Attribute.EC_POINT])[-32:]
    if private.key_type is KeyType.EC_EDWARDS:
        raise _Fault("KeyTypeInconsistent", "is of another Edwards curve than Ed25519, which cannot be used")
    return bytes(encode_ec_public_key(public[0]))


def _sign(key: Any, alg: str, message: bytes) -> bytes:
    """Return the signature in the form of JWS. Pass each mechanism and parameter, since libraries' defaults differ."""
    from pkcs11 import MGF, Mechanism  # noqa: PLC0415

    bits = alg[2:]
    mechanism = Mechanism[NEEDED[alg]]
    if alg.startswith("ES"):
        return bytes(key.sign(hashlib.new(f"sha{bits}", message).digest(), mechanism=mechanism))
    if alg.startswith(("RS", "Ed")):  # EDDSA without a parameter is the Ed25519 of RFC 8037
        return bytes(key.sign(message, mechanism=mechanism))
    salt_bytes = int(bits) // 8  # as long as the hash (RFC 7518 §3.5)
    parameters = (Mechanism[f"SHA{bits}"], MGF[f"SHA{bits}"], salt_bytes)
    return bytes(key.sign(message, mechanism=mechanism, mechanism_param=parameters))


def serve(requests: BinaryIO, answers: BinaryIO, carry_out: Callable[[bytes, bytes], bytes]) -> None:
    """Answer each request until the end of the input. `carry_out` returns the body of the answer, or raises."""
    while head := requests.read(HEAD.size):
        length, kind = HEAD.unpack(head)
        body = requests.read(length)
        try:
            reply, status = carry_out(kind, body), DONE
        except _Fault as fault:
            reply, status = json.dumps([fault.name, str(fault)]).encode(), FAULT
        except Exception as error:  # noqa: BLE001  the worker logs the error, and ends this process
            reply, status = json.dumps([type(error).__name__, ""]).encode(), FAULT
        answers.write(HEAD.pack(len(reply), status) + reply)
        answers.flush()


def main() -> None:
    """Isolate this process, and serve requests on stdin."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # systemd sends them to all processes of the service
        signal.signal(number, signal.SIG_IGN)  # the worker still needs signatures while it drains
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the PIN
    if sys.platform == "linux":  # a hanging call would outlive a killed worker
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of the vendor's library must not be read as an answer
    serve(sys.stdin.buffer, answers, _SigningSession().answer)


if __name__ == "__main__":
    main()
