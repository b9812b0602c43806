"""Run moto's server on a free port of the loopback interface, in a separate process: `python -m tests.aws.moto_server`.

moto hashes each message once more, even a digest, and signs with the longest salt of PSS; and a disabled
key signs. AWS does none of this: `… right` corrects it. It prints its address.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.core.exceptions import JsonRESTError
from moto.kms import responses, utils
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_DIGESTS = {256: hashes.SHA256(), 384: hashes.SHA384(), 512: hashes.SHA512()}


class Asked(threading.local):
    """The message type of the request that this thread answers."""

    kind = "RAW"


def put_right() -> None:
    """Make moto's keys sign as AWS's do."""
    asked = Asked()
    answered: Callable[[Any], Any] = responses.KmsResponse.sign

    def sign(self: Any) -> Any:
        asked.kind = self._get_param("MessageType") or "RAW"
        self._validate_key_id(self._get_param("KeyId"))
        key = self.kms_backend.describe_key(self._get_param("KeyId"))
        if not key.enabled:
            raise JsonRESTError("DisabledException", f"{key.arn} is disabled.")
        return answered(self)

    def hashed(name: str) -> tuple[Any, Any]:
        digest = _DIGESTS[int(name[-3:])]
        return digest, Prehashed(digest) if asked.kind == "DIGEST" else digest

    def rsa(self: Any, message: bytes, name: str) -> bytes:
        digest, how = hashed(name)
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
        return bytes(self.private_key.sign(message, pss if "PSS" in name else padding.PKCS1v15(), how))

    def ecdsa(self: Any, message: bytes, name: str) -> bytes:
        return bytes(self.private_key.sign(message, ec.ECDSA(hashed(name)[1])))

    responses.KmsResponse.sign = sign  # type: ignore[method-assign]
    utils.RSAPrivateKey.sign = rsa  # type: ignore[method-assign,assignment]
    utils.ECDSAPrivateKey.sign = ecdsa  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    if sys.argv[1:] == ["right"]:
        put_right()
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201
    server.serve_forever()
