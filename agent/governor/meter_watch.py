"""Is the site meter to be believed? Pure: samples in, a verdict out.

Trusted while it is fresh, moves with commanded change and stays inside the envelope of the devices behind it. Once
lost, trust comes back only after several good samples in a row.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from agent.backends import MeterSample
from gridpivot.vocabulary import MeterTrust

GOOD_SAMPLES = 5
SHOWN_RATIO = 1.0 / 3.0  # of a proven step: so much on the meter since the command, and the meter has shown it
MEMORY_S = 600.0  # longer than any family takes to prove a move


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the devices behind the meter make possible [W]."""

    least_w: float
    most_w: float


class MeterWatch:
    """Verdict over one meter's samples."""

    def __init__(self, fresh_s: float, dead_s: float, step_w: float) -> None:
        """`step_w`: a proven change above this must show on the meter within `dead_s` seconds."""
        self._fresh_s, self._dead_s, self._step_w = fresh_s, dead_s, step_w
        self._last: MeterSample | None = None
        self._values: deque[tuple[float, float]] = deque()  # (since, value), one entry a change
        self._value_since_s = float("-inf")
        self._proven_step_w = 0.0
        self._good = 0
        self._verdict = MeterTrust.ABSENT
        self._fault = MeterTrust.ABSENT

    def proven_change(self, watts: float, sent_at_s: float) -> None:
        """Devices have shown that `watts` moved (either way, positive) after a command of `sent_at_s`.

        Proofs may come after the meter has moved: what it has shown since the command is not held against it.
        """
        if self._last is None:
            return
        before_w = next((w for since_s, w in reversed(self._values) if since_s <= sent_at_s), self._values[0][1])
        if abs(self._last.power_w - before_w) < SHOWN_RATIO * watts:
            self._proven_step_w += watts

    def judge(self, sample: MeterSample | None, envelope: Envelope, now_s: float) -> MeterTrust:
        """Verdict at this tick."""
        fault = self._fault_of(sample, envelope, now_s)
        fresh = sample is not None and (self._last is None or sample.read_at_s > self._last.read_at_s)
        if sample is not None and fresh:
            if self._last is None or sample.power_w != self._last.power_w:
                self._value_since_s, self._proven_step_w = now_s, 0.0
                self._values.append((now_s, sample.power_w))
                while len(self._values) > 2 and self._values[1][0] < now_s - MEMORY_S:
                    self._values.popleft()
            self._last = sample
        if fault is not None:
            self._good, self._verdict, self._fault = 0, fault, fault
            return fault
        if self._verdict is not MeterTrust.TRUSTED:
            self._good += fresh
            first_ever = self._fault is MeterTrust.ABSENT
            if self._good >= (2 if first_ever else GOOD_SAMPLES):
                self._verdict = MeterTrust.TRUSTED
            else:
                return self._fault
        return self._verdict

    def _fault_of(self, sample: MeterSample | None, envelope: Envelope, now_s: float) -> MeterTrust | None:
        if sample is None:
            return MeterTrust.ABSENT
        if now_s - sample.read_at_s > self._fresh_s:
            return MeterTrust.STALE
        if sample.power_w < 0.0:
            return MeterTrust.REVERSED
        same = self._last is not None and sample.power_w == self._last.power_w
        if same and self._proven_step_w > self._step_w and now_s - self._value_since_s > self._dead_s + self._fresh_s:
            return MeterTrust.FROZEN  # says more than what follows from it
        if not envelope.least_w <= sample.power_w <= envelope.most_w:
            return MeterTrust.OUTSIDE_ENVELOPE
        return None
