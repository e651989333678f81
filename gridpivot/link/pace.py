"""How much may be on the way at once, so that nothing waits long behind something large. Pure; times monotonic [s].

A satellite link of 64 kbit/s has buffers for minutes: what is written is not what has arrived. The far side says how
many payload bytes it has received; the time they took, beyond the best time seen, is the queue in front of us, and the
window is kept so small that this queue stays short.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

LEAST_WINDOW_BYTES = 8 * 1024  # one part and a little: 1 s at 64 kbit/s
FIRST_WINDOW_BYTES = 32 * 1024
PART_BYTES = 8 * 1024  # largest piece of a record that is written at once while the link is slow
QUEUE_S = 1.0  # queueing that is put up with
BEST_FOR_S = 60.0  # a best time that old may be exceeded by a quarter: routes change


@dataclass(slots=True)
class Pace:
    """Window over bytes on the wire of one session."""

    window_bytes: float = FIRST_WINDOW_BYTES
    most_bytes: float = 4.0 * 2**20
    sent_bytes: int = 0
    received_bytes: int = 0
    _marks: deque[tuple[int, float, bool]] = field(default_factory=deque)  # (sent total, when, window was the limit)
    _best_s: float = float("inf")
    _best_at_s: float = float("-inf")
    _changed_at: int = 0  # the window changes once for each window's worth

    @property
    def on_the_way_bytes(self) -> int:
        """Written and not known to have arrived."""
        return self.sent_bytes - self.received_bytes

    @property
    def slow(self) -> bool:
        """Whether the link is the limit: records should be cut into parts."""
        return self.window_bytes < 256 * 1024

    def may_send(self, size: int) -> bool:
        """Whether `size` more bytes may be written; one piece is always allowed when nothing is on the way."""
        return self.on_the_way_bytes == 0 or self.on_the_way_bytes + size <= self.window_bytes

    def sent(self, size: int, now_s: float) -> None:
        """A piece was written."""
        self.sent_bytes += size
        self._marks.append((self.sent_bytes, now_s, self.on_the_way_bytes + PART_BYTES > self.window_bytes))

    def received(self, total: int, now_s: float) -> None:
        """The far side has received this many bytes in all; a figure from nowhere is left out."""
        if not self.received_bytes < total <= self.sent_bytes:
            return
        self.received_bytes = total
        delay_s, limited = None, False
        while self._marks and self._marks[0][0] <= total:
            _, at_s, was_limited = self._marks.popleft()
            delay_s, limited = now_s - at_s, limited or was_limited
        if delay_s is None:
            return
        if delay_s <= self._best_s:
            self._best_s, self._best_at_s = delay_s, now_s
        elif now_s - self._best_at_s > BEST_FOR_S:
            # A queue of our own making must not pass for the route: the best may only drift.
            self._best_s, self._best_at_s = min(delay_s, 1.25 * self._best_s + 0.01), now_s
        if total < self._changed_at:
            return
        if delay_s > self._best_s + QUEUE_S:
            self.window_bytes = max(LEAST_WINDOW_BYTES, self.window_bytes * 0.5)
            self._changed_at = self.sent_bytes
        elif limited:
            self.window_bytes = min(self.most_bytes, self.window_bytes * (2.0 if delay_s < 0.3 else 1.25))
            self._changed_at = self.sent_bytes


@dataclass(slots=True)
class Allowance:
    """A token bucket: so many bytes a second of backlog, so that forty sites coming back do not arrive at once."""

    bytes_per_s: float
    most_bytes: float
    _left: float = 0.0
    _at_s: float = float("-inf")

    def has(self, now_s: float) -> bool:
        """Whether anything may go out now."""
        elapsed_s = now_s - self._at_s if self._at_s != float("-inf") else float("inf")
        self._left = min(self.most_bytes, self._left + min(elapsed_s, 3600.0) * self.bytes_per_s)
        self._at_s = now_s
        return self._left > 0.0

    def took(self, size: int) -> None:
        """A record went out; one larger than what is left runs into debt, so that it goes out at all."""
        self._left -= size
