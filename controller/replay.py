"""Decisions as they are kept, and taken again from their record: same state, same start, same bits.

The record leaves out what replaying brings back (the plan ahead, period by period); it is large.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from controller.dispatch.inputs import Decision, FleetState, Start
from controller.dispatch.ladder import split
from controller.dispatch.parameters import Parameters
from controller.dispatch.plan import Terms, build_plan
from controller.dispatch.solve import Planner
from controller.store.ledger import DecisionRecord, pack, unpack
from gridpivot.clock import Instant
from gridpivot.errors import Refused
from gridpivot.v1 import plan_pb2
from gridpivot.vocabulary import Posture

_FLEET = TypeAdapter(FleetState)
_DECISION = TypeAdapter(Decision)


@dataclass(frozen=True, slots=True)
class Replay:
    """What taking a decision again gave: `differences` name what is not the same, bit for bit; none = the same."""

    decision: Decision
    fleet: FleetState
    plans: int  # compared, byte by byte
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether everything was the same."""
        return not self.differences


def record_of(
    decision_id: str, decision: Decision, fleet: FleetState, now: Instant, trigger: str, parameters: Parameters
) -> DecisionRecord:
    """A decision as it is stored, with the parameters that it was weighed by. Blocks for some milliseconds at forty sites: call it in a thread."""
    start = decision.start
    written = None
    if start is not None:
        bases = [base64.b64encode(basis).decode() for basis in start.bases]
        written = pack(
            {
                "solver": start.solver,
                "options": start.options,
                "bases": bases,
                "coupled": start.coupled,
                "parameters": parameters.model_dump(mode="json"),
            }
        )
    return DecisionRecord(
        decision_id,
        now,
        trigger,
        decision.objective_usd if start is not None else None,
        pack(fleet),
        pack(_outcome(decision)),
        written,
        decision.rung.value,
    )


def fleet_of(record: DecisionRecord) -> FleetState:
    """The state that a decision was taken on."""
    return _FLEET.validate_python(unpack(record.inputs))


def decision_of(record: DecisionRecord) -> Decision:
    """A decision as it was kept: without its start and without the plan ahead."""
    return _DECISION.validate_python(unpack(record.outcome))


def start_of(record: DecisionRecord) -> Start:
    """What the solver started from; raises Refused where nothing was solved or recorded."""
    if record.start is None:
        rung = record.rung or "no rung recorded"
        raise Refused(f"{record.decision_id}: nothing was solved ({rung}), so there is nothing to replay")
    kept = unpack(record.start)
    options = tuple((str(name), str(value)) for name, value in kept["options"])
    return Start(kept["solver"], options, tuple(base64.b64decode(b) for b in kept["bases"]), kept["coupled"])


def parameters_of(record: DecisionRecord) -> Parameters:
    """What the decision was weighed by, whatever the settings say today; raises Refused where it cannot be read."""
    try:
        return Parameters.model_validate(unpack(record.start or b"")["parameters"])
    except (KeyError, ValueError) as error:
        raise Refused(
            f"{record.decision_id}: its parameters are not those of this version; it cannot be replayed"
        ) from error


def replay(record: DecisionRecord, plans: Sequence[bytes]) -> Replay:
    """Take a decision again and hold it against its record and the plans that it sent out (their exact bytes).

    Blocks for up to some seconds. Raises Refused where there is nothing to replay, Infeasible where the record is
    not one of this model.
    """
    fleet, start = fleet_of(record), start_of(record)
    again = Planner(parameters_of(record)).replay(split(fleet)[0], start)
    differences = []
    if again.solver != start.solver:
        differences.append(f"solver is {again.solver} now, was {start.solver}: the same bits cannot be promised")
    if again.start is not None and again.start.options != start.options:
        differences.append("the solver's options have changed since")
    kept = unpack(record.outcome)
    if again.objective_usd != kept["objective_usd"]:
        differences.append(f"cost is {again.objective_usd!r} USD, was {kept['objective_usd']!r}")
    was = {site["site"]: site for site in kept["sites"]}
    for site in unpack(pack(_outcome(again)))["sites"]:
        if site != was[site["site"]]:
            changed = sorted(key for key in site if site[key] != was[site["site"]][key])
            differences.append(f"{site['site']}: {', '.join(changed)} differ")
    decided = {d.site: d for d in again.sites}
    states = {s.name: s for s in fleet.sites}
    compared = 0
    for exact in plans:
        sent = plan_pb2.Plan.FromString(exact)
        if sent.site not in decided:
            continue
        compared += 1
        terms = Terms(
            sent.epoch,
            sent.version,
            sent.valid_for_ms,
            Posture(sent.fallback.posture),
            {e.event_id: e.reason for e in sent.events},
        )
        moment = Instant(0.0, sent.issued_at_unix_ms / 1000)
        plan = build_plan(decided[sent.site], states[sent.site], terms, moment, sent.reason)
        if plan.SerializeToString(deterministic=True) != exact:
            differences.append(f"{sent.site}: the plan's bytes differ")
    return Replay(again, fleet, compared, tuple(differences))


def _outcome(decision: Decision) -> Decision:
    """A decision as JSON keeps it: without what replaying brings back, and without how long it took."""
    sites = tuple(replace(s, outlook=()) for s in decision.sites)
    return replace(decision, start=None, sites=sites, solve_s=0.0)
