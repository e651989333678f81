"""GPUs of hosts where no agent is wanted, from their dcgm-exporter. Pure parsing, and one request with a deadline.

Names changed: DCGM 4.6 added new ones beside the old (POWER_USAGE -> BOARD_POWER_WATTS), with the old units even where the
new name says ratio; exporter 4.9 drops the old ones and keeps what the names say. Both are read. Hostname became hostname in
exporter 4.8.3 (NVIDIA's release notes). An XID here is the last one only, and never clears: it is not counted.
Nothing can be set through an exporter: such GPUs are seen, charged at their limit, and never limited.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from agent.gpu.reading import GpuReading
from gridpivot.errors import GridpivotError

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 8 * 2**20
MOST_GPUS = 256
MOST_W = 5000.0
PREFIX = "DCGM_FI_DEV_"
MIB = 1024 * 1024


class ScrapeFailed(GridpivotError):
    """The exporter did not answer, or not with GPUs; the text says where and what to do."""


@dataclass(frozen=True, slots=True)
class Field:
    """A figure of GpuReading under one of its names; `bound` is the most that is believed."""

    figure: str
    meaning: Callable[[float], Any]
    bound: float


def _same(value: float) -> float:
    return value


def _bytes_of_mib(value: float) -> int:
    return int(value * MIB)


def _joules_of_mj(value: float) -> float:
    return value / 1000.0


def _percent(value: float) -> float:
    return value / 100.0


# Old name, new name, both units the same unless said otherwise.
FIELDS: Mapping[str, Field] = {
    "POWER_USAGE": Field("power_w", _same, MOST_W),
    "BOARD_POWER_WATTS": Field("power_w", _same, MOST_W),
    "TOTAL_ENERGY_CONSUMPTION": Field("energy_j", _joules_of_mj, 1e15),
    "GPU_TEMP": Field("temp_c", _same, 200.0),
    "GPU_TEMP_CELSIUS": Field("temp_c", _same, 200.0),
    "GPU_UTIL": Field("util_ratio", _percent, 100.0),
    "FB_USED": Field("memory_used_bytes", _bytes_of_mib, 1e9),
    "POWER_MGMT_LIMIT": Field("limit_requested_w", _same, MOST_W),
    "ENFORCED_POWER_LIMIT": Field("limit_enforced_w", _same, MOST_W),
    "POWER_MGMT_LIMIT_MIN": Field("limit_min_w", _same, MOST_W),
    "POWER_MGMT_LIMIT_MAX": Field("limit_max_w", _same, MOST_W),
    "POWER_MGMT_LIMIT_DEF": Field("limit_default_w", _same, MOST_W),
}
RATIO = "GPU_UTIL_RATIO"  # 0-100 as an alias of DCGM 4.6, 0-1 from exporter 4.9


@dataclass(frozen=True, slots=True)
class Scraped:
    """What one exporter tells: its GPUs, and figures that were refused, by metric."""

    host: str
    readings: tuple[GpuReading, ...]
    refused: Mapping[str, int]


def parse(text: str) -> Scraped:
    """GPUs of one exporter's page; raises ScrapeFailed when there are none or it is no such page.

    MIG instances (with a GPU_I_ID) are not boards and are left out; what a board does not tell is None.
    """
    figures: dict[str, dict[str, Any]] = {}
    refused: dict[str, int] = {}
    ratios: dict[str, float] = {}
    host = ""
    try:
        for family in text_string_to_metric_families(text):
            if not family.name.startswith(PREFIX):
                continue
            for sample in family.samples:
                uuid = sample.labels.get("UUID", "")
                if not uuid or sample.labels.get("GPU_I_ID") or (len(figures) >= MOST_GPUS and uuid not in figures):
                    continue
                host = host or sample.labels.get("hostname") or sample.labels.get("Hostname") or ""
                own = figures.setdefault(uuid, {"name": sample.labels.get("modelName", "")})
                name = sample.name.removesuffix("_total")[len(PREFIX) :]
                if name == RATIO:
                    ratios[uuid] = sample.value
                elif name in FIELDS and not _take(own, FIELDS[name], sample.value):
                    refused[name] = refused.get(name, 0) + 1
    except ValueError as error:
        raise ScrapeFailed(f"not a Prometheus page: {error}; is it a dcgm-exporter?") from None
    if not figures:
        raise ScrapeFailed("no GPU on this page; is it a dcgm-exporter, and does it see its GPUs?")
    _take_ratios(figures, ratios)
    readings = tuple(GpuReading(uuid, **own) for uuid, own in sorted(figures.items()))
    return Scraped(host, readings, refused)


def _take(own: dict[str, Any], field: Field, value: float) -> bool:
    """Put a figure in; False when it cannot be one. DCGM writes blank values as huge numbers (0x7ffffff0 and above)."""
    if not math.isfinite(value) or not 0.0 <= value <= field.bound:
        return False
    own.setdefault(field.figure, field.meaning(value))
    return True


def _take_ratios(figures: dict[str, dict[str, Any]], ratios: Mapping[str, float]) -> None:
    """One exporter speaks one unit: percent when any GPU is above 1, ratio when any lies between. Else 1 can be either."""
    known = {uuid: r for uuid, r in ratios.items() if math.isfinite(r) and 0.0 <= r <= 100.0}
    if not known:
        return
    percent = max(known.values()) > 1.0
    certain = percent or any(0.0 < r < 1.0 for r in known.values())
    for uuid, ratio in known.items():
        if certain or ratio == 0.0:
            figures[uuid].setdefault("util_ratio", ratio / 100.0 if percent else ratio)


async def scrape(client: httpx.AsyncClient, url: str, deadline_s: float) -> Scraped:
    """One request. Raises ScrapeFailed."""
    import httpx

    try:
        async with asyncio.timeout(deadline_s):
            async with client.stream("GET", url) as answer:
                if answer.status_code != 200:
                    raise ScrapeFailed(f"{url}: answered {answer.status_code}; check the URL")
                body = bytearray()
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise ScrapeFailed(f"{url}: a page of over {MOST_BYTES // 2**20} MiB; is it a dcgm-exporter?")
    except TimeoutError:
        raise ScrapeFailed(f"{url}: no answer within {deadline_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ScrapeFailed(f"{url}: {error or type(error).__name__}; check the URL and the network") from None
    try:
        return parse(body.decode("utf-8", "replace"))
    except ScrapeFailed as error:
        raise ScrapeFailed(f"{url}: {error}") from None
