"""Nodes held out of service: a reservation that ends by itself first, then a drain that everybody sees.

On 22.05 the reservation (maint, ignore_jobs) already keeps every new job of every partition off a node while running work
goes on, and frees it when it ends, whether we live or not. A drain says who and why, and has no end: after the death of an
agent it stays until an agent or an admin takes it back. A reservation may lie over others' without harm; a drain overwrites
the reason of another admin's, so it is never laid over one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.ai.slurm.calls import Answer, Commands
from agent.ai.slurm.marks import (
    ADMISSION,
    HOLD,
    Mark,
    clock,
    mark_of,
    read_mark,
    read_reservation_name,
    reservation_name,
)
from agent.ai.slurm.parse import NodeRecord, Reservation
from agent.ai.slurm.reading import Look
from agent.ai.slurm.settings import SlurmSettings
from agent.ai.slurm.view import Cluster, drained_by, others_reservations, shared_with_guaranteed
from agent.ai.workload import Order, Step
from gridpivot.vocabulary import AiPriority, LeverOutcome


class Holds:
    """Reservations and drains of one partition. Not safe for two calls at once: pool.py sees to that."""

    def __init__(self, settings: SlurmSettings, commands: Commands, look: Look) -> None:
        self._settings = settings
        self._commands = commands
        self._look = look

    async def hold(self, nodes: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Keep nodes from new work until the order ends; called again with a later end, extend it."""
        mark = mark_of(order, self._settings.partition)
        cluster = await self._look()
        if order.until_unix_s <= cluster.unix_s:
            return tuple(Step(node, LeverOutcome.FAILED, "the order has ended") for node in nodes)
        steps = {node: _stands_against(cluster, node) for node in dict.fromkeys(nodes)}
        free = [node for node, step in steps.items() if step is None]
        refused = await self._reserve(cluster, mark, HOLD, free)
        if refused is None and self._settings.drain:
            refused = await self._drain(cluster, mark, free)
        if free:
            cluster = await self._look()
        return tuple(step or self._held(cluster, mark, node, refused) for node, step in steps.items())

    async def close(self, order: Order) -> tuple[Step, ...]:
        """Reserve the partition's nodes, except those on which guaranteed work of other partitions may start.

        `State=DOWN` would close just this partition, but has no end and no owner; Slurm 22.05 knows no closure that has both.
        A reservation has, and closes nodes for all partitions: so a node that guaranteed work may use stays open.
        """
        partition = self._settings.partition
        mark = mark_of(order, partition)
        cluster = await self._look()
        if order.until_unix_s <= cluster.unix_s:
            return (Step(partition, LeverOutcome.FAILED, "the order has ended"),)
        if self._settings.priority is AiPriority.GUARANTEED:
            return (Step(partition, LeverOutcome.BLOCKED, "guaranteed work is always admitted; set priorities"),)
        others = others_reservations(cluster)
        members = cluster.members()
        open_for = {
            name: found for name, node in members.items() if (found := shared_with_guaranteed(node, self._settings))
        }
        ours = [name for name in members if name not in open_for and name not in others]
        refused = await self._reserve(cluster, mark, ADMISSION, ours)
        cluster = await self._look()
        closed = self._covered(cluster, mark, ADMISSION)
        steps = [
            Step(name, LeverOutcome.BLOCKED, f"stays open: partition {found[0]} is guaranteed")
            for name, found in open_for.items()
        ]
        if set(ours) <= closed:
            detail = f"{len(ours)} of {len(members)} nodes closed until {clock(mark.until_unix_s)}"
            outcome = (
                LeverOutcome.DONE
                if len(ours) + len(others.keys() & members.keys()) >= len(members)
                else LeverOutcome.BLOCKED
            )
            return (Step(partition, outcome, detail), *steps)
        return (Step(partition, *_why(refused, "the reservation does not show")), *steps)

    async def release(self, cluster: Cluster, order_id: str | None) -> tuple[Step, ...]:
        """End our reservations and undrain nodes whose reason is ours; nodes that another order of ours needs stay held."""
        partition = self._settings.partition
        mine, staying = _ours(cluster, partition, order_id)
        drained = {
            name: mark
            for name, node in cluster.members().items()
            if (mark := drained_by(node, partition)) is not None and order_id in (None, mark.order_id)
        }
        heirs = {node: r for r in staying for node in r.nodes if node in drained}
        back = [name for name in drained if name not in heirs]
        refused: Answer | None = None
        if back:
            refused = _worse(refused, await self._scontrol("update", f"nodename={','.join(back)}", "state=undrain"))
        for name, reservation in heirs.items():
            found = read_reservation_name(reservation.name)
            heir = Mark(found.order_id if found else "", reservation.end_unix_s, partition)
            refused = _worse(
                refused, await self._scontrol("update", f"nodename={name}", "state=drain", f"reason={heir}")
            )
        for reservation in mine:
            gone = await self._scontrol("delete", f"reservationname={reservation.name}")
            refused = _worse(refused, gone)
        if not mine and not drained:
            return ()
        return self._given_back(await self._look(), order_id, mine, drained, refused)

    def _given_back(
        self,
        cluster: Cluster,
        order_id: str | None,
        mine: Sequence[Reservation],
        drained: Iterable[str],
        refused: Answer | None,
    ) -> tuple[Step, ...]:
        partition = self._settings.partition
        left, _ = _ours(cluster, partition, order_id)
        still = {node for reservation in left for node in reservation.nodes}
        members = cluster.members()
        held = {node for r in mine if (o := read_reservation_name(r.name)) and o.kind == HOLD for node in r.nodes}
        steps = []
        if any((o := read_reservation_name(r.name)) and o.kind == ADMISSION for r in mine):
            closed = any((o := read_reservation_name(r.name)) and o.kind == ADMISSION for r in left)
            steps.append(
                Step(partition, *_why(refused, "still closed")) if closed else Step(partition, LeverOutcome.DONE)
            )
        for name in sorted(held | set(drained)):
            node = members.get(name)
            mark = None if node is None else drained_by(node, partition)
            if node is None:
                steps.append(Step(name, LeverOutcome.GONE, "Slurm does not know it any more"))
            elif name in still or (mark is not None and order_id in (None, mark.order_id)):
                steps.append(Step(name, *_why(refused, "still held")))
            elif node.drained and mark is None:
                steps.append(Step(name, LeverOutcome.NOT_OURS, f"{node.reason_by}: {node.reason}"))
            else:
                steps.append(Step(name, LeverOutcome.DONE, "" if mark is None else f"stays held for {mark.order_id}"))
        return tuple(steps)

    async def _reserve(self, cluster: Cluster, mark: Mark, kind: str, nodes: Sequence[str]) -> Answer | None:
        """Make or widen the order's reservation; None when Slurm took it, or nothing was to do."""
        if not nodes:
            return None
        name = reservation_name(mark.order_id, mark.partition, kind)
        there = next((r for r in cluster.reservations if r.name == name), None)
        if there is not None and there.end_unix_s <= cluster.unix_s:  # ended ones keep their name for a minute
            await self._scontrol("delete", f"reservationname={name}")
            there = None
        if there is None:
            return await self._scontrol(
                "create", "reservation", f"reservationname={name}", "starttime=now", f"endtime={clock(mark.until_unix_s)}",
                "flags=maint,ignore_jobs", f"users={self._settings.reservation_user}", f"nodes={','.join(nodes)}",
            )  # fmt: skip
        wanted = dict.fromkeys([*there.nodes, *nodes])
        end = max(there.end_unix_s, mark.until_unix_s)
        if len(wanted) == len(there.nodes) and end == there.end_unix_s:
            return None
        return await self._scontrol(
            "update", "reservation", f"reservationname={name}", f"endtime={clock(end)}", f"nodes={','.join(wanted)}"
        )

    async def _drain(self, cluster: Cluster, mark: Mark, nodes: Sequence[str]) -> Answer | None:
        """Drain what is in service, and renew our own reason when its end is later; another order's reason stays."""
        members = cluster.members()
        fresh = [name for name in nodes if _may_drain(members[name], mark)]
        if not fresh:
            return None
        return await self._scontrol("update", f"nodename={','.join(fresh)}", "state=drain", f"reason={mark}")

    def _held(self, cluster: Cluster, mark: Mark, name: str, refused: Answer | None) -> Step:
        node = cluster.members().get(name)
        if node is None:
            return Step(name, LeverOutcome.GONE, "Slurm does not know it any more")
        if node.drained and read_mark(node.reason) is None:
            return Step(name, LeverOutcome.NOT_OURS, f"{node.reason_by}: {node.reason}")
        if name not in self._covered(cluster, mark, HOLD):
            return Step(name, *_why(refused, "the reservation does not show"))
        if node.down:
            return Step(name, LeverOutcome.GONE, "does not answer; reserved for when it comes back")
        if self._settings.drain and not node.drained:
            return Step(name, *_why(refused, "reserved, but the drain does not show"))
        return Step(name, LeverOutcome.DONE, f"until {clock(mark.until_unix_s)}")

    def _covered(self, cluster: Cluster, mark: Mark, kind: str) -> set[str]:
        """Nodes that the order's reservation holds until its end."""
        name = reservation_name(mark.order_id, mark.partition, kind)
        return {
            node
            for r in cluster.reservations
            if r.name == name and r.end_unix_s >= mark.until_unix_s
            for node in r.nodes
        }

    async def _scontrol(self, *words: str) -> Answer | None:
        answer = await self._commands.ask("scontrol", *words)
        return None if answer.refusal is None else answer


def _stands_against(cluster: Cluster, name: str) -> Step | None:
    node = cluster.members().get(name)
    if node is None:
        return Step(name, LeverOutcome.GONE, "not a node of this partition")
    if node.drained and read_mark(node.reason) is None:
        return Step(name, LeverOutcome.NOT_OURS, f"drained by {node.reason_by or 'somebody'}: {node.reason}")
    other = others_reservations(cluster).get(name)
    return None if other is None else Step(name, LeverOutcome.NOT_OURS, f"in reservation {other}")


def _may_drain(node: NodeRecord, mark: Mark) -> bool:
    there = read_mark(node.reason)
    if node.drained:
        return there is not None and there.order_id == mark.order_id and there.until_unix_s < mark.until_unix_s
    return not node.reason or there is not None  # a dead node carries Slurm's own reason: it is not overwritten


def _ours(cluster: Cluster, partition: str, order_id: str | None) -> tuple[list[Reservation], list[Reservation]]:
    """Our reservations of this pool that are to go, and those of other orders that hold nodes and stay."""
    go, stay = [], []
    for reservation in cluster.reservations:
        found = read_reservation_name(reservation.name)
        if found is None or found.partition != partition:
            continue
        if order_id in (None, found.order_id):
            go.append(reservation)
        elif found.kind == HOLD and reservation.end_unix_s > cluster.unix_s:
            stay.append(reservation)
    return go, stay


def _worse(one: Answer | None, other: Answer | None) -> Answer | None:
    """The first refusal; that a thing is gone already is none."""
    return one or (None if other is None or other.refusal is LeverOutcome.GONE else other)


def _why(refused: Answer | None, otherwise: str) -> tuple[LeverOutcome, str]:
    if refused is None or refused.refusal is None:
        return LeverOutcome.FAILED, otherwise
    return refused.refusal, refused.detail
