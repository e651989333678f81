"""What one scan of the real GPUs costs, and whether power and energy agree, idle and under load. Writes no limit.

Needs an NVIDIA driver; load comes from torch where it is installed. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from typing import Any

from agent.gpu.bindings import load_bindings
from agent.gpu.nvml import NvmlReader

STEP_S = 0.1


def watch(reader: NvmlReader, seconds: float) -> dict[str, Any]:
    """Scans at a steady step: cost, power, the energy counter's power over the same span."""
    costs, powers, began_s = [], [], time.monotonic()
    first = reader.scan({}, began_s).readings[0]
    last, last_s = first, began_s
    while last_s - began_s < seconds:
        time.sleep(STEP_S)
        at_s = time.perf_counter()
        last, last_s = reader.scan({}, time.monotonic()).readings[0], time.monotonic()
        costs.append(time.perf_counter() - at_s)
        powers.append(last.power_w)
    by_counter = None
    if first.energy_j is not None and last.energy_j is not None:
        by_counter = (last.energy_j - first.energy_j) / (last_s - began_s)
    known = [p for p in powers if p is not None]
    return {
        "scan_ms_p50": round(1000 * statistics.median(costs), 3),
        "scan_ms_max": round(1000 * max(costs), 3),
        "power_w_mean": round(statistics.fmean(known), 1) if known else None,
        "power_w_min_max": [round(min(known), 1), round(max(known), 1)] if known else None,
        "energy_counter_w": None if by_counter is None else round(by_counter, 1),
        "missing": sorted(name for name in type(last).__dataclass_fields__ if getattr(last, name) is None),
    }


def burn(stop: threading.Event, ready: threading.Event) -> None:
    """Matrix products until told to stop."""
    import torch

    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    ready.set()
    while not stop.is_set():
        for _ in range(50):
            a @ a
        torch.cuda.synchronize()


def main() -> None:
    """Idle, then loaded."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=10.0)
    given = options.parse_args()
    bindings, faults = load_bindings()
    if bindings is None:
        raise SystemExit(f"no NVML bindings: {'; '.join(faults)}")
    reader = NvmlReader(bindings)
    began_s = time.perf_counter()
    driver = reader.open()
    scan = reader.scan({}, time.monotonic())
    out: dict[str, Any] = {
        "bench": "nvml",
        "driver": driver,
        "open_ms": round(1000 * (time.perf_counter() - began_s), 1),
    }
    out["gpus"] = [[r.name, r.limit_min_w, r.limit_max_w, r.limit_default_w, r.limit_enforced_w] for r in scan.readings]
    out["idle"] = watch(reader, given.seconds)
    try:
        import torch

        loadable = torch.cuda.is_available()
    except ImportError:
        loadable = False
    if loadable:
        stop, ready = threading.Event(), threading.Event()
        worker = threading.Thread(target=burn, args=(stop, ready))
        worker.start()
        ready.wait(120)
        out["loaded"] = watch(reader, given.seconds)
        stop.set()
        worker.join()
        began_s, limit_w = time.monotonic(), None
        while limit_w is None and time.monotonic() - began_s < 10:
            now = reader.scan({}, time.monotonic()).readings[0]
            if now.power_w is not None and now.power_w < 0.5 * (out["loaded"]["power_w_mean"] or 0):
                limit_w = time.monotonic() - began_s
            time.sleep(0.02)
        out["half_power_seen_after_s"] = None if limit_w is None else round(limit_w, 2)
    out["calls"] = dict(reader.counts)
    reader.close()
    print(json.dumps(out))


if __name__ == "__main__":
    main()
