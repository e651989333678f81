"""Jobs asked to save their work through an annotation on their pods, and believed when they write the order's id back.

A pod sees its own annotations in a volume of the downward API, which changes while it runs. One that does not carry the
annotation in its template is not asked: it would not look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from agent.ai.kubernetes.api import Api
from agent.ai.kubernetes.marks import Mark
from agent.ai.kubernetes.records import Pod
from agent.ai.kubernetes.settings import KubernetesSettings
from agent.ai.kubernetes.switches import refusal
from agent.ai.kubernetes.view import CHECKPOINT, Cluster, checkpoints, class_of, pods_of
from agent.ai.workload import Step, WorkloadRefused
from gridpivot.vocabulary import AiPriority, LeverOutcome

FIRST_BEAT_S, LAST_BEAT_S = 0.2, 2.0  # between looks: soon at first, then kind to the server


class Checkpoints:
    """Wishes and evidence of one pool."""

    def __init__(self, settings: KubernetesSettings, api: Api, look: Callable[[], Awaitable[Cluster]]) -> None:
        self._settings, self._api, self._look = settings, api, look

    async def checkpoint(self, job_ids: Sequence[str], mark: Mark) -> tuple[Step, ...]:
        """Ask, and wait for evidence at most checkpoint_wait_s and the order's end."""
        cluster = await self._look()
        running = pods_of(cluster, self._settings)
        steps: dict[str, Step | None] = {}
        for job_id in dict.fromkeys(job_ids):
            steps[job_id] = self._stands_against(cluster, running.get(job_id, []), job_id)
            if steps[job_id] is None:
                steps[job_id] = await self._ask(job_id, running[job_id], mark.order_id)
        wait_s = min(self._settings.checkpoint_wait_s, max(0.0, mark.until_unix_s - cluster.unix_s))
        loop = asyncio.get_running_loop()
        deadline_s, beat_s = loop.time() + wait_s, FIRST_BEAT_S
        while waiting := [job_id for job_id, step in steps.items() if step is None]:
            late = loop.time() >= deadline_s
            running = pods_of(await self._look(), self._settings)
            for job_id in waiting:
                pods = running.get(job_id, [])
                if not pods:
                    steps[job_id] = Step(job_id, LeverOutcome.GONE, "ended without evidence of a checkpoint")
                elif any(self._evidence(pod) == mark.order_id for pod in pods):
                    steps[job_id] = Step(job_id, LeverOutcome.DONE, f"evidence: {self._settings.checkpoint_evidence}")
                elif late:
                    steps[job_id] = Step(job_id, LeverOutcome.IGNORED, f"asked, no evidence within {wait_s:g} s")
            if any(step is None for step in steps.values()):
                await asyncio.sleep(min(beat_s, max(0.0, deadline_s - loop.time())))
                beat_s = min(LAST_BEAT_S, 1.5 * beat_s)
        return tuple(step for step in steps.values() if step is not None)

    def _evidence(self, pod: Pod) -> str | None:
        return pod.metadata.annotations.get(self._settings.checkpoint_evidence or "")

    def _stands_against(self, cluster: Cluster, pods: Sequence[Pod], job_id: str) -> Step | None:
        if not pods:
            return Step(job_id, LeverOutcome.GONE, "does not run")
        if class_of(cluster.job(job_id), pods, self._settings) is AiPriority.GUARANTEED:
            return Step(job_id, LeverOutcome.BLOCKED, "guaranteed work is left alone")
        if self._settings.checkpoint_evidence is None:
            return Step(
                job_id, LeverOutcome.UNSUPPORTED, "set checkpoint_evidence: without it nothing proves a checkpoint"
            )
        if not checkpoints(pods, self._settings):
            return Step(job_id, LeverOutcome.UNSUPPORTED, f"its pods do not carry {CHECKPOINT}: nobody would look")
        return None

    async def _ask(self, job_id: str, pods: Sequence[Pod], order_id: str) -> Step | None:
        """Write the wish on its pods; None when they were asked and evidence is to be waited for."""
        asked = 0
        for pod in pods:
            if pod.metadata.annotations.get(CHECKPOINT) == order_id:
                asked += 1
                continue
            path = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}"
            try:
                answer = await self._api.patch(path, {"metadata": {"annotations": {CHECKPOINT: order_id}}})
            except WorkloadRefused as error:
                return Step(job_id, error.outcome, str(error))
            if not answer.ok and answer.status != 404:
                return refusal(job_id, answer)
            asked += answer.ok
        return None if asked else Step(job_id, LeverOutcome.GONE, "its pods ended")
