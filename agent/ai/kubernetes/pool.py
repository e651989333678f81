"""One namespace on labelled nodes as a `Workload`: reading runs beside everything, what changes something one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from functools import partial
from typing import Any

from agent.ai.kubernetes.api import Api
from agent.ai.kubernetes.checkpoint import Checkpoints
from agent.ai.kubernetes.kueue import Kueue
from agent.ai.kubernetes.marks import Mark, mark_of, marks_on, without_order
from agent.ai.kubernetes.records import Job, Node, Pod, read_all
from agent.ai.kubernetes.requeue import Requeues
from agent.ai.kubernetes.settings import KubernetesSettings
from agent.ai.kubernetes.switches import free_switch, node_switch, set_switch
from agent.ai.kubernetes.view import Cluster, pool_work
from agent.ai.work import PoolWork
from agent.ai.workload import Order, Step
from gridpivot.clock import Clock
from gridpivot.vocabulary import LeverOutcome

AT_ONCE = 8  # requests beside each other: an API server's fairness queues hold a client that asks for more
LIVE = "status.phase!=Succeeded,status.phase!=Failed"


class KubernetesPool:
    """A pool under Kubernetes. Give it to levers as their Workload; `close` it when the agent stops (nothing is given back)."""

    def __init__(self, settings: KubernetesSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._api = Api(settings)
        self._kueue = Kueue(settings, self._api)
        self._requeues = Requeues(settings, self._api, self._kueue, self._look)
        self._checkpoints = Checkpoints(settings, self._api, self._look)
        self._acting = asyncio.Lock()
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def observe(self, now_s: float) -> PoolWork:
        """Nodes, jobs of every namespace on them, and the queue."""
        return await asyncio.to_thread(pool_work, await self._look(), self._settings, now_s)

    async def hold(self, nodes: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Cordon them under our mark. A cordon has no end of its own: release gives back what is past its end."""
        mark = mark_of(order, self._settings.namespace)
        async with self._acting:
            if self._ended(order):
                return tuple(Step(name, LeverOutcome.FAILED, "the order has ended") for name in nodes)
            ours = {node.metadata.name for node in await self._nodes()}
            return tuple(await asyncio.gather(*(self._hold_one(n, n in ours, mark) for n in dict.fromkeys(nodes))))

    async def checkpoint(self, jobs: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Ask and wait for evidence. Others of the pool's acts may run meanwhile."""
        return await self._checkpoints.checkpoint(jobs, mark_of(order, self._settings.namespace))

    async def requeue(self, jobs: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Evict and keep waiting. Guaranteed jobs are refused here, whatever is asked."""
        mark = mark_of(order, self._settings.namespace)
        async with self._acting:
            if self._ended(order):
                return tuple(Step(job, LeverOutcome.FAILED, "the order has ended") for job in jobs)
            return await self._requeues.requeue(jobs, mark)

    async def close_admission(self, order: Order) -> tuple[Step, ...]:
        """Stop the pool's Kueue queue; unsupported where settings name none."""
        mark = mark_of(order, self._settings.namespace)
        async with self._acting:
            if self._ended(order):
                return (Step("pool", LeverOutcome.FAILED, "the order has ended"),)
            return (await self._kueue.close(await self._look(), mark),)

    async def release(self, order_id: str | None) -> tuple[Step, ...]:
        """Nodes, admission and jobs of an order back; None = all that carries this pool's mark, whose order is known or not."""
        async with self._acting:
            cluster = await self._look()
            held = [node.metadata.name for node in cluster.nodes if self._holds(node, order_id)]
            nodes = await asyncio.gather(*(self._free_one(name, order_id) for name in held))
            queue = await self._kueue.release(cluster, order_id)
            return (*nodes, *queue, *await self._requeues.release(cluster, order_id))

    async def close(self) -> None:
        """Close its connections."""
        await self._api.close()

    def _ended(self, order: Order) -> bool:
        return order.until_unix_s <= self._clock.now().unix_s

    def _holds(self, node: Node, order_id: str | None) -> bool:
        marks = marks_on(node.metadata)
        return without_order(marks, order_id, self._settings.namespace) != marks

    async def _hold_one(self, name: str, ours: bool, mark: Mark) -> Step:
        if not ours:
            return Step(name, LeverOutcome.GONE, "no node of this pool")
        async with self._slots:
            return await set_switch(self._api, node_switch(name), mark)

    async def _free_one(self, name: str, order_id: str | None) -> Step:
        async with self._slots:
            return await free_switch(self._api, node_switch(name), order_id, self._settings.namespace)

    async def _nodes(self) -> tuple[Node, ...]:
        return await self._api.items(
            "/api/v1/nodes", partial(read_all, Node), labelSelector=self._settings.node_selector
        )

    async def _look(self) -> Cluster:
        """Nodes, then three questions beside each other; any refusal is a refusal of the whole, since half a look is none."""
        nodes = await self._nodes()
        jobs_path = f"/apis/batch/v1/namespaces/{self._settings.namespace}/jobs"
        asked = await asyncio.gather(
            self._api.items("/api/v1/pods", partial(_pods_on, {n.metadata.name for n in nodes}), fieldSelector=LIVE),
            self._api.items(jobs_path, partial(read_all, Job)),
            self._kueue.look(),
            return_exceptions=True,  # all come to their end: httpx leaves a socket behind when cancelled in a handshake
        )
        pods, jobs, queue = asked
        for refused in asked:
            if isinstance(refused, BaseException):
                raise refused
        assert isinstance(pods, tuple) and isinstance(jobs, tuple) and not isinstance(queue, BaseException)
        return Cluster(self._clock.now().unix_s, nodes, pods, jobs, queue)


def _pods_on(nodes: Set[str], pods: Sequence[Mapping[str, Any]]) -> tuple[Pod, ...]:
    """Records of the pods that stand on the pool's nodes; of the others only the node's name is read."""
    return read_all(Pod, (pod for pod in pods if not _elsewhere(nodes, pod.get("spec"))))


def _elsewhere(nodes: Set[str], spec: object) -> bool:
    node = spec.get("nodeName", "") if isinstance(spec, Mapping) else None
    return isinstance(node, str) and node not in nodes
