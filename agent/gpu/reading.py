"""What one scan of GPUs brings: readings, and what became of limits and locks that were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.gpu.outcomes import LimitOutcome

SW_POWER_CAP = 0x4  # nvmlClocksEventReasonSwPowerCap


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU now. None is unknown or not supported. Energy [J] counts since driver reload."""

    uuid: str
    name: str = ""
    power_w: float | None = None  # GPU board, not the wall; mean over 1 s since Ampere
    energy_j: float | None = None
    limit_requested_w: float | None = None
    limit_enforced_w: float | None = None
    limit_min_w: float | None = None
    limit_max_w: float | None = None
    limit_default_w: float | None = None
    util_ratio: float | None = None
    temp_c: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    throttled_by_power: bool | None = None
    lost: bool = False
    clock_event_reasons: int | None = None  # bits of nvmlClocksEventReasons
    sm_clock_hz: float | None = None
    clock_min_mhz: int | None = None  # what the board can be locked to
    clock_max_mhz: int | None = None
    memory_clock_hz: float | None = None
    ecc_corrected: int | None = None  # since the board was made
    ecc_uncorrected: int | None = None
    remapped_corrected: int | None = None  # rows of memory
    remapped_uncorrected: int | None = None
    remap_pending: bool | None = None  # a reset is due
    remap_failed: bool | None = None  # no spare rows: the board is to be exchanged
    mig: bool | None = None
    xids: Mapping[int, int] | None = None  # critical errors by number, since this process looks; None = cannot be told


@dataclass(frozen=True, slots=True)
class Attempt:
    """The newest try to set one GPU's limit and what reading it back showed."""

    limit_w: float
    outcome: LimitOutcome
    at_s: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ClockAttempt:
    """The newest try to lock one GPU's clock, or to let it go [0 MHz]. Whether it holds shows in the clock under load."""

    mhz: int
    outcome: LimitOutcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """Every known GPU in the order of first sight, the tries made in this scan, NVML calls by outcome so far."""

    readings: tuple[GpuReading, ...]
    attempts: Mapping[str, Attempt]
    calls: Mapping[str, int]
    locks: Mapping[str, ClockAttempt] = field(default_factory=dict)  # tries to lock clocks made in this scan
