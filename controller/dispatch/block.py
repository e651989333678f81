"""One model in one HiGHS object: brought up to the moment, started from a known basis, checked before it speaks.

Every run starts from a basis that can be written down (`basis`, or cold) and from nothing else that the solver may
remember, so that the same state and the same basis give the same answer, bit for bit, in any process. It costs
nothing: runs that keep the solver's memory are no faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from controller.dispatch.arrays import Floats, Ints, Numbers
from controller.dispatch.inputs import FleetState
from controller.dispatch.model import Layout, lay_out, numbers_of, shape_key
from controller.dispatch.parameters import Parameters

TOLERANCE = 1e-6  # MW, or thousand machines: a watt
OPTIONS: tuple[tuple[str, bool | int | float | str], ...] = (
    ("output_flag", False),
    ("threads", 1),
    # A site's model is small: presolve more than doubles the time of a cold solve and saves nothing warm.
    ("presolve", "off"),
    ("primal_feasibility_tolerance", 1e-7),
)
STATUSES = tuple(highspy.HighsBasisStatus(code) for code in range(5))
LOWER, BASIC, UPPER, ZERO = (
    int(status)
    for status in (
        highspy.HighsBasisStatus.kLower,
        highspy.HighsBasisStatus.kBasic,
        highspy.HighsBasisStatus.kUpper,
        highspy.HighsBasisStatus.kZero,
    )
)


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """One optimal solution: columns, duals, cost [USD over the horizon] and the worst breach of a constraint."""

    x: Floats
    column_dual: Floats
    row_dual: Floats
    row_value: Floats
    objective_usd: float
    primal_infeasibility: float


class Block:
    """Sites that share constraints, solved together."""

    def __init__(self, parameters: Parameters, period_s: Sequence[float], floor: bool) -> None:
        self._parameters, self._period_s, self._floor = parameters, tuple(period_s), floor
        self._key: tuple[object, ...] | None = None
        self._highs: Any = highspy.Highs()  # type: ignore[no-untyped-call]
        for option, value in OPTIONS:
            self._highs.setOptionValue(option, value)
        self.basis = b""  # what the next run starts from: status codes of columns then rows; empty = cold
        self.layout: Layout | None = None
        self.numbers: Numbers | None = None
        self.ended = ""  # how the newest run ended, in the solver's words

    def load(self, fleet: FleetState) -> tuple[Layout, Numbers]:
        """Bring the model up to this moment; a basis of another size is forgotten."""
        key = shape_key(fleet, self._floor)
        if self.layout is not None and self.numbers is not None and key == self._key:
            now = numbers_of(self.layout, fleet, self._parameters)
            self._change(self.numbers, now)
            self.numbers = now
            return self.layout, now
        old, layout = self.layout, lay_out(fleet, self._period_s, self._floor)
        now = numbers_of(layout, fleet, self._parameters)
        self._key = None  # until the new model is whole
        pass_model(self._highs, layout, now)
        if old is not None and (old.matrix.columns, old.matrix.rows) != (layout.matrix.columns, layout.matrix.rows):
            self.basis = b""
        self._key, self.layout, self.numbers = key, layout, now
        return layout, now

    def _change(self, old: Numbers, new: Numbers) -> None:
        """Pass on only what moved."""
        at = _where(old.cost != new.cost)
        if at.size:
            self._highs.changeColsCost(at.size, at, new.cost[at])
        at = _where((old.column_lower != new.column_lower) | (old.column_upper != new.column_upper))
        if at.size:
            self._highs.changeColsBounds(at.size, at, new.column_lower[at], new.column_upper[at])
        at = _where((old.row_lower != new.row_lower) | (old.row_upper != new.row_upper))
        if at.size:
            self._highs.changeRowsBounds(at.size, at, new.row_lower[at], new.row_upper[at])

    def run(self, time_limit_s: float) -> Solution | None:
        """Solve what is loaded; None unless optimal and, by our own arithmetic, inside every bound and row.

        The basis that it ended on becomes the next run's start; a run that failed leaves it as it was.
        """
        assert self.layout is not None and self.numbers is not None
        if time_limit_s <= 0:
            self.ended = "Time limit reached before it began"
            return None
        self._highs.clearSolver()
        if self.basis:
            self._highs.setBasis(_read_basis(self.basis, self.layout.matrix.columns))
        # HiGHS counts its limit from the object's first run on.
        self._highs.setOptionValue("time_limit", self._highs.getRunTime() + time_limit_s)
        self._highs.run()
        status = self._highs.getModelStatus()
        self.ended = str(self._highs.modelStatusToString(status))
        if status != highspy.HighsModelStatus.kOptimal:
            return None
        found = self._highs.getSolution()
        x = np.asarray(found.col_value)
        row_value = self.layout.matrix.activity(x)
        worst = violation(self.numbers, x, row_value)
        if not worst <= TOLERANCE:
            self.ended = f"optimal, but {worst:.1e} outside a constraint"
            return None
        row_dual = np.asarray(found.row_dual)
        self.basis = _written_basis(np.asarray(self._highs.getBasicVariables()[1]), self.numbers, x, row_dual)
        return Solution(
            x=x,
            column_dual=np.asarray(found.col_dual),
            row_dual=row_dual,
            row_value=row_value,
            # A dot product would wake BLAS threads.
            objective_usd=float((self.numbers.cost * x).sum()) + self.numbers.offset_usd,
            primal_infeasibility=worst,
        )


def _written_basis(basic: Ints, now: Numbers, x: Floats, row_dual: Floats) -> bytes:
    """A basis as bytes from its basic variables (columns as they are, rows as -1 - row) and where the others stand.

    Written from arrays: asking the solver for its own statuses, one object each, took longer than solving.
    """
    columns = np.where(x >= now.column_upper, UPPER, LOWER).astype(np.uint8)
    columns[~np.isfinite(now.column_lower) & ~np.isfinite(now.column_upper)] = ZERO
    below, above = np.isfinite(now.row_lower), np.isfinite(now.row_upper)
    rows = np.where(below & (~above | (row_dual > 0)), LOWER, np.where(above, UPPER, ZERO)).astype(np.uint8)
    columns[basic[basic >= 0]] = BASIC
    rows[-1 - basic[basic < 0]] = BASIC
    return columns.tobytes() + rows.tobytes()


def _read_basis(written: bytes, columns: int) -> highspy.HighsBasis:
    basis = highspy.HighsBasis()
    basis.col_status = [STATUSES[code] for code in written[:columns]]
    basis.row_status = [STATUSES[code] for code in written[columns:]]
    basis.valid = True
    return basis


def _where(moved: NDArray[np.bool_]) -> Ints:
    return np.flatnonzero(moved).astype(np.int32)


def violation(now: Numbers, x: Floats, activity: Floats) -> float:
    """Largest breach of a bound or row by `x` (MW, or thousand machines); NaN where `x` holds one."""
    breaches = (now.column_lower - x, x - now.column_upper, now.row_lower - activity, activity - now.row_upper)
    return max(0.0, *(float(b.max(initial=0.0)) for b in breaches)) if np.isfinite(x).all() else math.nan


def pass_model(highs: Any, layout: Layout, now: Numbers) -> None:
    """Give a solver a whole new model, array by array."""
    matrix = layout.matrix
    highs.passModel(
        matrix.columns, matrix.rows, len(matrix.value), int(highspy.MatrixFormat.kColwise),
        int(highspy.ObjSense.kMinimize), 0.0, now.cost, now.column_lower, now.column_upper, now.row_lower,
        now.row_upper, matrix.start, matrix.index, matrix.value, np.zeros(matrix.columns, dtype=np.int32),
    )  # fmt: skip
