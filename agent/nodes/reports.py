"""What nodes say, checked whole and turned into columns; raises BadReport and then nothing of it is taken. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent.gpu.reading import SW_POWER_CAP
from agent.settings import MOST_GPUS
from gridpivot.errors import BadReport
from gridpivot.link.gpu_columns import Bools, Floats, decode_bits, decode_column
from gridpivot.v1 import node_pb2 as pb

MOST_W = 5000.0  # of one board
MOST_HOST_W = 200_000.0
MOST_TEXT = 128
# Column of the wire -> bounds. What lies outside is nonsense, whatever the board.
BOUNDS: dict[str, tuple[float, float]] = {
    "power_w": (0.0, MOST_W),
    "energy_j": (0.0, 1e15),
    "limit_requested_w": (0.0, MOST_W),
    "limit_enforced_w": (0.0, MOST_W),
    "util_ratio": (0.0, 1.0),
    "temp_c": (-60.0, 200.0),
    "memory_used_bytes": (0.0, 1e14),
    "memory_total_bytes": (0.0, 1e14),
    "sm_clock_hz": (0.0, 1e11),
    "memory_clock_hz": (0.0, 1e11),
    "clock_event_reasons": (0.0, 2.0**53),
}


@dataclass(frozen=True, slots=True)
class Board:
    """One GPU of a node. None is not told."""

    uuid: str
    name: str
    limit_min_w: float | None
    limit_max_w: float | None
    limit_default_w: float | None


@dataclass(frozen=True, slots=True)
class NodeReading:
    """A report: columns with NaN where unknown; a column that is missing is unknown for every GPU."""

    sequence: int
    observed_at_unix_ms: int
    monotonic_ms: int
    limits_sequence: int
    lost: Bools
    columns: dict[str, Floats] = field(default_factory=dict)
    host_power_w: float | None = None
    host_power_source: str = ""

    def column(self, name: str) -> Floats:
        """A column, all NaN when it was not told."""
        found = self.columns.get(name)
        return np.full(len(self.lost), np.nan) if found is None else found

    @property
    def throttled_by_power(self) -> Bools:
        """Whether the power limit holds the clocks down; false where the board does not tell."""
        reasons = self.column("clock_event_reasons")
        capped: Bools = (np.where(np.isnan(reasons), 0.0, reasons).astype(np.int64) & SW_POWER_CAP) != 0
        return capped


def read_boards(gpus: Sequence[pb.NodeGpu]) -> tuple[Board, ...]:
    """The GPUs of a hello."""
    if not 1 <= len(gpus) <= MOST_GPUS:
        raise BadReport(f"{len(gpus)} GPUs; a node has 1 to {MOST_GPUS}")
    boards = tuple(_board(gpu) for gpu in gpus)
    if len({board.uuid for board in boards}) != len(boards):
        raise BadReport("the same GPU twice")
    return boards


def _board(gpu: pb.NodeGpu) -> Board:
    if not gpu.uuid or max(len(gpu.uuid), len(gpu.name)) > MOST_TEXT:
        raise BadReport(f"a GPU needs a uuid, and names of at most {MOST_TEXT} characters")
    watts: dict[str, float | None] = {}
    for name in ("limit_min_w", "limit_max_w", "limit_default_w"):
        value = getattr(gpu, name) if gpu.HasField(name) else None
        if value is not None and not (math.isfinite(value) and 0.0 < value <= MOST_W):
            raise BadReport(f"{gpu.uuid}: {name} of {value:g} W")
        watts[name] = value
    least, most = watts["limit_min_w"], watts["limit_max_w"]
    if least is not None and most is not None and least > most:
        raise BadReport(f"{gpu.uuid}: limits from {least:g} to {most:g} W")
    return Board(gpu.uuid, gpu.name, least, most, watts["limit_default_w"])


def read_report(report: pb.NodeReport, gpu_count: int) -> NodeReading:
    """A report over `gpu_count` GPUs."""
    lost = decode_bits("lost", report.lost, gpu_count) if report.lost else np.zeros(gpu_count, bool)
    columns = _columns({field.name: value for field, value in report.ListFields() if field.name in BOUNDS}, gpu_count)
    host_w = report.host_power_w if report.HasField("host_power_w") else None
    if host_w is not None and not (math.isfinite(host_w) and 0.0 <= host_w <= MOST_HOST_W):
        raise BadReport(f"host_power_w: {host_w:g} is outside 0 to {MOST_HOST_W:g}")
    source = SOURCES.get(report.host_power_source, "")
    if host_w is not None and not source:
        raise BadReport("host_power_w without its source")
    return NodeReading(
        report.sequence,
        report.observed_at_unix_ms,
        report.monotonic_ms,
        report.limits_sequence,
        lost,
        columns,
        host_w,
        source,
    )


def _columns(told: dict[str, Any], gpu_count: int) -> dict[str, Floats]:
    """Columns by name. All at once where every GPU tells every one, which is what healthy hosts send."""
    plain = [name for name, column in told.items() if not column.known and len(column.values) == gpu_count]
    if plain:
        table = np.array([told[name].values for name in plain], np.float64)
        least, most = (np.array([BOUNDS[name][end] for name in plain])[:, None] for end in (0, 1))
        if ((table >= least) & (table <= most)).all():  # NaN is neither
            found = dict(zip(plain, table, strict=True))
            rest = [name for name in told if name not in found]
            return found | {name: decode_column(name, told[name], gpu_count, *BOUNDS[name]) for name in rest}
    return {name: decode_column(name, column, gpu_count, *BOUNDS[name]) for name, column in told.items()}


SOURCES: dict[int, str] = {pb.HOST_POWER_SOURCE_BMC: "bmc", pb.HOST_POWER_SOURCE_PDU: "pdu"}
