"""One lost board must not take the guard from the others: a request that names it would be refused whole."""

from __future__ import annotations

import pytest

from agent.gpu.pools import enforceable
from agent.gpu.reading import GpuReading

pytestmark = pytest.mark.unit


def test_board_that_is_lost_unknown_or_takes_no_limits_is_not_named() -> None:
    readings = {
        "GPU-a": GpuReading("GPU-a", limit_min_w=200.0, limit_max_w=700.0),
        "GPU-b": GpuReading("GPU-b", limit_min_w=200.0, limit_max_w=700.0, lost=True),
        "GPU-c": GpuReading("GPU-c"),
    }
    wanted = dict.fromkeys(["GPU-a", "GPU-b", "GPU-c", "GPU-d"], 300.0)
    assert enforceable(wanted, readings) == {"GPU-a": 300.0}
