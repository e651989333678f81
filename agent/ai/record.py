"""What levers hold, on disk: so that an agent that was killed gives back what it took. Pure but for reading the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.ai.desk import Pull, PullState
from agent.ai.lever import Promise
from agent.durable import set_aside
from gridpivot.vocabulary import LeverName

FORMAT = 1


def pulls_bytes(pulls: Mapping[str, Sequence[Pull]]) -> bytes:
    """The file's content: pulls by pool, oldest first."""
    body = {name: [_written(pull) for pull in held] for name, held in sorted(pulls.items())}
    return json.dumps({"format": FORMAT, "pools": body}).encode()


def load_pulls(path: Path) -> dict[str, list[Pull]]:
    """Pulls by pool as an earlier process left them; a damaged file is set aside and counts as none."""
    try:
        body: Any = json.loads(path.read_bytes())
        if body["format"] != FORMAT:
            raise ValueError("format")
        return {str(name): [_read(entry) for entry in held] for name, held in body["pools"].items()}
    except OSError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        set_aside(path)
        return {}


def _written(pull: Pull) -> dict[str, Any]:
    return {
        "order_id": pull.order_id,
        "lever": pull.lever.value,
        "asked_w": round(pull.promise.asked_w),
        "promised_w": round(pull.promise.promised_w),
        "subjects": list(pull.promise.subjects),
        "delivered_w": round(pull.delivered_w) if pull.state is not PullState.ACTING else 0,
    }


def _read(entry: Any) -> Pull:
    """A pull of an earlier process: done as far as it goes, to be renewed at once and given back when there is room."""
    lever = LeverName(entry["lever"])
    subjects = tuple(str(s) for s in entry["subjects"])
    promise = Promise(lever, float(entry["asked_w"]), float(entry["promised_w"]), 0.0, subjects=subjects)
    pull = Pull(str(entry["order_id"]), lever, promise, float("-inf"), 0.0, PullState.KEPT)
    pull.delivered_w = float(entry["delivered_w"])
    return pull
