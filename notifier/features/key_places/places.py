"""Makes the places of keys that the settings name. What is named alike is the same, across reloads too.

So a reload keeps the processes, connections and circuits of keys that it does not change. A key with another
`not_before` is another one: that is how an operator says that what its place has under this name now may sign.
"""

from collections.abc import Collection
from typing import TypeAlias

from notifier.features.key_places.key_services import key_in_service
from notifier.features.key_places.pkcs11_session import KeyName, TokenAddress
from notifier.features.key_places.pkcs11_token import AHEAD, Pkcs11Key, Pkcs11Token
from notifier.settings.key_settings import KeySettings, SigningSettings
from notifier.tokens.key_place import SigningPlace
from notifier.tokens.placed_key import PlacedKey, SigningBounds
from notifier.tokens.signature import SignatureObserver, SignatureResult

_Identity: TypeAlias = tuple[str, object, object, SigningSettings]

PROCESSES, REQUESTS = 2, 16  # `signing.concurrency` where it is left out


class Places:
    """The keys in places of their own: one `Places` for each worker or command."""

    def __init__(self) -> None:
        self._keys: dict[_Identity, PlacedKey] = {}
        self._tokens: dict[tuple[TokenAddress, int], Pkcs11Token] = {}
        self.tell: SignatureObserver = _nobody
        """Is told of each signature."""

    def key(self, settings: KeySettings, signing: SigningSettings) -> PlacedKey:
        """The key that these settings name. It holds nothing until it is looked at."""
        kind = settings.place
        identity = kind, getattr(settings, kind), settings.not_before, signing
        if identity not in self._keys:
            place, name = self._place(settings, signing)
            at_a_time = concurrency(kind, signing) * (AHEAD if kind == "pkcs11" else 1)
            bounds = SigningBounds(timeout=signing.timeout, concurrency=at_a_time, every=signing.every)
            self._keys[identity] = PlacedKey(place, kind, name, bounds, self._told)
        return self._keys[identity]

    def keep(self, used: Collection[PlacedKey]) -> None:
        """Forget all others. Who looks at them closes them."""
        self._keys = {identity: key for identity, key in self._keys.items() if key in used}

    def _place(self, settings: KeySettings, signing: SigningSettings) -> tuple[SigningPlace, str]:
        """The place, and what the key is called there. A place whose library is an extra is imported here."""
        if settings.pkcs11 is not None:
            of = settings.pkcs11
            address = TokenAddress(module=of.module, token=of.token, pin_file=of.pin_file)
            size = concurrency("pkcs11", signing)
            token = self._tokens.setdefault((address, size), Pkcs11Token(address, size))
            named = " ".join(each for each in (of.label, of.id) if each is not None)
            return Pkcs11Key(token, KeyName(label=of.label, id=of.id)), f"{of.token}/{named}"
        return key_in_service(settings)

    def _told(self, kind: str, result: SignatureResult, seconds: float) -> None:
        self.tell(kind, result, seconds)


def concurrency(kind: str, signing: SigningSettings) -> int:
    """How many signatures of one key are made at a time."""
    return signing.concurrency or (PROCESSES if kind == "pkcs11" else REQUESTS)


def _nobody(_kind: str, _result: SignatureResult, _seconds: float) -> None:
    """Nobody is told."""
