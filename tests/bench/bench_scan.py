"""What one scan of eight GPUs costs through the NVML stand-in, with real bindings: every scan, and those that ask for slow figures.

`make bench-scan`. The driver's own time is not in it: a real driver takes its own (docs/gpu.md, once one was measured). Last line: JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sim.nvml.build import build
from sim.nvml.state import STATE_VARIABLE, create

BAR_MS = 10.0
GPUS, SCANS, BEAT_S = 8, 400, 1.0


def measure() -> dict[str, Any]:
    """Scans at a beat of virtual seconds, so that every fifteenth asks for the slow figures too."""
    from agent.gpu.bindings import load_bindings
    from agent.gpu.nvml import NvmlReader

    bindings, said = load_bindings()
    assert bindings is not None, said
    reader = NvmlReader(bindings)
    reader.scan({}, 0.0)
    costs_ms = []
    for number in range(1, SCANS + 1):
        began_s = time.perf_counter()
        scan = reader.scan({}, number * BEAT_S)
        costs_ms.append(1000.0 * (time.perf_counter() - began_s))
        assert len(scan.readings) == GPUS
    ranked = sorted(costs_ms)
    return {
        "gpus": GPUS,
        "scan_ms_p50": round(statistics.median(ranked), 3),
        "scan_ms_p99": round(ranked[int(0.99 * SCANS)], 3),
        "scan_ms_max": round(ranked[-1], 3),
        "bars": {"scan_ms": BAR_MS},
        "ok": ranked[int(0.99 * SCANS)] <= BAR_MS,
    }


def main() -> None:
    """The loader reads the library's path at start: so the measurement is a process of its own."""
    if STATE_VARIABLE in os.environ:
        print(json.dumps(measure()))
        return
    with tempfile.TemporaryDirectory() as place:
        library = build(Path(place))
        if library is None:
            sys.exit("no C compiler (cc or the package ziglang) here")
        create(Path(place) / "state", GPUS)
        environ = os.environ | {"LD_LIBRARY_PATH": place, STATE_VARIABLE: str(Path(place) / "state")}
        sys.exit(subprocess.run([sys.executable, __file__], env=environ, timeout=120, check=False).returncode)


if __name__ == "__main__":
    main()
