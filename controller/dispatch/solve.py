"""Solve the dispatch model: one HiGHS object kept alive, warm-started from the last basis."""

from __future__ import annotations

from controller.dispatch.inputs import Decision, FleetState
from controller.dispatch.parameters import Parameters
from gridpivot.errors import Infeasible


class Planner:
    """Turns fleet states into decisions; keeps the solver's model and basis between calls.

    Not safe for two threads at once; safe to move from thread to thread, one call at a time.
    """

    def __init__(self, parameters: Parameters | None = None) -> None:
        self.parameters = parameters if parameters is not None else Parameters()

    def solve(self, fleet: FleetState) -> Decision:
        """The optimal decision for this moment; blocks for up to some seconds (cold), so call it in a worker thread.

        Raises Infeasible, and publishes nothing, when the solver's answer is not optimal or breaks a constraint by
        more than 1e-6 (MW, or thousand machines), or when the state holds a number that is not finite.
        """
        raise Infeasible("not built yet")
