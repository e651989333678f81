"""How what we hold in Slurm says that it is ours: reasons of drains, names of reservations, comments of jobs. Pure.

A mark is `gridpivot:ORDER:UNTIL:PARTITION`, UNTIL in Unix seconds. Only a text of exactly that shape is ours: an admin
who writes "gridpivot is broken" as a reason keeps the node.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.ai.work import OWNER
from agent.ai.workload import Order, WorkloadRefused
from gridpivot.vocabulary import LeverOutcome

HOLD = "hold"
ADMISSION = "admission"

_WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_MARK = re.compile(rf"{OWNER}:({_WORD}):([0-9]{{1,12}}):({_WORD})")
_RESERVATION = re.compile(rf"{OWNER}:({_WORD}):({_WORD}):({HOLD}|{ADMISSION})")
_NOTE = re.compile(rf"({_MARK.pattern}) not before ([0-9]{{1,12}})(?: \| (.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose order holds something, until when at most [Unix s], for which partition's pool."""

    order_id: str
    until_unix_s: int
    partition: str

    def __str__(self) -> str:
        return f"{OWNER}:{self.order_id}:{self.until_unix_s}:{self.partition}"


@dataclass(frozen=True, slots=True)
class JobNote:
    """A job's AdminComment while we hold it: the mark, when Slurm lets it start again at the earliest, and what stood
    there before."""

    mark: Mark
    earliest_unix_s: int
    before: str = ""

    def __str__(self) -> str:
        text = f"{self.mark} not before {self.earliest_unix_s}"
        return f"{text} | {self.before}" if self.before else text


def mark_of(order: Order, partition: str) -> Mark:
    """An order's mark; raises WorkloadRefused for an id that cannot stand in a Slurm name."""
    if re.fullmatch(_WORD, order.order_id) is None:
        raise WorkloadRefused(
            LeverOutcome.FAILED,
            f"order {order.order_id!r} cannot stand in a Slurm name: use letters, digits, '_', '.', '-', 64 at most",
        )
    return Mark(order.order_id, math.ceil(order.until_unix_s), partition)


def read_mark(text: str) -> Mark | None:
    """The mark in a drain's reason, None when it is not ours."""
    found = _MARK.fullmatch(text)
    return None if found is None else Mark(found[1], int(found[2]), found[3])


def read_note(text: str) -> JobNote | None:
    """The note in a job's AdminComment, None when it is not ours."""
    found = _NOTE.fullmatch(text)
    if found is None:
        return None
    return JobNote(Mark(found[2], int(found[3]), found[4]), int(found[5]), found[6] or "")


def reservation_name(order_id: str, partition: str, kind: str) -> str:
    """Name of an order's reservation; `kind` is HOLD or ADMISSION."""
    return f"{OWNER}:{order_id}:{partition}:{kind}"


@dataclass(frozen=True, slots=True)
class OurReservation:
    """What a reservation's name says when it is ours."""

    order_id: str
    partition: str
    kind: str


def read_reservation_name(name: str) -> OurReservation | None:
    """Order, partition and kind of a reservation of ours, None for another's."""
    found = _RESERVATION.fullmatch(name)
    return None if found is None else OurReservation(found[1], found[2], found[3])


def clock(unix_s: float) -> str:
    """A time as Slurm's tools read it; they run with TZ=UTC here."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
