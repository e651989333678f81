"""The energy ledger of a site: whole joules from the meter's own counter, split by load. Pure.

In: counter readings with their monotonic time, and powers by load. Out: totals that only grow. What the counter tells is
booked to the joule, over gaps, roll-over, reset and exchange; what it cannot tell is estimated apart (`unmetered_j`)
and never mixed in. A reading that does not continue the last one has to be repeated before it is believed, so that one
bad answer costs nothing. mining_j + ai_j + overhead_j + unattributed_j = import_j, always.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

CONFIRMING_READINGS = 3
LAG_S = 5.0  # most that the age of a counter's value changes between two readings
UPDATE_S = 900.0  # the counter of a first reading may have stood this long: slow meters count by the quarter hour
HIGHEST_J = 2**63 - 1  # what the controller's database holds


class CounterChange(StrEnum):
    """What became of a counter that did not simply go on."""

    ROLLED_OVER = "rolled_over"
    RESET = "reset"  # to zero, or near it
    EXCHANGED = "exchanged"  # a jump beyond what the site can have drawn
    AMBIGUOUS = "ambiguous"  # it may have rolled over more often than it shows
    RUNAWAY = "runaway"  # reading after reading runs ahead of what the site can draw: a wrong unit or register


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a counter stands: its value [J], the last reading that showed an earlier one, the last that showed this one.

    Time is counted from the earlier one: a counter may have moved any time after it.
    """

    counter_j: int
    since_s: float
    seen_s: float

    def moved(self, counter_j: int, at_s: float) -> Standing:
        """After another reading."""
        same = counter_j == self.counter_j
        return Standing(counter_j, self.since_s if same else self.seen_s, at_s)


@dataclass(frozen=True, slots=True)
class Counter:
    """What is known of a meter's import counter: joules per count, where it rolls over [J, None = never], the most that
    the site can draw [W], and which register of which meter it is: another one is another counter."""

    unit_j: int = 1
    modulus_j: int | None = None
    most_w: float = 1e9
    register: str = ""

    def most_j(self, since_s: float, at_s: float) -> float:
        """Most that can have been counted between two readings [J]."""
        return self.most_w * (max(0.0, at_s - since_s) + LAG_S) + 2 * self.unit_j

    def gained_j(self, standing: Standing, counter_j: int, most_j: float) -> int | None:
        """Joules counted since, over a roll-over too; None when it went back, or on by more than `most_j`."""
        gained_j = counter_j - standing.counter_j
        if self.modulus_j is not None:
            gained_j %= self.modulus_j
        return gained_j if 0 <= gained_j <= most_j else None


@dataclass(frozen=True, slots=True)
class Totals:
    """Energy since the ledger began [J]."""

    import_j: int = 0
    mining_j: int = 0
    ai_j: int = 0
    overhead_j: int = 0
    unattributed_j: int = 0
    unmetered_j: int = 0
    counter_changes: int = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """Energy by load that is not booked yet [J]."""

    mining_j: float = 0.0
    ai_j: float = 0.0
    overhead_j: float = 0.0

    @property
    def sum_j(self) -> float:
        """All of it."""
        return self.mining_j + self.ai_j + self.overhead_j

    def plus(self, other: Parts, weight: float = 1.0) -> Parts:
        """This and a share of another."""
        return Parts(
            self.mining_j + weight * other.mining_j,
            self.ai_j + weight * other.ai_j,
            self.overhead_j + weight * other.overhead_j,
        )


@dataclass(frozen=True, slots=True)
class Doubt:
    """Readings that do not continue the last believed one, and what had run up by load before the first of them."""

    first_j: int
    first_most_j: float  # what the site can have drawn until then
    standing: Standing
    readings: int
    gained_j: int
    before: Parts


@dataclass(frozen=True, slots=True)
class Ledger:
    """One site's ledger between readings."""

    totals: Totals = field(default_factory=Totals)
    base: Standing | None = None
    parts: Parts = field(default_factory=Parts)
    dark_j: float = 0.0  # what the site may have drawn while no agent ran, since the last booking; for estimates only
    doubt: Doubt | None = None
    astray: int = 0  # readings in a row that continue nothing

    @property
    def waiting(self) -> Parts:
        """Energy by load since the last booking."""
        return self.parts if self.doubt is None else self.parts.plus(self.doubt.before)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to the counter, and what is not in the totals because of it [J]."""

    what: CounterChange
    unmetered_j: int = 0


def accrue(ledger: Ledger, mining_w: float, ai_w: float, overhead_w: float, elapsed_s: float) -> Ledger:
    """Powers by load held for a time; what is not a finite positive figure counts as nothing."""
    watts = [w if math.isfinite(w) and w > 0 else 0.0 for w in (mining_w, ai_w, overhead_w)]
    if not math.isfinite(elapsed_s) or elapsed_s <= 0:
        return ledger
    return replace(ledger, parts=ledger.parts.plus(Parts(*watts), elapsed_s))


def resume(ledger: Ledger, shift_s: float, dark_j: float) -> Ledger:
    """A ledger from the disk on this run's clock: times move by `shift_s`; `dark_j` is what the site may have drawn while
    no agent ran. It stays unattributed where the counter covers it, and is an estimate where the counter does not."""

    def shifted(standing: Standing) -> Standing:
        return Standing(standing.counter_j, standing.since_s + shift_s, standing.seen_s + shift_s)

    base = None if ledger.base is None else shifted(ledger.base)
    doubt = None if ledger.doubt is None else replace(ledger.doubt, standing=shifted(ledger.doubt.standing))
    return replace(ledger, base=base, doubt=doubt, dark_j=ledger.dark_j + max(0.0, dark_j))


def rebase(ledger: Ledger) -> tuple[Ledger, Change | None]:
    """Another meter, by its settings: its first reading is the new base, what ran up meanwhile is an estimate."""
    if ledger.base is None:
        return ledger, None
    lost_j = round(ledger.waiting.sum_j + ledger.dark_j)
    return Ledger(_changed(ledger.totals, lost_j)), Change(CounterChange.EXCHANGED, lost_j)


def take(ledger: Ledger, counter_j: int, at_s: float, counter: Counter) -> tuple[Ledger, Change | None]:
    """The ledger after one reading of the counter, and what was unusual about it."""
    base, doubt = ledger.base, ledger.doubt
    if base is None:
        return replace(ledger, base=Standing(counter_j, at_s - UPDATE_S, at_s), parts=Parts(), dark_j=0.0), None
    if at_s <= (base.seen_s if doubt is None else doubt.standing.seen_s):
        return ledger, None  # the same sample again, or one from before
    most_j = counter.most_j(base.since_s, at_s)
    more_j = None
    if doubt is not None:
        more_j = counter.gained_j(doubt.standing, counter_j, counter.most_j(doubt.standing.since_s, at_s))
        if more_j is not None:  # what was too far from the last believed reading does not come nearer by waiting
            most_j = doubt.first_most_j + doubt.gained_j + more_j
    gained_j = counter.gained_j(base, counter_j, most_j)
    if gained_j is not None:
        return _go_on(ledger, base, counter_j, gained_j, at_s, counter)
    if doubt is None or more_j is None:
        standing = Standing(counter_j, base.seen_s, at_s)
        fresh = Doubt(counter_j, counter.most_j(base.since_s, at_s), standing, 1, 0, ledger.waiting)
        astray = ledger.astray + 1
        told = Change(CounterChange.RUNAWAY) if astray == 2 * CONFIRMING_READINGS else None
        return replace(ledger, parts=Parts(), doubt=fresh, astray=astray), told
    doubt = replace(
        doubt,
        standing=doubt.standing.moved(counter_j, at_s),
        readings=doubt.readings + 1,
        gained_j=doubt.gained_j + more_j,
    )
    if doubt.readings < CONFIRMING_READINGS or not doubt.gained_j:
        return replace(ledger, doubt=doubt), None  # a meter that starts shows zeros: a counter is one that counts
    return _believe(ledger, base, doubt)


def _go_on(
    ledger: Ledger, base: Standing, counter_j: int, gained_j: int, at_s: float, counter: Counter
) -> tuple[Ledger, Change | None]:
    """A reading that continues the last believed one, over a roll-over too."""
    waiting = ledger.waiting
    after = Ledger(ledger.totals, base.moved(counter_j, at_s), waiting, ledger.dark_j)
    if gained_j == 0:
        return after, None
    totals, rest = _book(ledger.totals, gained_j, waiting)
    after = replace(after, totals=totals, parts=rest, dark_j=0.0)
    modulus_j, rolled = counter.modulus_j, counter_j < base.counter_j
    if modulus_j is not None and gained_j + modulus_j <= counter.most_j(base.since_s, at_s):
        turns = max(0, round((waiting.sum_j + ledger.dark_j - gained_j) / modulus_j))
        if turns:  # a long gap hides whole turns of the counter, as the loads tell
            lost_j = turns * modulus_j
            return replace(after, totals=_changed(totals, lost_j)), Change(CounterChange.AMBIGUOUS, lost_j)
    if rolled:
        return replace(after, totals=_changed(totals, 0)), Change(CounterChange.ROLLED_OVER)
    return after, None


def _believe(ledger: Ledger, base: Standing, doubt: Doubt) -> tuple[Ledger, Change]:
    """The new figures are the meter's: counted from zero where that is possible, else from the first of them."""
    reset = doubt.first_j < base.counter_j and doubt.first_j <= doubt.first_most_j
    from_zero_j = doubt.first_j if reset else 0
    before_j = doubt.before.sum_j + ledger.dark_j
    lost_j = max(0, round(before_j) - from_zero_j)
    seen = min(1.0, from_zero_j / before_j) if before_j > 0 else 0.0
    totals, rest = _book(ledger.totals, from_zero_j + doubt.gained_j, ledger.parts.plus(doubt.before, seen))
    what = CounterChange.RESET if reset else CounterChange.EXCHANGED
    return Ledger(_changed(totals, lost_j), doubt.standing, rest), Change(what, lost_j)


def _changed(totals: Totals, lost_j: int) -> Totals:
    return replace(totals, unmetered_j=totals.unmetered_j + lost_j, counter_changes=totals.counter_changes + 1)


def _book(totals: Totals, gained_j: int, parts: Parts) -> tuple[Totals, Parts]:
    """Whole joules of each load; what is left of the gain is unattributed, fractions are carried on."""
    mining_j, ai_j, overhead_j = math.floor(parts.mining_j), math.floor(parts.ai_j), math.floor(parts.overhead_j)
    booked = replace(
        totals,
        import_j=totals.import_j + gained_j,
        mining_j=totals.mining_j + mining_j,
        ai_j=totals.ai_j + ai_j,
        overhead_j=totals.overhead_j + overhead_j,
        unattributed_j=totals.unattributed_j + gained_j - mining_j - ai_j - overhead_j,
    )
    return booked, Parts(parts.mining_j - mining_j, parts.ai_j - ai_j, parts.overhead_j - overhead_j)
