"""What the GPU guard may do, and when: leases on GPU limits that fall back when nobody renews them. Pure.

In: requests of the agent, GPU readings, monotonic time. Out: limits to enforce. A limit is good for its lease; after it
each GPU is held at its fallback, never above what is enforced then, never at the board's default. Fallbacks come
from the signed plan; they are kept on the disk before a lease counts, so that a guard that was killed still knows them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.durable import replace_file, set_aside
from agent.gpu.outcomes import LimitOutcome
from agent.gpu.reading import Attempt, ClockAttempt, GpuReading
from gridpivot.errors import Refused

MOST_LINE_BYTES = 256 * 1024
MOST_GPUS = 256
TOLERANCE_W = 0.5
FILE = "fallbacks.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GpuWish(_Strict):
    """Limit and fallback of one GPU board [W], its highest clock [MHz, 0 = let it go]; None leaves as it is."""

    limit_w: float | None = Field(default=None, gt=0, le=5000, allow_inf_nan=False)
    fallback_w: float = Field(gt=0, le=5000, allow_inf_nan=False)
    clock_max_mhz: int | None = Field(default=None, ge=0, le=10_000)


class GuardRequest(_Strict):
    """One line to the guard: it renews the leases of the GPUs named, for so long [s]."""

    lease_s: float = Field(ge=1, le=120, allow_inf_nan=False)
    gpus: dict[str, GpuWish] = Field(max_length=MOST_GPUS)


class GpuAnswer(_Strict):
    """What became of one GPU's limit."""

    limit_w: float
    outcome: LimitOutcome
    detail: str = ""


class ClockAnswer(_Strict):
    """What became of one GPU's clock lock."""

    mhz: int
    outcome: LimitOutcome
    detail: str = ""


class GuardAnswer(_Strict):
    """One line back: an error and nothing was changed, or what became of each limit and lock that was tried."""

    error: str = ""
    gpus: dict[str, GpuAnswer] = Field(default_factory=dict)
    clocks: dict[str, ClockAnswer] = Field(default_factory=dict)

    def line(self) -> bytes:
        """As it goes over the socket; an agent that knows of no clocks has asked for none, and hears of none."""
        return self.model_dump_json(exclude=None if self.clocks else {"clocks"}).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Lease:
    """A GPU's fallback [W], the limit asked for [W], and until when it holds [monotonic s]."""

    fallback_w: float
    limit_w: float | None
    ends_s: float


def parse(line: bytes) -> GuardRequest:
    """A request; raises Refused with one line that says what is wrong."""
    try:
        return GuardRequest.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "request"
        raise Refused(f"{where}: {first['msg']}") from None


def check(request: GuardRequest, readings: Mapping[str, GpuReading]) -> None:
    """Raise Refused unless every GPU is known and every limit lies in its board's range. Nothing of it is taken then."""
    for uuid, wish in request.gpus.items():
        reading = readings.get(uuid)
        if reading is None:
            raise Refused(f"{uuid}: no such GPU here")
        if reading.limit_min_w is None or reading.limit_max_w is None:
            raise Refused(f"{uuid}: tells no range of limits, so none can be set")
        for name, watts in (("limit_w", wish.limit_w), ("fallback_w", wish.fallback_w)):
            if watts is not None and not reading.limit_min_w <= watts <= reading.limit_max_w:
                span = f"{reading.limit_min_w:.0f}-{reading.limit_max_w:.0f} W"
                raise Refused(f"{uuid}: {name} of {watts:g} W is outside {span}")
        least_mhz, most_mhz = reading.clock_min_mhz, reading.clock_max_mhz
        known = least_mhz is not None and most_mhz is not None  # a board that tells none refuses by itself
        if wish.clock_max_mhz and known and not (least_mhz or 0) <= wish.clock_max_mhz <= (most_mhz or 0):
            span = f"{least_mhz}-{most_mhz} MHz"
            raise Refused(f"{uuid}: clock_max_mhz of {wish.clock_max_mhz} MHz is outside {span}")


def renewed(leases: Mapping[str, Lease], request: GuardRequest, now_s: float) -> dict[str, Lease]:
    """Leases after a request. A wish without a limit keeps the one that a live lease holds."""
    after = dict(leases)
    for uuid, wish in request.gpus.items():
        before = leases.get(uuid)
        held_w = before.limit_w if before is not None and before.ends_s > now_s else None
        limit_w = wish.limit_w if wish.limit_w is not None else held_w
        after[uuid] = Lease(wish.fallback_w, limit_w, now_s + request.lease_s)
    return after


def due(leases: Mapping[str, Lease], readings: Mapping[str, GpuReading], now_s: float) -> dict[str, float]:
    """Limits to enforce now [W by UUID]: what live leases hold, and fallbacks where that lowers something.

    A GPU whose present limit is not known is left alone: setting it might raise it.
    """
    limits: dict[str, float] = {}
    for uuid, lease in leases.items():
        if lease.ends_s > now_s:
            if lease.limit_w is not None:
                limits[uuid] = lease.limit_w
            continue
        reading = readings.get(uuid)
        if reading is None or reading.lost:
            continue
        stands_w = reading.limit_requested_w if reading.limit_requested_w is not None else reading.limit_enforced_w
        if stands_w is not None and stands_w > lease.fallback_w + TOLERANCE_W:
            limits[uuid] = lease.fallback_w
    return limits


def clocks_of(request: GuardRequest) -> dict[str, int]:
    """Clock locks that a request asks for [MHz by UUID, 0 = let go]. They have no lease: a lock only ever lowers power."""
    return {uuid: wish.clock_max_mhz for uuid, wish in request.gpus.items() if wish.clock_max_mhz is not None}


def answer(attempts: Mapping[str, Attempt], locks: Mapping[str, ClockAttempt]) -> GuardAnswer:
    """Attempts as they go back over the socket."""
    tried = {u: GpuAnswer(limit_w=a.limit_w, outcome=a.outcome, detail=a.detail) for u, a in attempts.items()}
    clocks = {u: ClockAnswer(mhz=a.mhz, outcome=a.outcome, detail=a.detail) for u, a in locks.items()}
    return GuardAnswer(gpus=tried, clocks=clocks)


# ---- the file of fallbacks ------------------------------------------------------------------------------------------


def keep_fallbacks(state_dir: Path, leases: Mapping[str, Lease]) -> None:
    """Fallbacks on the disk, fsynced; raises OSError. Blocks."""
    watts = {uuid: lease.fallback_w for uuid, lease in sorted(leases.items())}
    replace_file(state_dir / FILE, json.dumps({"format": 1, "fallback_w": watts}).encode())


def load_fallbacks(state_dir: Path) -> tuple[dict[str, Lease], str]:
    """Leases that have run out, with their fallbacks, and a line when the file was damaged."""
    path = state_dir / FILE
    try:
        body: Any = json.loads(path.read_bytes())
        watts = {str(uuid): float(value) for uuid, value in body["fallback_w"].items()}
        if not all(math.isfinite(value) and 0 < value <= 5000 for value in watts.values()):
            raise ValueError("watts")
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"{path}: {error.strerror or error}"
    except (ValueError, KeyError, TypeError, AttributeError):
        set_aside(path)
        return {}, f"{path}: damaged, set aside; until an agent comes no GPU has a fallback"
    return {uuid: Lease(value, None, -math.inf) for uuid, value in watts.items()}, ""
