"""Columns of GPU figures on the wire: None and NaN inside, a bitmap of what is known outside. Pure.

What was said to be known and is not finite, or lies outside its bounds, is refused whole: nothing of a report that
holds nonsense is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gridpivot.errors import BadReport
from gridpivot.v1 import node_pb2 as pb

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def encode_figures(values: Sequence[float | None]) -> pb.GpuFigures | None:
    """A column; None (absent) when no GPU tells it."""
    if all(value is None for value in values):
        return None
    known = b"" if None not in values else encode_bits([value is not None for value in values])
    return pb.GpuFigures(values=[0.0 if value is None else value for value in values], known=known)


def encode_counts(values: Sequence[int | None]) -> pb.GpuCounts | None:
    """A column of whole numbers; None (absent) when no GPU tells it."""
    if all(value is None for value in values):
        return None
    known = b"" if None not in values else encode_bits([value is not None for value in values])
    return pb.GpuCounts(values=[value or 0 for value in values], known=known)


def encode_bits(flags: Sequence[bool]) -> bytes:
    """Bit i % 8 of byte i / 8."""
    return np.packbits(np.array(flags, bool), bitorder="little").tobytes()


def decode_bits(name: str, packed: bytes, count: int) -> Bools:
    """Flags of `count` GPUs; raises BadReport when the bitmap is of another size."""
    if len(packed) != (count + 7) // 8:
        raise BadReport(f"{name}: a bitmap of {len(packed)} bytes for {count} GPUs")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count, bitorder="little").astype(bool)


def decode_column(name: str, column: pb.GpuFigures | pb.GpuCounts, count: int, least: float, most: float) -> Floats:
    """Values with NaN where unknown; raises BadReport for a wrong length, or a known value outside its bounds."""
    values = np.array(column.values, np.float64)
    if len(values) != count:
        raise BadReport(f"{name}: {len(values)} values for {count} GPUs")
    known = decode_bits(name, column.known, count) if column.known else np.ones(count, bool)
    absurd = known & ~((values >= least) & (values <= most))  # NaN too
    if absurd.any():
        raise BadReport(f"{name}: {values[absurd][0]:g} is outside {least:g} to {most:g}")
    values[~known] = np.nan
    return values
