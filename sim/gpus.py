"""GPUs of the wire site: a stand-in NVML library, its state file, and their true power."""

from __future__ import annotations

from pathlib import Path

from gridpivot.curves import AiPool, gpu_pool
from gridpivot.vocabulary import AiPriority


class SimGpus:
    """GPUs that an unmodified NVML client sees through `library_dir` and `state_path`."""

    def __init__(self, directory: Path, count: int) -> None:
        self.library_dir = directory / "nvml"
        self.state_path = directory / "nvml" / "state"
        self.pool: AiPool = gpu_pool("inference", AiPriority.GUARANTEED, count)

    @classmethod
    def open(cls, directory: Path, count: int) -> SimGpus | None:
        """Build the library and create the state; None when this machine has no C compiler."""
        return None

    def set_demand(self, ratio: float) -> None:
        """Work that would draw `ratio` of the pool's highest wall power."""

    def set_limits(self, ratio: float) -> None:
        """Enforced limits that allow `ratio` of the pool's highest wall power."""

    def wall_power_w(self, now_s: float) -> float:
        """True wall power now: GPUs and the host's baseline [W]."""
        return self.pool.baseline_w

    def close(self) -> None:
        """Let go of the state file."""
