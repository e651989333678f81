"""The host reading on whatever machine runs the tests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agent.host import read_host

pytestmark = pytest.mark.unit


def test_host_is_read_without_any_hardware() -> None:
    reading = read_host()
    assert reading.memory_total_bytes is not None
    assert reading.memory_used_bytes is not None
    assert 0 < reading.memory_used_bytes <= reading.memory_total_bytes
    assert reading.booted_at_unix_s is not None and reading.booted_at_unix_s < time.time()


def test_cpu_use_is_a_ratio_once_there_is_a_span_to_measure() -> None:
    read_host()
    ratio = read_host().cpu_ratio
    assert ratio is not None and 0 <= ratio <= 1


def test_missing_file_system_is_unknown_not_zero() -> None:
    reading = read_host(Path("/no/such/place"))
    assert reading.disk_total_bytes is None and reading.disk_used_bytes is None
