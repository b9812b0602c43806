"""Says of which clients parked deliveries are fetched: one that is up is drained, one that rests needs a leash. Pure.

A drain goes at the pace that the client bears, a few deliveries at a time over all clients. A client that rests needs
one delivery in the delay queues. If none is known, one of its parked deliveries is fetched, and becomes the leash.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Generic

from notifier.pipeline.known_client import LONGEST, Key, KnownClient, Ticket

AT_ONCE = 4  # deliveries on their way out of buckets; 1 while a fresh one waits for the loop
CROWDED = 0.5  # of memory in use: nothing is fetched, and nothing waits in memory for a client that rests


class Drains(Generic[Ticket]):
    """Keeps which of the `known` clients are drained, lack a leash, or recovered lately.

    `wanted` says how many more a client bears now, `fill` how full memory is (0 to 1). `drained` is called with the
    seconds since a client's recovery when its bucket is empty.
    """

    def __init__(
        self,
        known: Mapping[Key, KnownClient[Ticket]],
        wanted: Callable[[KnownClient[Ticket], float], int],
        fill: Callable[[], float],
        drained: Callable[[KnownClient[Ticket], float], None],
    ) -> None:
        self._known = known
        self._wanted = wanted
        self._fill = fill
        self._drained = drained
        self._draining: OrderedDict[Key, KnownClient[Ticket]] = OrderedDict()
        self._leashless: dict[Key, KnownClient[Ticket]] = {}  # one of their parked deliveries is to become the leash
        self._watched: dict[Key, KnownClient[Ticket]] = {}  # recovered lately: other workers may still park for them
        self._fetching = 0

    def fetches(self, now: float, *, fresh_waits: bool) -> list[tuple[Key, int]]:
        """Return of which clients parked deliveries are to be fetched now, and how many. `fetched` must follow."""
        found: list[tuple[Key, int]] = []
        while self._leashless and self._fetching < AT_ONCE:
            one = self._leashless.pop(key := next(iter(self._leashless)))
            if not one.up and one.leash_until <= now:
                one.fetching += 1
                self._fetching += 1
                found.append((key, 1))
        most = 1 if fresh_waits else AT_ONCE
        for _ in range(min(len(self._draining), 3)):
            if self._fetching >= most or self._fill() > CROWDED:
                break
            key, one = self._draining.popitem(last=False)
            if not one.up or not one.parked:
                continue
            self._draining[key] = one
            if (want := min(self._wanted(one, now), most - self._fetching)) > 0:
                one.fetching += want
                self._fetching += want
                found.append((key, want))
        return found

    def fetched(self, key: Key, count: int) -> None:
        """Note that so many of those asked for have come, or will not come."""
        self._known[key].fetching -= count
        self._fetching -= count

    def parks(self, key: Key) -> int:
        """Return how often this worker has parked something for the client."""
        return self._known[key].parks

    def empty(self, key: Key, parks: int, now: float) -> None:
        """Note that nothing of this client is left in its bucket, of the first `parks` that this worker parked."""
        one = self._known[key]
        if one.parks > parks:  # it came by another connection, perhaps after the bucket had answered
            self.look_after(one, now)
            return
        one.parked = False
        self._draining.pop(key, None)
        if one.up and one.recovered is not None:
            self._drained(one, now - one.recovered)
            one.recovered = None

    def parked(self, key: Key, now: float) -> None:
        """Note that a delivery is durable in the client's bucket. Somebody must fetch it: we, or a leash on its way."""
        one = self._known.get(key)
        if one is None:
            return  # forgotten meanwhile: the audit finds the bucket
        one.parked, one.parks = True, one.parks + 1
        self.look_after(one, now)

    def fetch_again(self, key: Key, now: float) -> None:
        """Note that more may be parked for the client."""
        one = self._known[key]
        one.parked = True
        self.look_after(one, now)

    def look_after(self, one: KnownClient[Ticket], now: float) -> None:
        """See to it that somebody fetches what is parked for the client: a drain, or a leash."""
        if one.parked and one.up:
            self._draining[one.key] = one
        elif one.parked and not one.running and not one.fetching and one.leash_until <= now:
            self._leashless[one.key] = one

    def leash_ends(self, key: Key, due: float, now: float) -> None:
        """Note that a leash of the client ends at `due`, or has ended, since its delivery does."""
        if (one := self._known.get(key)) is not None:
            one.leash_ends(due)
            self.look_after(one, now)

    def watched(self, now: float) -> list[Key]:
        """Return the clients that recovered lately and of which nothing seems parked: a worker may still park some."""
        for key in [key for key, one in self._watched.items() if one.watched_until <= now]:
            del self._watched[key]
        return [key for key, one in self._watched.items() if one.up and not one.parked]

    def watch_no_longer(self, key: Key) -> None:
        """Look no more at this client's bucket: what others park there concerns clients that are down."""
        self._watched.pop(key, None)

    def looked_after(self, now: float) -> Iterator[Key]:
        """Return the clients whose parked deliveries somebody will fetch: they are drained, or have a leash."""
        yield from self._draining
        yield from (key for key, one in self._known.items() if one.leash_until > now)

    def drain(self, one: KnownClient[Ticket]) -> None:
        """Fetch what is parked for this client, which is up."""
        one.parked = True
        self._draining[one.key] = one

    def busy(self, key: Key) -> bool:
        """True if more is to be fetched for this client, as soon as it may be called."""
        return key in self._leashless or key in self._draining

    def lacks_leash(self, one: KnownClient[Ticket]) -> None:
        """Fetch one of the client's parked deliveries: it becomes the leash."""
        self._leashless[one.key] = one

    def watch(self, one: KnownClient[Ticket], now: float) -> None:
        """Note that the client has recovered: look at its bucket for as long as another worker may take it for down."""
        one.parked, one.watched_until, one.recovered = True, now + LONGEST, now
        self._watched[one.key] = one

    def forget(self, key: Key) -> None:
        """Forget the client."""
        for kept in (self._draining, self._leashless, self._watched):
            kept.pop(key, None)
