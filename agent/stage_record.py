"""How far a site was commissioned, on the disk, and what that means for the stage it may stand on.

The settings give the highest stage; with `governor.commissioning` the record gives the one that was earned. A meter or a
feeder map other than those of the step test takes the site back to shadow. `save` blocks on the disk.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.backends import SiteInventory
from agent.commissioning import FeederResult, Verdict
from agent.durable import replace_file
from agent.meter import MeterSettings
from gridpivot.vocabulary import Stage

FILE = "commission.json"
ORDER = (Stage.OBSERVE, Stage.SHADOW, Stage.SHED_ONLY, Stage.FULL)


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What the last complete step test earned, and for which meter and feeders."""

    stage: Stage
    meter: str
    feeders: str
    at: str  # RFC 3339
    by: str


def meter_mark(meter: MeterSettings | None) -> str:
    """Says one meter, its registers and its scale from another; empty without one."""
    if meter is None:
        return ""
    fields = ("host", "port", "device_id", "table", "power_address", "power_type", "power_scale_w", "word_order")
    return _digest({name: getattr(meter, name) for name in fields})


def feeder_mark(inventory: SiteInventory) -> str:
    """Says one feeder map from another: the feeders, and which feeder each container and PDU hangs on.

    A machine that was swapped changes nothing; a container that was connected elsewhere does.
    """
    circuits: dict[str, list[str]] = {}
    for group in inventory.groupings:
        if group.level not in ("container", "pdu"):
            continue
        for index, name in enumerate(group.names):
            feeders = {inventory.feeders[f] for f in set(inventory.feeder_index[group.index == index].tolist())}
            circuits[f"{group.level}:{name}"] = sorted(feeders)
    return _digest({"feeders": list(inventory.feeders), "circuits": circuits})


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def earned(results: Sequence[FeederResult], feeders: Sequence[str]) -> Stage | None:
    """The stage that results earn: every feeder has to fall as it should, and for full to come back too."""
    passed = {r.feeder: r for r in results if r.verdict is Verdict.PASSED}
    if not feeders or not set(feeders) <= set(passed):
        return None
    return Stage.FULL if all(passed[name].woke for name in feeders) else Stage.SHED_ONLY


def standing(highest: Stage, record: StageRecord | None, meter: str, feeders: str) -> tuple[Stage, str]:
    """The stage to stand on, and why it is lower than the settings allow (empty when it is not)."""
    if highest in (Stage.OBSERVE, Stage.SHADOW):
        return highest, ""
    if record is None:
        return Stage.SHADOW, "no step test was passed here yet; run gridpivot-agent commission"
    if record.meter != meter:
        return Stage.SHADOW, "the meter, its registers or its scale are others than in the step test; run it again"
    if record.feeders != feeders:
        return Stage.SHADOW, "the feeder map is another than in the step test; run it again"
    lower = min(highest, record.stage, key=ORDER.index)
    return lower, "" if lower is highest else f"the step test earned {record.stage.value} only"


def load(state_dir: Path) -> StageRecord | None:
    """The record; None where there is none, or none that can be read: then nothing was earned."""
    try:
        body = json.loads((state_dir / FILE).read_bytes())
        return StageRecord(Stage(body["stage"]), body["meter"], body["feeders"], body["at"], body["by"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(state_dir: Path, record: StageRecord, results: Sequence[FeederResult]) -> None:
    """On the disk before the stage counts; raises OSError. Blocks."""
    body = {"format": 1} | asdict(record) | {"results": [asdict(r) for r in results]}
    replace_file(state_dir / FILE, json.dumps(body, indent=1).encode())


def record_now(stage: Stage, meter: str, feeders: str, unix_s: float, by: str) -> StageRecord:
    """A record of this moment."""
    at = dt.datetime.fromtimestamp(unix_s, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return StageRecord(stage, meter, feeders, at, by)
