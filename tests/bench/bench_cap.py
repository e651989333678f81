"""How long a power limit and a clock lock take on a real board: written with the product's own reader, read back, seen in
the drawn power and in the clock.

    make test-gpu                    every limit that was changed is put back, also after Ctrl-C

Needs an NVIDIA driver, the right to set limits (root), and a load: torch where it is installed, or whatever runs there already.
Over the NVML stand-in it needs neither and says so. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import threading
import time
from typing import Any

from bench_nvml import burn

from agent.gpu.bindings import load_bindings
from agent.gpu.clocks import RELEASED
from agent.gpu.nvml import NvmlReader
from agent.gpu.reading import GpuReading

POLL_S = 0.05
SETTLE_S = 5.0
GIVE_UP_S = 20.0
NEAR = 1.05


def draw_w(reader: NvmlReader, uuid: str) -> tuple[GpuReading, float]:
    """A reading that has power; raises SystemExit when the board tells none."""
    reading = next(r for r in reader.scan({}, time.monotonic()).readings if r.uuid == uuid)
    if reading.power_w is None:
        raise SystemExit(f"{uuid}: tells no power; another board?")
    return reading, reading.power_w


def mean_w(reader: NvmlReader, uuid: str, seconds: float) -> float:
    """Mean power over some seconds [W]."""
    watts, began_s = [], time.monotonic()
    while time.monotonic() - began_s < seconds:
        watts.append(draw_w(reader, uuid)[1])
        time.sleep(POLL_S)
    return statistics.fmean(watts)


def step(reader: NvmlReader, uuid: str, limit_w: float, falls: bool) -> dict[str, Any]:
    """Set a limit; how long until the driver enforces it, and until power is within 5 % of it."""
    before_w = mean_w(reader, uuid, 2.0)
    began_s = time.monotonic()
    attempt = reader.scan({uuid: limit_w}, began_s).attempts.get(uuid)
    written_s = time.monotonic() - began_s
    enforced_s = drawn_s = None
    while time.monotonic() - began_s < GIVE_UP_S and (enforced_s is None or (falls and drawn_s is None)):
        reading, watts = draw_w(reader, uuid)
        at_s = time.monotonic() - began_s
        if (
            enforced_s is None
            and reading.limit_enforced_w is not None
            and abs(reading.limit_enforced_w - limit_w) < 1.0
        ):
            enforced_s = at_s
        if drawn_s is None and watts <= NEAR * limit_w:
            drawn_s = at_s
        time.sleep(POLL_S)
    return {
        "limit_w": limit_w,
        "outcome": None if attempt is None else attempt.outcome.value,
        "before_w": round(before_w, 1),
        "after_w": round(mean_w(reader, uuid, SETTLE_S), 1),
        "written_ms": round(1000 * written_s, 1),
        "enforced_s": None if enforced_s is None else round(enforced_s, 2),
        "drawn_s": None if drawn_s is None else round(drawn_s, 2),
    }


def measure(reader: NvmlReader, shares: list[float]) -> dict[str, Any]:
    """Down through shares of the board's range and back; the first board."""
    board = reader.scan({}, time.monotonic()).readings[0]
    if board.limit_min_w is None or board.limit_max_w is None or board.limit_enforced_w is None:
        raise SystemExit(f"{board.name}: tells no range of limits")
    was_w = board.limit_requested_w or board.limit_enforced_w
    steps = []
    try:
        for share in shares:
            limit_w = round(board.limit_min_w + share * (board.limit_max_w - board.limit_min_w))
            steps.append(step(reader, board.uuid, float(limit_w), falls=True))
        steps.append(step(reader, board.uuid, was_w, falls=False))
    finally:
        back = reader.scan({board.uuid: was_w}, time.monotonic()).readings[0]
    return {
        "board": board.name,
        "range_w": [board.limit_min_w, board.limit_max_w],
        "steps": steps,
        "put_back": back.limit_requested_w == was_w,
    }


def lock(reader: NvmlReader, ratio: float) -> dict[str, Any]:
    """Lock the first board's clock to a share of its highest, and let it go: what NVML says, and what clock and power do."""
    board = reader.scan({}, time.monotonic()).readings[0]
    if board.clock_min_mhz is None or board.clock_max_mhz is None:
        return {"why_not": "the board tells no range of clocks"}
    mhz = max(board.clock_min_mhz, round(ratio * board.clock_max_mhz))
    before_hz, before_w = board.sm_clock_hz, mean_w(reader, board.uuid, 2.0)
    began_s, seen_s = time.monotonic(), None
    try:
        attempt = reader.scan({}, began_s, {board.uuid: mhz}).locks.get(board.uuid)
        while time.monotonic() - began_s < GIVE_UP_S and seen_s is None:
            hertz = draw_w(reader, board.uuid)[0].sm_clock_hz
            if hertz is not None and hertz <= 1.03e6 * mhz:
                seen_s = time.monotonic() - began_s
            time.sleep(POLL_S)
        after_w = mean_w(reader, board.uuid, SETTLE_S)
    finally:
        let_go = reader.scan({}, time.monotonic(), {board.uuid: RELEASED}).locks.get(board.uuid)
    return {
        "clock_mhz": mhz,
        "outcome": None if attempt is None else attempt.outcome.value,
        "let_go": None if let_go is None else let_go.outcome.value,
        "clock_before_mhz": None if before_hz is None else round(before_hz / 1e6),
        "seen_s": None if seen_s is None else round(seen_s, 2),
        "before_w": round(before_w, 1),
        "after_w": round(after_w, 1),
    }


def main() -> None:
    """Load, limits, and everything as it was."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shares", default="0.8,0.5,0.0", help="of the board's range, going down")
    options.add_argument("--clock", type=float, default=0.6, help="of the board's highest clock, for the lock")
    given = options.parse_args()
    bindings, faults = load_bindings()
    if bindings is None:
        raise SystemExit(f"no NVML bindings: {'; '.join(faults)}")
    reader = NvmlReader(bindings)
    driver = reader.open()
    stop, ready, loaded = threading.Event(), threading.Event(), False
    with contextlib.suppress(ImportError):
        import torch

        loaded = torch.cuda.is_available()
    worker = threading.Thread(target=burn, args=(stop, ready), daemon=True)
    if loaded:
        worker.start()
        ready.wait(120)
        time.sleep(SETTLE_S)
    try:
        found = measure(reader, [float(s) for s in given.shares.split(",")])
        found["lock"] = lock(reader, given.clock)
    finally:
        stop.set()
        if loaded:
            worker.join()
        reader.close()
    print(json.dumps({"bench": "cap", "driver": driver, "load": "torch" if loaded else "as found", **found}))


if __name__ == "__main__":
    main()
