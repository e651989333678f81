"""Solve the dispatch model: sites that share no constraint in models of their own, the fleet's hashrate on demand.

The program is one, over all sites. It falls apart into blocks wherever nothing ties sites together; a regional backlog
of AI work makes its sites one block. A fleet hashrate floor ties all of them: the blocks are solved without it first,
and where their sum keeps the floor in every period that is the optimum with it too; only where it does not are all
sites solved in one model. So an event at one site moves no site that shares no constraint with it, and the work grows
with the number of sites, no faster.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import highspy
import numpy as np

from controller.dispatch.answer import decide
from controller.dispatch.block import OPTIONS, TOLERANCE, Block, Solution
from controller.dispatch.check import refuse_nonsense
from controller.dispatch.inputs import Decision, FleetState, SiteDecision, SiteState, Start
from controller.dispatch.parameters import PERIOD_S, Parameters
from gridpivot.errors import Infeasible

TIME_LIMIT_S = 60.0  # a stopped solver publishes nothing; this only keeps its thread from being lost
Names = tuple[str, ...]


class Planner:
    """Turns fleet states into decisions; keeps models and bases between calls.

    Not safe for two threads at once; safe to move from thread to thread, one call at a time. HiGHS gives the
    interpreter's lock up while it solves, so an event loop beside it keeps running.
    """

    def __init__(
        self,
        parameters: Parameters | None = None,
        period_s: Sequence[float] = PERIOD_S,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self.parameters = parameters if parameters is not None else Parameters()
        self.period_s = tuple(period_s)
        self.time_limit_s = time_limit_s
        self._blocks: dict[Names, Block] = {}
        self._whole: Block | None = None
        self._floor_binds = False
        self._solver = f"HiGHS {highspy.Highs().version()}"  # type: ignore[no-untyped-call]

    def solve(self, fleet: FleetState) -> Decision:
        """The optimal decision for this moment; blocks for up to some seconds (cold), so call it in a worker thread.

        Raises Infeasible, and publishes nothing, when an answer is not optimal, comes too late (`time_limit_s`) or
        breaks a constraint by more than 1e-6 (MW, or thousand machines), or when the state holds a number that
        cannot be.
        """
        begun = time.perf_counter()
        refuse_nonsense(fleet)
        if not fleet.sites:
            return Decision((), 0.0, 0.0, False, 0.0, self._solver)
        groups = components(fleet)
        if fleet.fleet_floor_hs > 0 and self._floor_binds:
            decision = self._coupled(fleet, begun)
        else:
            self._blocks = {names: self._blocks.get(names) or self._block(False) for names in groups}
            parts = [(self._blocks[names], part) for names, part in groups.items()]
            decision, hashing = self._answer(parts, fleet, begun, coupled=False)
            if fleet.fleet_floor_hs > 0 and hashing.min() < fleet.fleet_floor_hs / 1e15 - TOLERANCE:
                decision = self._coupled(fleet, begun)
        return replace(decision, solve_s=time.perf_counter() - begun)

    def replay(self, fleet: FleetState, start: Start) -> Decision:
        """The decision that a recorded state and start lead to, in models of its own; raises Infeasible.

        The same bits as the recorded one as long as solver and options are the same.
        """
        begun = time.perf_counter()
        refuse_nonsense(fleet)
        groups = {tuple(s.name for s in fleet.sites): fleet} if start.coupled else components(fleet)
        if len(start.bases) != len(groups):
            raise Infeasible(
                f"the record holds {len(start.bases)} bases for {len(groups)} models; it is not of this state"
            )
        parts = []
        for part, basis in zip(groups.values(), start.bases, strict=True):
            block = self._block(start.coupled)
            layout, _ = block.load(part)
            if basis and len(basis) != layout.matrix.columns + layout.matrix.rows:
                raise Infeasible("a recorded basis has another size than its model; the model has changed since")
            block.basis = basis
            parts.append((block, part))
        decision, _ = self._answer(parts, fleet, begun, start.coupled)
        return replace(decision, solve_s=time.perf_counter() - begun)

    def _block(self, floor: bool) -> Block:
        return Block(self.parameters, self.period_s, floor)

    def _coupled(self, fleet: FleetState, begun: float) -> Decision:
        """All sites in one model, with the fleet's floor."""
        if self._whole is None:
            self._whole = self._block(True)
        decision, hashing = self._answer([(self._whole, fleet)], fleet, begun, coupled=True)
        self._floor_binds = bool(hashing.min() <= fleet.fleet_floor_hs / 1e15 + TOLERANCE)
        return decision

    def _answer(
        self, parts: list[tuple[Block, FleetState]], fleet: FleetState, begun: float, coupled: bool
    ) -> tuple[Decision, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        """Solve every block and put the answers together; also the fleet's hashrate by period [PH/s]."""
        sites: dict[str, SiteDecision] = {}
        hashing = np.zeros(len(self.period_s))
        bases, cost, worst, warm = [], 0.0, 0.0, True
        for block, part in parts:
            block.load(part)
            basis = block.basis
            solution = self._run(block, begun)
            if solution is None and basis:
                block.basis = basis = b""
                solution = self._run(block, begun)
            if solution is None:
                names = ", ".join(s.name for s in part.sites[:3]) + " ..." * (len(part.sites) > 3)
                raise Infeasible(f"dispatch: {self._solver} ended {block.ended!r} at {names}; nothing is published")
            assert block.layout is not None and block.numbers is not None
            bases.append(basis)
            cost += solution.objective_usd
            worst = max(worst, solution.primal_infeasibility)
            warm = warm and bool(basis)
            decided = decide(block.layout, block.numbers, solution, part, self.parameters)
            sites.update({d.site: d for d in decided})
            if block.layout.promises.hashing is not None:
                hashing += block.layout.promises.hashing.activity(solution.x)
        start = Start(self._solver, tuple((o, str(v)) for o, v in OPTIONS), tuple(bases), coupled)
        ordered = tuple(sites[s.name] for s in fleet.sites)
        return Decision(ordered, cost, 0.0, warm, worst, self._solver, start), hashing

    def _run(self, block: Block, begun: float) -> Solution | None:
        return block.run(self.time_limit_s - (time.perf_counter() - begun))


def components(fleet: FleetState) -> Mapping[Names, FleetState]:
    """The fleet in parts that share no constraint (the hashrate floor apart), each with its backlogs, in site order."""
    leader = {s.name: s.name for s in fleet.sites}
    for backlog in fleet.backlogs:
        joined = {leader[s.name] for s in fleet.sites if any(p.backlog == backlog.name for p in s.pools)}
        for name, old in leader.items():
            leader[name] = min(joined) if old in joined else old
    members: dict[str, list[SiteState]] = {}
    for site in fleet.sites:
        members.setdefault(leader[site.name], []).append(site)
    parts: dict[Names, FleetState] = {}
    for sites in members.values():
        worked_on = {p.backlog for s in sites for p in s.pools}
        own = tuple(b for b in fleet.backlogs if b.name in worked_on)
        parts[tuple(s.name for s in sites)] = replace(fleet, sites=tuple(sites), backlogs=own)
    return parts
