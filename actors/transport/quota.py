"""What one peer may hold and do, so that nobody's share is everybody's: counts and rates by key.

Every key is a pair of names, the wider one first: tenant and identity, relay and relay, whatever a
door tells apart. A `Quota` bounds what is held at the same time, a `Rate` what is begun per second.
Both refuse with the word of the bound that was reached, and count it.

Fairness without a list of tenants: a tenant may hold its share of what it has and what is free
together. One alone gets that share of all; several that want everything get less each, and there
is always something left for one that wants little.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Final, TypeVar

from actors.transport.quic.rate_limit import RateLimit

K = TypeVar("K")

#: The share of a tenant, see the module docstring.
TENANT_SHARE: Final = 0.9
#: Keys whose rate is remembered, of each kind; the one unused for longest begins anew.
MAX_RATED: Final = 65_536


class Ticket:
    """One thing that is held, as a resource; given back at the latest when nobody keeps it."""

    __slots__ = ("_give_back",)

    def __init__(self, give_back: Callable[[], object]) -> None:
        self._give_back: Callable[[], object] | None = give_back

    def abort(self) -> None:
        """Give it back; idempotent."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def __del__(self) -> None:
        self.abort()


class Quota:
    """How many things of a kind may be held.

    Args:
        name: of the kind, for the counters.
        total: by all together.
        each: by one identity.
        refused: refusals are counted here, as `<name>_full`, `<name>_tenant`, `<name>_identity`.
        share: of one tenant.
    """

    def __init__(
        self,
        name: str,
        total: int,
        each: int,
        refused: MutableMapping[str, int],
        *,
        share: float = TENANT_SHARE,
    ) -> None:
        self._name = name
        self._total = total
        self._each = each
        self._refused = refused
        self._share = share
        self._used = 0
        #: Bound: what is held.
        self._tenants: Counter[str] = Counter()
        self._identities: Counter[tuple[str, str]] = Counter()

    @property
    def used(self) -> int:
        """Held by all together."""
        return self._used

    def take(self, tenant: str, identity: str) -> Ticket | None:
        """Hold one more. None: it was refused, and counted."""
        key = tenant, identity
        free = self._total - self._used
        mine = self._tenants.get(tenant, 0)
        bound = ""
        if free <= 0:
            bound = "full"
        elif self._identities.get(key, 0) >= self._each:
            bound = "identity"
        elif mine >= math.ceil(self._share * (mine + free)):
            bound = "tenant"
        if bound:
            self._refused[f"{self._name}_{bound}"] += 1
            return None
        self._used += 1
        self._tenants[tenant] += 1
        self._identities[key] += 1
        return Ticket(lambda: self._give_back(key))

    def _give_back(self, key: tuple[str, str]) -> None:
        self._used -= 1
        _decrement(self._tenants, key[0])
        _decrement(self._identities, key)


def _decrement(counts: Counter[K], key: K) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]


class Rate:
    """How many things of a kind may be begun per second, with a second's worth at once.

    Args:
        name: of the kind, for the counters.
        tenant, each: by one tenant, by one identity, per second.
        refused: as for `Quota`.
    """

    def __init__(
        self, name: str, tenant: float, each: float, refused: MutableMapping[str, int]
    ) -> None:
        self._name = name
        self._tenant = tenant
        self._each = each
        self._refused = refused
        #: Bound: MAX_RATED each.
        self._tenants: OrderedDict[str, RateLimit] = OrderedDict()
        self._identities: OrderedDict[str, RateLimit] = OrderedDict()

    def take(self, tenant: str, identity: str, now: float) -> bool:
        """Begin one more. False: it was refused, and counted."""
        if not _limit(self._identities, identity, self._each).take(now):
            self._refused[f"{self._name}_identity"] += 1
            return False
        if not _limit(self._tenants, tenant, self._tenant).take(now):
            self._refused[f"{self._name}_tenant"] += 1
            return False
        return True


def _limit(known: OrderedDict[str, RateLimit], key: str, rate: float) -> RateLimit:
    limit = known.get(key)
    if limit is None:
        if len(known) >= MAX_RATED:
            known.popitem(last=False)
        limit = known[key] = RateLimit(rate)
    known.move_to_end(key)
    return limit
