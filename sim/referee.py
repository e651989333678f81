"""The referee: what really happened at a site, from true power, never from reports.

Excess is measured against the ceiling in force; a ceiling that has just been lowered has its own grace, counted from
the order until power first is inside, during which the former ceiling is the measure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

WINDOW_S = 60.0  # averaging window of the contractual ceiling in the demo; real ones are 5-15 min
REACHED = 0.95  # of the AI power that was asked for


@dataclass(slots=True)
class Reallocation:
    """One AI step upward: asked power [W], when [s], and how long until AI drew 95 % of it [s]."""

    at_s: float
    asked_w: float
    took_s: float | None = None
    superseded: bool = False
    under_order: bool = False  # a ceiling was lowered (or went down ahead of time) while AI waited


@dataclass(slots=True)
class Findings:
    """What one site did."""

    site: str
    stock_only: bool
    reallocations: list[Reallocation] = field(default_factory=list)
    protection_limit_reached: int = 0
    excess_max_ratio: float = 0.0
    excess_max_s: float = 0.0
    window_exceeded: int = 0
    grace_s: list[float] = field(default_factory=list)
    grace_open: int = 0
    samples: int = 0

    def to_json(self) -> dict[str, Any]:
        """For the parent process."""
        return asdict(self)


class Referee:
    """Watches one site."""

    def __init__(self, site: str, ceiling_w: float, protection_w: float, *, stock_only: bool) -> None:
        self._own_ceiling_w, self._protection_w = ceiling_w, protection_w
        self.findings = Findings(site, stock_only)
        self._lowered: tuple[float, float] | None = None  # (since, ceiling)
        self._inside_since_order = False
        self._over_since_s: float | None = None
        self._tripped = False
        self._window: deque[tuple[float, float]] = deque()
        self._window_over = False
        self._open: Reallocation | None = None

    @property
    def ceiling_w(self) -> float:
        """The site's own ceiling [W]."""
        return self._own_ceiling_w

    def step(self, at_s: float, asked_w: float, before_w: float) -> None:
        """AI demand changed; only what rises by over 2 % is a reallocation."""
        if self._open is not None and self._open.took_s is None:
            self._open.superseded = True
        self._open = None
        if asked_w > 1.02 * before_w:
            pressed = self._lowered is not None and not self._inside_since_order
            self._open = Reallocation(at_s, asked_w, under_order=pressed)
            self.findings.reallocations.append(self._open)

    def order(self, at_s: float, ceiling_w: float) -> None:
        """A lower ceiling is in force from now on."""
        self._lowered, self._inside_since_order = (at_s, ceiling_w), False
        if self._open is not None and self._open.took_s is None:
            self._open.under_order = True

    def announce(self) -> None:
        """The site begins to go down for an order that it has been given notice of."""
        if self._open is not None and self._open.took_s is None:
            self._open.under_order = True

    def release(self) -> None:
        """The site's own ceiling again."""
        if self._lowered is not None and not self._inside_since_order:
            self.findings.grace_open += 1
        self._lowered = None

    def see(self, now_s: float, power_w: float, ai_w: float) -> None:
        """True power and true AI power at a moment [W]."""
        findings = self.findings
        findings.samples += 1
        if self._open is not None and self._open.took_s is None and ai_w >= REACHED * self._open.asked_w:
            self._open.took_s = now_s - self._open.at_s
        ceiling_w = self._own_ceiling_w
        if self._lowered is not None:
            since_s, lowered_w = self._lowered
            if not self._inside_since_order and power_w <= lowered_w:
                self._inside_since_order = True
                findings.grace_s.append(now_s - since_s)
            if self._inside_since_order:
                ceiling_w = lowered_w
        if power_w >= self._protection_w and not self._tripped:
            findings.protection_limit_reached += 1
        self._tripped = power_w >= self._protection_w
        self._excess(now_s, power_w / ceiling_w - 1.0)
        self._average(now_s, power_w, ceiling_w)

    def _excess(self, now_s: float, ratio: float) -> None:
        if ratio <= 0.0:
            self._over_since_s = None
            return
        if self._over_since_s is None:
            self._over_since_s = now_s
        self.findings.excess_max_ratio = max(self.findings.excess_max_ratio, ratio)
        self.findings.excess_max_s = max(self.findings.excess_max_s, now_s - self._over_since_s)

    def _average(self, now_s: float, power_w: float, ceiling_w: float) -> None:
        """Trailing average of power over ceiling, once a whole window has been seen."""
        self._window.append((now_s, power_w / ceiling_w))
        while self._window[0][0] < now_s - WINDOW_S:
            self._window.popleft()
        whole = self._window[-1][0] - self._window[0][0] >= WINDOW_S - 1.0
        over = whole and sum(r for _, r in self._window) / len(self._window) > 1.0
        if over and not self._window_over:
            self.findings.window_exceeded += 1
        self._window_over = over
