"""dcgm-exporters of either generation: figures in base units, what is blank left out, what is missing charged."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends import PoolReading
from agent.gpu.dcgm import ScrapeFailed, parse
from agent.gpu.many import ManyPools
from agent.gpu.scraped import ScrapedPools
from agent.settings import GpuPoolSettings
from gridpivot.clock import Instant

pytestmark = pytest.mark.unit

# The forms are those of exporter 3.3 (old names, Hostname) and 4.9 (new names, hostname); the figures are made up.
OLD = """# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="gpu1"} 612.4
DCGM_FI_DEV_POWER_USAGE{gpu="1",UUID="GPU-b",device="nvidia1",modelName="NVIDIA H100 80GB HBM3",Hostname="gpu1"} 71.9
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-a",Hostname="gpu1"} 4200000
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",Hostname="gpu1"} 97
DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-b",Hostname="gpu1"} 0
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",Hostname="gpu1"} 70000
# TYPE DCGM_FI_DEV_GPU_TEMP gauge
DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-a",Hostname="gpu1"} 61
DCGM_FI_DEV_GPU_TEMP{gpu="1",UUID="GPU-b",Hostname="gpu1"} 2147483632
"""
NEW = """# TYPE DCGM_FI_DEV_BOARD_POWER_WATTS gauge
DCGM_FI_DEV_BOARD_POWER_WATTS{gpu="0",UUID="GPU-c",modelName="NVIDIA H200",hostname="gpu2"} 655.5
DCGM_FI_DEV_BOARD_POWER_WATTS{gpu="0",UUID="GPU-c",GPU_I_ID="7",hostname="gpu2"} 99
# TYPE DCGM_FI_DEV_GPU_TEMP_CELSIUS gauge
DCGM_FI_DEV_GPU_TEMP_CELSIUS{gpu="0",UUID="GPU-c",hostname="gpu2"} 58
# TYPE DCGM_FI_DEV_GPU_UTIL_RATIO gauge
DCGM_FI_DEV_GPU_UTIL_RATIO{gpu="0",UUID="GPU-c",hostname="gpu2"} %s
"""


def test_old_names_are_read_in_base_units() -> None:
    page = parse(OLD)
    a, b = page.readings
    assert page.host == "gpu1" and (a.uuid, a.name) == ("GPU-a", "NVIDIA H100 80GB HBM3")
    assert (a.power_w, a.energy_j, a.util_ratio, a.temp_c) == (612.4, 4200.0, 0.97, 61.0)
    assert a.memory_used_bytes == 70000 * 1024 * 1024
    assert b.power_w == 71.9 and b.util_ratio == 0.0


def test_blank_is_refused_and_left_out_never_zero() -> None:
    page = parse(OLD)
    assert page.readings[1].temp_c is None and page.refused == {"GPU_TEMP": 1}
    assert page.readings[1].energy_j is None and page.readings[1].limit_enforced_w is None


def test_new_names_are_read_and_instances_are_no_boards() -> None:
    page = parse(NEW % "0.93")
    assert page.host == "gpu2" and len(page.readings) == 1
    assert (page.readings[0].power_w, page.readings[0].temp_c) == (655.5, 58.0)


@pytest.mark.parametrize(("told", "ratio"), [("0.93", 0.93), ("93", 0.93), ("0", 0.0), ("1", None)])
def test_utilisation_is_ratio_or_percent_and_unknown_where_it_cannot_be_told(told: str, ratio: float | None) -> None:
    assert parse(NEW % told).readings[0].util_ratio == ratio


@pytest.mark.parametrize("page", ["", "<html>", "up 1\n", "DCGM_FI_DEV_POWER_USAGE{", "DCGM_FI_DEV_POWER_USAGE 5\n"])
def test_page_without_gpus_is_refused_with_what_to_do(page: str) -> None:
    with pytest.raises(ScrapeFailed, match="dcgm-exporter"):
        parse(page)


@given(st.text(max_size=400))
def test_no_page_crashes(page: str) -> None:
    for text in (page, OLD[:300] + page):
        with contextlib.suppress(ScrapeFailed):
            parse(text)


@given(st.floats(allow_nan=True))
def test_power_that_cannot_be_one_is_left_out(watts: float) -> None:
    page = parse(f'DCGM_FI_DEV_POWER_USAGE{{UUID="GPU-a"}} {watts}\nDCGM_FI_DEV_GPU_TEMP{{UUID="GPU-a"}} 50\n')
    power_w = page.readings[0].power_w
    assert power_w == watts if 0.0 <= watts <= 5000.0 else power_w is None


class Page(BaseHTTPRequestHandler):
    """An exporter's page."""

    def do_GET(self) -> None:
        server: Any = self.server
        self.send_response(server.status)
        self.end_headers()
        self.wfile.write(server.page.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def exporter() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    made.page, made.status = OLD, 200
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


class Now:
    """A clock that is set."""

    at_s = 100.0

    def now(self) -> Instant:
        return Instant(self.at_s, 1.8e9)


def pools(exporter: Any, clock: Now, expected: int = 3) -> ScrapedPools:
    urls = [f"http://127.0.0.1:{exporter.server_port}/metrics", "http://127.0.0.1:1/metrics"]
    own = {"name": "lent", "host_w_per_gpu": 400.0, "dcgm": {"urls": urls, "gpus_expected": expected}}
    return ScrapedPools([GpuPoolSettings.model_validate(own)], clock)


def scraped(made: ScrapedPools) -> None:
    async def once() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            await made.once(client)

    asyncio.run(once())


def test_gpu_that_is_expected_and_not_seen_is_charged_at_its_most(exporter: Any) -> None:
    clock = Now()
    made = pools(exporter, clock)
    scraped(made)
    (reading,) = made.read(clock.now())
    assert reading.power_w == pytest.approx(3 * 400.0 + 612.4 + 71.9 + 700.0)
    assert reading.limit_w == 3 * 1100.0 and reading.gpus_present == 2


def test_silence_is_unknown_power_and_the_trouble_is_named(exporter: Any) -> None:
    clock = Now()
    made = pools(exporter, clock)
    scraped(made)
    assert "127.0.0.1:1" in next(text for text in made.troubles.values() if text)
    clock.at_s += 60.0
    (reading,) = made.read(clock.now())
    assert reading.power_w is None and reading.limit_w == 3 * 1100.0
    exporter.status = 500
    scraped(made)
    assert any("500" in text for text in made.troubles.values())


class Part:
    """Some pools."""

    def __init__(self, *watts: float) -> None:
        self.watts, self.limits, self.held = watts, [], []  # type: ignore[var-annotated]

    def read(self, now: Instant) -> list[PoolReading]:
        return [PoolReading(w, w, w, 1, 0.0) for w in self.watts]

    def set_limit(self, pool: int, limit_w: float, now: Instant) -> None:
        self.limits.append((pool, limit_w))

    def hold(self, fallback_w: Any, now: Instant) -> None:
        self.held.append(list(fallback_w))


def test_many_sources_stand_behind_one_face_in_order() -> None:
    a, b = Part(1.0, 2.0), Part(3.0)
    many, now = ManyPools([(a, 2), (b, 1)], [None, b]), Instant(0.0, 0.0)
    assert [r.power_w for r in many.read(now)] == [1.0, 2.0, 3.0]
    many.set_limit(1, 9.0, now)
    many.set_limit(2, 8.0, now)
    assert a.limits == [(1, 9.0)] and b.limits == [(0, 8.0)]
    many.hold([5.0, 6.0, 7.0], now)
    assert a.held == [] and b.held == [[7.0]]
