"""One command of Slurm, with a deadline: a subprocess without a shell, killed when its time is over.

The tools of 22.05 block for 9-10 s when slurmctld hangs or is gone, and `sinfo --json` then prints an empty list of nodes; so
the deadline is ours, and what an answer means is for parse.py to say.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from agent.ai.process import Ended, run_command
from agent.ai.slurm.settings import SlurmSettings
from agent.ai.workload import WorkloadRefused
from gridpivot.vocabulary import LeverOutcome

MOST_BYTES = 256 << 20

# What 22.05 prints (slurm_errno.c), without a word of its exit codes: `drain` returns 0 while jobs run on.
_MEANINGS = (
    (re.compile(r"permission denied|Invalid user id", re.I), LeverOutcome.NO_PERMISSION),
    (
        re.compile(
            r"Invalid job id|Invalid node name|already completing or completed|already finished|reservation is invalid",
            re.I,
        ),
        LeverOutcome.GONE,
    ),
    (re.compile(r"presently disabled|pending execution", re.I), LeverOutcome.BLOCKED),
)
_SILENT = re.compile(r"Socket timed out|timed? ?out", re.I)
_AWAY = re.compile(r"Unable to contact|connect failure|Unable to process configuration|configuration source", re.I)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed; `refusal` and its sentence when Slurm said no to just this."""

    text: str
    refusal: LeverOutcome | None = None
    detail: str = ""


class Commands:
    """The tools of one cluster, as settings name them."""

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings
        self._environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LC_ALL": "C",
            "TZ": "UTC",
            "SLURM_TIME_FORMAT": "%s",
        }
        conf = settings.conf or os.environ.get("SLURM_CONF")
        if conf is not None:
            self._environment["SLURM_CONF"] = str(conf)

    async def ask(self, tool: str, *words: str) -> Answer:
        """Run one command. Raises WorkloadRefused when Slurm as a whole is silent (slow) or cannot be reached (failed)."""
        ended = await self._run(tool, *words)
        code, out, err = ended.code, ended.output.decode("utf-8", "replace"), ended.error
        if code == 0:
            return Answer(out)
        said = _line(err) or f"exit {code} without a word"
        if _SILENT.search(err):
            raise WorkloadRefused(LeverOutcome.SLOW, f"{tool}: {said}; look at slurmctld")
        if _AWAY.search(err):
            raise WorkloadRefused(LeverOutcome.FAILED, f"{tool}: {said}; is slurmctld up, and slurm.conf right?")
        meaning = next((word for pattern, word in _MEANINGS if pattern.search(err)), LeverOutcome.FAILED)
        return Answer(out, meaning, f"{tool}: {said}")

    async def read(self, tool: str, *words: str) -> str:
        """Text of a question; raises WorkloadRefused for any refusal."""
        answer = await self.ask(tool, *words)
        if answer.refusal is not None:
            raise WorkloadRefused(answer.refusal, answer.detail)
        return answer.text

    async def _run(self, tool: str, *words: str) -> Ended:
        path = tool if self._settings.bin_dir is None else str(self._settings.bin_dir / tool)
        try:
            return await run_command([path, *words], self._settings.deadline_s, self._environment, MOST_BYTES)
        except WorkloadRefused as error:
            if error.outcome is LeverOutcome.SLOW:
                raise WorkloadRefused(error.outcome, f"{error}; slurmctld hangs or is overloaded") from None
            if error.outcome is LeverOutcome.FAILED:
                raise
            raise WorkloadRefused(
                LeverOutcome.FAILED, f"{path} cannot be run; install slurm-client, or set bin_dir"
            ) from None


def _line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"[^\x20-\x7e]", "?", lines[-1])[:200] if lines else ""
