"""GPU readings as the messages of a node: what stands here, what it does now, what became of limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.gpu.accounting import TAKEN
from agent.gpu.outcomes import LimitOutcome
from agent.gpu.reading import Attempt, ClockAttempt, GpuReading
from gridpivot.link.gpu_columns import encode_bits, encode_counts, encode_figures
from gridpivot.v1 import node_pb2 as pb

TOLERANCE_W = 1.0
SOURCES = {"bmc": pb.HOST_POWER_SOURCE_BMC, "pdu": pb.HOST_POWER_SOURCE_PDU}


def boards(readings: Sequence[GpuReading]) -> list[pb.NodeGpu]:
    """Every GPU in the order of first sight."""
    return [
        pb.NodeGpu(
            uuid=r.uuid,
            name=r.name,
            limit_min_w=r.limit_min_w,
            limit_max_w=r.limit_max_w,
            limit_default_w=r.limit_default_w,
        )
        for r in readings
    ]


def report(
    readings: Sequence[GpuReading],
    sequence: int,
    limits_sequence: int,
    observed_at_unix_ms: int,
    monotonic_ms: int,
    host: tuple[float, str] | None,
) -> pb.NodeReport:
    """One report; `host` is power at the wall [W] and its source, None when nothing measures it."""
    lost = [r.lost for r in readings]
    message = pb.NodeReport(
        sequence=sequence,
        observed_at_unix_ms=observed_at_unix_ms,
        monotonic_ms=monotonic_ms,
        limits_sequence=limits_sequence,
        power_w=encode_figures([r.power_w for r in readings]),
        energy_j=encode_counts([None if r.energy_j is None else round(r.energy_j) for r in readings]),
        limit_requested_w=encode_figures([r.limit_requested_w for r in readings]),
        limit_enforced_w=encode_figures([r.limit_enforced_w for r in readings]),
        util_ratio=encode_figures([r.util_ratio for r in readings]),
        temp_c=encode_figures([r.temp_c for r in readings]),
        memory_used_bytes=encode_counts([r.memory_used_bytes for r in readings]),
        memory_total_bytes=encode_counts([r.memory_total_bytes for r in readings]),
        sm_clock_hz=encode_figures([r.sm_clock_hz for r in readings]),
        memory_clock_hz=encode_figures([r.memory_clock_hz for r in readings]),
        clock_event_reasons=encode_counts([r.clock_event_reasons for r in readings]),
        lost=encode_bits(lost) if any(lost) else b"",
    )
    if host is not None:
        message.host_power_w, message.host_power_source = host[0], SOURCES[host[1]]
    return message


def outcomes(
    uuids: Sequence[str],
    limit_w: Mapping[str, float],
    readings: Mapping[str, GpuReading],
    attempts: Mapping[str, Attempt],
) -> list[pb.GpuOutcome]:
    """What became of each limit that was to be held, by the newest try and by reading it back."""
    found = []
    for row, uuid in enumerate(uuids):
        wanted_w = limit_w.get(uuid)
        if wanted_w is None:
            continue
        reading, attempt = readings.get(uuid), attempts.get(uuid)
        stands_w = None if reading is None else reading.limit_requested_w
        if reading is None or reading.lost:
            outcome, detail = LimitOutcome.LOST, ""
        elif attempt is not None and attempt.limit_w == wanted_w:
            outcome, detail = attempt.outcome, attempt.detail
        elif stands_w is not None and abs(stands_w - wanted_w) < TOLERANCE_W:
            outcome, detail = LimitOutcome.UNCHANGED, ""
        else:
            outcome, detail = LimitOutcome.UNVERIFIED, "not tried yet"
        found.append(pb.GpuOutcome(row=row, outcome=outcome.value, detail=detail[:200]))
    return found


def with_clocks(
    told: list[pb.GpuOutcome], uuids: Sequence[str], locks: Mapping[str, ClockAttempt]
) -> list[pb.GpuOutcome]:
    """The same with a word for each clock lock that was not taken."""
    by_row = {one.row: one for one in told}
    for row, uuid in enumerate(uuids):
        lock = locks.get(uuid)
        if lock is None or lock.outcome in TAKEN:
            continue
        one = by_row.setdefault(row, pb.GpuOutcome(row=row, outcome=LimitOutcome.UNCHANGED.value))
        one.clock_outcome = lock.outcome.value
        one.detail = one.detail or lock.detail[:200]
    return [by_row[row] for row in sorted(by_row)]
