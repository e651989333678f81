"""How a simulated miner can misbehave, and what its ports bear."""

from __future__ import annotations

from enum import StrEnum

MAX_REQUEST_BYTES = 1 << 16


class WireFault(StrEnum):
    """How a miner's API can misbehave."""

    NONE = "none"
    SILENT = "silent"  # accepts, reads, never answers
    HUGE = "huge"  # ten megabytes of something
    ENDLESS = "endless"  # answers for ever
    GARBAGE = "garbage"  # not JSON
    TRUNCATED = "truncated"  # half a reply
    TRICKLE = "trickle"  # one byte a second
