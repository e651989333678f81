"""GPUs of the wire site: a stand-in NVML library, its state file, and their true power.

The agent beside it loads the library through its environment and knows nothing else. Wall power is what the GPUs draw
and the host's share, which NVML does not see.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from gridpivot.curves import AiPool, gpu_pool
from gridpivot.vocabulary import AiPriority
from sim.nvml.build import build
from sim.nvml.state import NvmlState, create

GPU_IDLE_W, GPU_MIN_W, GPU_MAX_W = 75.0, 200.0, 700.0  # H100 SXM: 200-700 W, idle 70-78 W
HOST_W_PER_GPU = 400.0


class SimGpus:
    """GPUs that an unmodified NVML client sees with LD_LIBRARY_PATH=`library_dir` and the state file's variable."""

    def __init__(self, state: NvmlState, library_dir: Path, count: int) -> None:
        self.library_dir = library_dir
        self.state_path = state.path
        self.state: NvmlState = state
        # What an agent declares that finds these GPUs and is told the host's share.
        self.pool: AiPool = gpu_pool(
            "inference",
            AiPriority.GUARANTEED,
            count,
            gpu_max_w=GPU_MAX_W,
            gpu_min_w=GPU_MIN_W,
            gpu_idle_w=GPU_IDLE_W,
            host_w_per_gpu=HOST_W_PER_GPU,
        )
        self._host_w = count * HOST_W_PER_GPU
        self._seen = False  # a site has been running before its story begins: until somebody looks, power settles

    @classmethod
    def open(cls, directory: Path, count: int) -> SimGpus | None:
        """Build the library and create the state under `directory`; None when this machine has no C compiler."""
        place = directory.resolve() / "nvml"  # the agent may run elsewhere
        library = build(place)
        if library is None:
            return None
        path = place / "state"
        create(path, count, idle_w=GPU_IDLE_W, min_w=GPU_MIN_W, max_w=GPU_MAX_W)
        return cls(NvmlState(path, library), place, count)

    def _per_gpu_w(self, ratio: float) -> float:
        return (ratio * self.pool.max_w - self._host_w) / self.pool.gpu_count

    def set_demand(self, ratio: float) -> None:
        """Work that would draw `ratio` of the pool's highest wall power if no limit held it."""
        self.state.set_load((self._per_gpu_w(ratio) - GPU_IDLE_W) / (GPU_MAX_W - GPU_IDLE_W))
        self._settle()

    def set_limits(self, ratio: float) -> None:
        """Enforced limits that allow `ratio` of the pool's highest wall power."""
        self.state.set_limits(self._per_gpu_w(ratio))
        self._settle()

    def _settle(self) -> None:
        if self._seen:
            return
        with self.state.settled() as devices:
            wanted_w = devices["idle_w"] + devices["load"] * (devices["max_w"] - devices["idle_w"])
            allowed_w = devices["limit_mw"] / 1000.0
            devices["power_w"][:] = wanted_w.clip(max=allowed_w)

    def wall_power_w(self, now_s: float) -> float:
        """True wall power now: GPUs and the host's baseline [W]. The library keeps the time; `now_s` is not used."""
        self._seen = True
        return self.state.power_w() + self._host_w

    def close(self) -> None:
        """Remove the state file; a client that still maps it keeps what it has."""
        with contextlib.suppress(FileNotFoundError):
            self.state_path.unlink()
