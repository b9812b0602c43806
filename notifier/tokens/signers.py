"""Creates the keys at signers that the settings name. Equal settings give the same key, across reloads too.

So a reload keeps the processes, connections and circuits of keys that it does not change. A key with another
`not_before` is another key. With it an operator permits the key that the signer now has under this name.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeAlias

from notifier.model.defaults import SIGNATURE_TIMEOUT_SECONDS
from notifier.settings.key_settings import KeySettings, SigningSettings
from notifier.tokens.external_key import ExternalKey, SigningBounds
from notifier.tokens.signer import SignatureObserver, SignerBackend

_Identity: TypeAlias = tuple[str, object, object, SigningSettings]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyKind:
    """How the keys in one kind of place are made.

    `place` gets the settings of a key and the number of signatures at a time. It gives the place, and what the key is
    called there. `extra` brings the `libraries`. `at_a_time`: the number if `signing.concurrency` is left out. `ahead`:
    the requests that are made for each of these.
    """

    place: Callable[[Any, int], tuple[SignerBackend, str]]
    extra: str = ""
    libraries: tuple[str, ...] = ()
    at_a_time: int = 16
    ahead: int = 1

    def missing(self) -> str | None:
        """What to install. None if nothing is missing."""
        if all(map(_installed, self.libraries)):
            return None
        return f"its library is not installed: pip install 'logout-notifier[{self.extra}]' (the image has it)"


class Signers:
    """The keys at signers: one `Signers` for each worker or command.

    `kinds`: by their name in a key. `observe` receives the result of each signature. `timeout`: seconds for one.
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
        """The key that these settings name. It holds nothing until it is looked at."""
        name = settings.place
        options, kind = getattr(settings, name), self.kinds[name]
        identity = name, options, settings.not_before, signing
        if identity not in self._keys:
            at_a_time = signing.concurrency or kind.at_a_time
            place, called = kind.place(options, at_a_time)
            bounds = SigningBounds(timeout=self._timeout, concurrency=at_a_time * kind.ahead)
            self._keys[identity] = ExternalKey(place, name, called, bounds, self._observe)
        return self._keys[identity]

    def keep(self, used: Collection[ExternalKey]) -> None:
        """Forget all other keys. Their checker closes them."""
        self._keys = {identity: key for identity, key in self._keys.items() if key in used}


def _installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # nor what it is a part of
        return False
