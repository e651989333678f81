"""Settings of a pool that is a Slurm partition. Times in seconds.

What Slurm itself waits for is not set here but there: KillWait (30 s by default) passes before a requeued job is off its
nodes, and a requeued job may start again only after cred_expire (120 s by default).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from gridpivot.settings import Section
from gridpivot.vocabulary import AiPriority

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


class SlurmSettings(Section):
    """One partition. `priorities` gives every partition its class; one that it does not name counts as guaranteed."""

    partition: str = Field(pattern=NAME)
    qos: str | None = Field(default=None, pattern=NAME)  # only jobs of this QOS are the pool's
    account: str | None = Field(default=None, pattern=NAME)  # only jobs of this account are the pool's
    priorities: dict[str, AiPriority] = Field(default={})
    gpus_per_node: int | None = Field(default=None, ge=1, le=64)  # where Slurm does not count GPUs (no gres)
    conf: Path | None = None  # slurm.conf; none = as the tools find it
    bin_dir: Path | None = None  # where sinfo, squeue, scontrol, scancel are; none = on PATH
    reservation_user: str = Field(default="root", pattern=r"^[a-z_][a-z0-9_-]{0,31}$")  # Slurm wants somebody to own it
    drain: bool = True  # also drain held nodes: seen by everybody, but unlike the reservation it does not end by itself
    deadline_s: float = Field(default=5.0, gt=0, le=60)  # of one command
    requeue_wait_s: float = Field(default=60.0, gt=0, le=3600)  # KillWait and the epilog pass in it
    checkpoint_signal: Literal["USR1", "USR2", "HUP", "INT", "TERM", "CONT", "URG", "WINCH"] = "USR1"
    checkpoint_scope: Literal["full", "batch", "steps"] = "full"  # batch script and steps, only one of them
    checkpoint_comment: str | None = Field(default="checkpoint", max_length=64)  # jobs say so in --comment; none = all
    checkpoint_evidence: str | None = Field(default=None, max_length=1024)  # "comment", or a path with %j %A %a %u
    checkpoint_wait_s: float = Field(default=60.0, gt=0, le=3600)

    @field_validator("checkpoint_evidence")
    @classmethod
    def _comment_or_path(cls, given: str | None) -> str | None:
        if (
            given is not None
            and given != "comment"
            and not (given.startswith("/") and ("%j" in given or "%A" in given))
        ):
            raise ValueError('must be "comment", or an absolute path with %j or %A for the job\'s number')
        return given

    @property
    def priority(self) -> AiPriority:
        """The pool's own class."""
        return self.priority_of(self.partition)

    def priority_of(self, partition: str) -> AiPriority:
        """A partition's class. What is not known is not touched: guaranteed."""
        return self.priorities.get(partition, AiPriority.GUARANTEED)
