"""A cluster as the real tools of Slurm 22.05.8 told it (recorded/README.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.ai.slurm import parse
from agent.ai.slurm.settings import SlurmSettings
from agent.ai.slurm.view import Cluster
from gridpivot.vocabulary import AiPriority

RECORDED = Path(__file__).parent / "recorded"
RECORDED_AT_UNIX_S = 1795421935.0


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(
        RECORDED_AT_UNIX_S,
        parse.nodes(recorded("sinfo.json")),
        parse.jobs(recorded("squeue.json")),
        parse.reservations(recorded("reservations.txt")),
        parse.partition(recorded("partition.txt")),
    )


@pytest.fixture
def settings() -> SlurmSettings:
    return SlurmSettings(
        partition="train", priorities={"train": AiPriority.STANDARD}, checkpoint_evidence="/ckpt/%u/%A_%a/%j*.pt"
    )
