"""How far one lane of one boot of one site is committed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Device tables are sent newest first, so gaps are normal there; beyond this many separate records the oldest gap is
# let go. In the other lanes a gap is backlog that still waits at the site: letting go would acknowledge it unsent.
ALSO_MAX = 2_000


@dataclass(frozen=True, slots=True)
class LaneCursor:
    """Everything up to `through_seq` is committed or let go; `also_seqs` (ascending) above it are committed too."""

    through_seq: int = 0
    also_seqs: tuple[int, ...] = ()

    def holds(self, seq: int) -> bool:
        """Whether this record needs no sending."""
        return seq <= self.through_seq or seq in self.also_seqs

    def after(self, seqs: Iterable[int], *, may_let_go: bool = False) -> LaneCursor:
        """The cursor once these records are committed; `may_let_go` is for the device lane alone."""
        above = sorted({s for s in seqs if s > self.through_seq}.union(self.also_seqs))
        through, taken = _climb(self.through_seq, above)
        if may_let_go and len(above) - taken > ALSO_MAX:
            taken = len(above) - ALSO_MAX
            through, more = _climb(above[taken - 1], above[taken:])
            taken += more
        return LaneCursor(through, tuple(above[taken:]))

    def let_go_below(self, first_seq: int) -> tuple[LaneCursor, int]:
        """The cursor once the site no longer holds records before `first_seq`, and how many of them never came."""
        if first_seq - 1 <= self.through_seq:
            return self, 0
        kept = tuple(s for s in self.also_seqs if s >= first_seq)
        came = len(self.also_seqs) - len(kept)
        lost = first_seq - 1 - self.through_seq - came
        return LaneCursor(first_seq - 1, kept).after(()), lost


def _climb(through: int, above: list[int]) -> tuple[int, int]:
    """Highest contiguous number from `through`, and how many of `above` it swallowed."""
    taken = 0
    while taken < len(above) and above[taken] == through + 1:
        through += 1
        taken += 1
    return through, taken
