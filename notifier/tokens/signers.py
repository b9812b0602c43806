"""Creates the external keys that the settings name. Equal settings give the same object, also across reloads.

A reload therefore keeps the processes, connections and circuits of unchanged keys. An entry with another `not_before`
is another key: by a new `not_before` an operator accepts a key that was replaced at the signer under the same name.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeAlias

from notifier.model.defaults import SIGNATURE_TIMEOUT_SECONDS
from notifier.settings.key_settings import KeySettings, SigningSettings
from notifier.tokens.external_key import ExternalKey
from notifier.tokens.signer import SignatureObserver, SignerBackend

_Identity: TypeAlias = tuple[str, object, object, SigningSettings]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyKind:
    """The factory of external keys at one kind of signer.

    `make` receives the settings of a key and the number of concurrent signatures. It returns the signer, and the name
    of the key there. `extra`: the extra of the package that installs the `libraries`. `concurrency`: the number of
    concurrent signatures if `signing.concurrency` is not set. `requests_per_signature`: the number of concurrent
    requests that one of these signatures permits.
    """

    make: Callable[[Any, int], tuple[SignerBackend, str]]
    extra: str = ""
    libraries: tuple[str, ...] = ()
    concurrency: int = 16
    requests_per_signature: int = 1

    def missing(self) -> str | None:
        """Return an error with the package to install; None if no library is missing."""
        if all(map(_is_installed, self.libraries)):
            return None
        return f"its library is not installed: pip install 'logout-notifier[{self.extra}]' (the image has it)"


class Signers:
    """The external keys of a worker or command.

    `kinds`: the factories, by the name of the kind in the settings of a key. `observe` receives the result of each
    request. `timeout`: seconds for one signature.
    """

    def __init__(
        self,
        kinds: Mapping[str, KeyKind],
        observe: SignatureObserver = lambda _kind, _result, _seconds: None,
        timeout: float = SIGNATURE_TIMEOUT_SECONDS,
    ) -> None:
        self.kinds = kinds
        self._observe, self._timeout = observe, timeout
        self._keys: dict[_Identity, ExternalKey] = {}

    def key(self, settings: KeySettings, signing: SigningSettings) -> ExternalKey:
        """Return the external key that these settings name. It opens no connection before its first check."""
        kind_name = settings.kind
        options, kind = getattr(settings, kind_name), self.kinds[kind_name]
        identity = kind_name, options, settings.not_before, signing
        if identity not in self._keys:
            concurrency = signing.concurrency or kind.concurrency
            backend, name = kind.make(options, concurrency)
            requests = concurrency * kind.requests_per_signature
            self._keys[identity] = ExternalKey(
                backend, kind_name, name, self._observe, timeout=self._timeout, concurrency=requests
            )
        return self._keys[identity]

    def keep(self, used: Collection[ExternalKey]) -> None:
        """Forget all keys except these. The caller closes the other keys."""
        self._keys = {identity: key for identity, key in self._keys.items() if key in used}


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # its parent package is missing, too
        return False
