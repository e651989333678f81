"""Columns, rows and coefficients while a model is being laid out, and the numbers of one moment. Pure bookkeeping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
INF = np.inf


class Draft:
    """A model in the making: hands out consecutive columns and rows, collects coefficients in blocks."""

    def __init__(self) -> None:
        self.column_count = 0
        self.row_count = 0
        self._blocks: list[tuple[Ints, Ints, Floats]] = []

    def columns(self, *shape: int) -> Ints:
        """New columns as an array of this shape."""
        first = self.column_count
        self.column_count += int(np.prod(shape))
        return np.arange(first, self.column_count, dtype=np.int32).reshape(shape)

    def rows(self, *shape: int) -> Ints:
        """New rows as an array of this shape."""
        first = self.row_count
        self.row_count += int(np.prod(shape))
        return np.arange(first, self.row_count, dtype=np.int32).reshape(shape)

    def add(self, rows: Ints, columns: Ints, values: Floats | float) -> None:
        """Coefficients `values` at (row, column), all three broadcast against each other; equal places add up."""
        shape = np.broadcast_shapes(rows.shape, columns.shape)
        self._blocks.append((
            np.broadcast_to(rows, shape).ravel(),
            np.broadcast_to(columns, shape).ravel(),
            np.broadcast_to(np.asarray(values, dtype=np.float64), shape).ravel(),
        ))  # fmt: skip

    def matrix(self) -> Matrix:
        """All coefficients, compressed by column; zeros left out."""
        row = np.concatenate([b[0] for b in self._blocks])
        column = np.concatenate([b[1] for b in self._blocks])
        value = np.concatenate([b[2] for b in self._blocks])
        kept = value != 0.0
        row, column, value = row[kept], column[kept], value[kept]
        order = np.lexsort((row, column))
        start = np.zeros(self.column_count + 1, dtype=np.int32)
        np.cumsum(np.bincount(column, minlength=self.column_count), out=start[1:])
        return Matrix(self.column_count, self.row_count, start, row[order].astype(np.int32), value[order])


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Coefficients compressed by column: `start` (columns + 1,), row `index` and `value` of each entry."""

    columns: int
    rows: int
    start: Ints
    index: Ints
    value: Floats

    def activity(self, x: Floats) -> Floats:
        """Each row's value at the columns' values `x` -> (rows,)."""
        weights: Floats = self.value * np.repeat(x, np.diff(self.start))
        return np.bincount(self.index, weights, self.rows).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Costs [USD], bounds and right-hand sides of one moment, and the constant that the columns' cost lacks."""

    cost: Floats
    column_lower: Floats
    column_upper: Floats
    row_lower: Floats
    row_upper: Floats
    offset_usd: float = 0.0

    @classmethod
    def empty(cls, matrix: Matrix) -> Numbers:
        """Free of charge, columns from 0 up, rows at most 0."""
        return cls(
            np.zeros(matrix.columns),
            np.zeros(matrix.columns),
            np.full(matrix.columns, INF),
            np.full(matrix.rows, -INF),
            np.zeros(matrix.rows),
        )
