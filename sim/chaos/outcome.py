"""What a fault did: one line a scenario, the bars over all of them, the table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

DETECTION_BAR_S = 15.0
RECONNECT_BAR_S = 10.0
MEMORY_BAR_MB = 50.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One scenario. None = does not apply, or could not be known."""

    scenario: str
    ok: bool
    saw: str  # what the operator saw: event, metric, log line
    how: str  # processes, proxy, virtual time
    acked_lost: int | None = None
    ledger_gap_j: int | None = None
    ceiling_excess_pct: float | None = None
    protection_reached: int | None = None
    commands_without_record: int | None = None
    detection_s: float | None = None
    recovery_s: float | None = None
    recovery_bar_s: float | None = None
    memory_growth_mb: float | None = None
    note: str = ""
    took_s: float = 0.0


def broken(o: Outcome) -> list[str]:
    """What must never be, whatever the machine: everything but the bars on time."""
    found = [] if o.ok else [f"{o.scenario}: {o.note or 'not ok'}"]
    if o.acked_lost:
        found.append(f"{o.scenario}: {o.acked_lost} acknowledged records lost")
    if o.ledger_gap_j is not None and abs(o.ledger_gap_j) > 1:
        found.append(f"{o.scenario}: ledger off by {o.ledger_gap_j} J")
    if o.commands_without_record:
        found.append(f"{o.scenario}: {o.commands_without_record} commands without a record")
    if o.protection_reached:
        found.append(f"{o.scenario}: protection limit reached")
    return found


def summary(outcomes: Sequence[Outcome], short: bool) -> dict[str, Any]:
    """The last line: bars, and every scenario."""
    misses = [fault for o in outcomes for fault in broken(o)]
    for o in outcomes:
        if o.detection_s is not None and o.detection_s > DETECTION_BAR_S:
            misses.append(f"{o.scenario}: detected after {o.detection_s:.1f} s, at most {DETECTION_BAR_S:g}")
        if o.recovery_bar_s is not None and o.recovery_s is not None and o.recovery_s > o.recovery_bar_s:
            misses.append(f"{o.scenario}: back after {o.recovery_s:.1f} s, at most {o.recovery_bar_s:g}")
        if o.memory_growth_mb is not None and o.memory_growth_mb > MEMORY_BAR_MB:
            misses.append(f"{o.scenario}: memory grew by {o.memory_growth_mb:.0f} MB, at most {MEMORY_BAR_MB:g}")
    known = [o.acked_lost for o in outcomes if o.acked_lost is not None]
    return {
        "schema_version": 1,
        "short": short,
        "scenarios": len(outcomes),
        "ok": not misses,
        "acked_lost": sum(known),
        "detection_max_s": _most(o.detection_s for o in outcomes),
        "recovery_max_s": _most(o.recovery_s for o in outcomes),
        "memory_growth_max_mb": _most(o.memory_growth_mb for o in outcomes),
        "misses": misses,
        "outcomes": [asdict(o) for o in outcomes],
    }


def _most(values: Any) -> float | None:
    known = [v for v in values if v is not None]
    return round(max(known), 2) if known else None


def table(outcomes: Sequence[Outcome]) -> Table:
    """For people."""
    shown = Table(box=None)
    for column in ("scenario", "ok", "lost", "ledger J", "excess %", "found s", "back s", "MB", "operator saw", "how"):
        shown.add_column(column)
    for o in outcomes:
        shown.add_row(
            o.scenario,
            "yes" if o.ok else "NO",
            _text(o.acked_lost),
            _text(o.ledger_gap_j),
            _text(o.ceiling_excess_pct, 2),
            _text(o.detection_s, 1),
            _text(o.recovery_s, 1),
            _text(o.memory_growth_mb, 1),
            escape(o.saw if o.ok else f"{o.note} | {o.saw}"),
            o.how,
        )
    return shown


def _text(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"
