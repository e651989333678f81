"""What NVML answers, as words: one table from its return codes, and what a person should do about each.

The same words count in metrics and stand in logs.
"""

from __future__ import annotations

from enum import StrEnum

from gridpivot.errors import GridpivotError


class NvmlOutcome(StrEnum):
    """How one NVML call ended. Closed."""

    OK = "ok"
    NOT_SUPPORTED = "not_supported"  # this metric on this GPU; the others are fine
    NO_PERMISSION = "no_permission"
    LOST = "lost"  # this GPU; the others are fine
    NO_FUNCTION = "no_function"  # bindings newer than the driver
    DEPRECATED = "deprecated"
    OUT_OF_RANGE = "out_of_range"
    VERSION_MISMATCH = "version_mismatch"
    NO_DRIVER = "no_driver"
    NO_LIBRARY = "no_library"
    UNINITIALISED = "uninitialised"
    NOT_READY = "not_ready"
    SLOW = "slow"  # no answer within the deadline
    FAILED = "failed"  # anything else; the code is in the text


class LimitOutcome(StrEnum):
    """What became of a limit that was asked for, by reading it back. Closed."""

    OK = "ok"
    UNCHANGED = "unchanged"  # it was so already; nothing was written
    CLAMPED = "clamped"  # taken, but the board enforces less, or the least or most it may be
    IGNORED = "ignored"  # NVML said yes and the limit did not move
    NO_PERMISSION = "no_permission"
    UNSUPPORTED = "unsupported"
    LOST = "lost"
    NO_GUARD = "no_guard"  # the GPU guard did not take it
    UNVERIFIED = "unverified"  # written, and reading it back failed
    FAILED = "failed"


# NVML return codes, nvml.h of CUDA 13: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html
BY_CODE: dict[int, NvmlOutcome] = {
    1: NvmlOutcome.UNINITIALISED,
    2: NvmlOutcome.OUT_OF_RANGE,
    3: NvmlOutcome.NOT_SUPPORTED,
    4: NvmlOutcome.NO_PERMISSION,
    6: NvmlOutcome.LOST,  # a UUID that no longer enumerates
    9: NvmlOutcome.NO_DRIVER,
    10: NvmlOutcome.SLOW,
    12: NvmlOutcome.NO_LIBRARY,
    13: NvmlOutcome.NO_FUNCTION,
    15: NvmlOutcome.LOST,
    16: NvmlOutcome.LOST,  # reset required: no more answers until then
    18: NvmlOutcome.VERSION_MISMATCH,
    25: NvmlOutcome.NO_FUNCTION,  # a struct version that this driver does not know
    26: NvmlOutcome.DEPRECATED,
    27: NvmlOutcome.NOT_READY,
    28: NvmlOutcome.LOST,
}

BY_LIMIT: dict[NvmlOutcome, LimitOutcome] = {
    NvmlOutcome.NO_PERMISSION: LimitOutcome.NO_PERMISSION,
    NvmlOutcome.NOT_SUPPORTED: LimitOutcome.UNSUPPORTED,
    NvmlOutcome.NO_FUNCTION: LimitOutcome.UNSUPPORTED,
    NvmlOutcome.DEPRECATED: LimitOutcome.UNSUPPORTED,
    NvmlOutcome.LOST: LimitOutcome.LOST,
}

REMEDY: dict[NvmlOutcome, str] = {
    NvmlOutcome.NO_LIBRARY: "libnvidia-ml.so.1 is not here: install the NVIDIA driver, or drop [[gpu.pools]]",
    NvmlOutcome.NO_DRIVER: "the NVIDIA kernel module is not loaded: load it; an agent that runs takes the GPUs up within seconds",
    NvmlOutcome.VERSION_MISMATCH: "the driver was updated under its library: restart this machine",
    NvmlOutcome.NO_PERMISSION: "power limits need root or CAP_SYS_ADMIN: check the agent's unit",
    NvmlOutcome.NO_FUNCTION: "the driver is older than the bindings: update it",
    NvmlOutcome.DEPRECATED: "the driver has dropped this call: update nvidia-ml-py",
    NvmlOutcome.SLOW: "the NVIDIA driver does not answer: look for Xid in the kernel log",
}


class NvmlRefused(GridpivotError):
    """NVML said no; `outcome` is a word of NvmlOutcome."""

    def __init__(self, outcome: NvmlOutcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


def refusal(call: str, code: int, text: str) -> NvmlRefused:
    """The exception for a return code other than 0."""
    outcome = BY_CODE.get(code, NvmlOutcome.FAILED)
    remedy = REMEDY.get(outcome)
    said = f"{call}: {text} (NVML {code})"
    return NvmlRefused(outcome, f"{said}; {remedy}" if remedy else said)
