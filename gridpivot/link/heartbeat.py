"""Is the other side alive? Pure: moments in, verdicts out.

Safety rests on this and on the lease, never on keepalive: grpcio leaves a black-holed link unnoticed for over 100 s
by default (measured with 1.85).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class LinkWatch:
    """When to send a heartbeat and when to call the link dead; all times monotonic [s]."""

    heartbeat_s: float
    dead_after_s: float
    last_heard_s: float
    last_sent_s: float = float("-inf")
    peer_monotonic_ms: int = 0

    def heard(self, now_s: float, peer_monotonic_ms: int | None = None) -> None:
        """Anything arrived from the peer."""
        self.last_heard_s = max(self.last_heard_s, now_s)
        if peer_monotonic_ms is not None:
            self.peer_monotonic_ms = peer_monotonic_ms

    def due(self, now_s: float) -> bool:
        """Whether a heartbeat should go out now; marks it as sent."""
        if now_s - self.last_sent_s < self.heartbeat_s:
            return False
        self.last_sent_s = now_s
        return True

    def dead(self, now_s: float) -> bool:
        """Whether the peer has been silent for too long."""
        return now_s - self.last_heard_s > self.dead_after_s


def backoff_s(attempt: int, jitter: float, base_s: float = 0.5, most_s: float = 15.0) -> float:
    """Pause before reconnect number `attempt` (from 0) [s]; `jitter` in [0, 1) spreads forty sites apart."""
    return float(min(most_s, base_s * 2.0 ** min(attempt, 10)) * (0.5 + 0.5 * jitter))
