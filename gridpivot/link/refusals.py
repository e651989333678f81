"""Whoever is refused often from one address waits: each try costs whoever lets callers in a commit."""

from __future__ import annotations

from collections import OrderedDict

REFUSALS = 10  # from one address ...
PER_S = 60.0  # ... in this time; after it the address waits
MOST_ADDRESSES = 10_000


class Refusals:
    """How often an address was refused lately. Pure."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, list[float]] = OrderedDict()

    def too_many(self, address: str, now_s: float) -> bool:
        """Whether the address has to wait."""
        moments = [at for at in self._seen.get(address, ()) if now_s - at < PER_S]
        return len(moments) >= REFUSALS

    def note(self, address: str, now_s: float) -> None:
        """One more; the longest unseen address is forgotten when there are too many."""
        moments = [at for at in self._seen.pop(address, ()) if now_s - at < PER_S]
        self._seen[address] = [*moments[-REFUSALS:], now_s]
        while len(self._seen) > MOST_ADDRESSES:
            self._seen.popitem(last=False)
