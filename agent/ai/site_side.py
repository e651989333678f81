"""What the governor's tick tells the desk: power of each pool, its target, and whether anything may be given back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.ai.lever import PoolPower
from agent.ai.runner import AiDesk
from agent.ai.targets import Shortage, targets
from agent.backends import PoolReading
from agent.governor.state import Orders, Picture
from gridpivot.clock import Instant
from gridpivot.curves import AiPool
from gridpivot.vocabulary import MeterTrust, Stage

START_S = 60.0  # hosts come back, and their meter is believed, well within it


@dataclass(slots=True)
class AiSide:
    """One site's pools, in inventory order."""

    pools: Sequence[AiPool]
    shortage: Shortage = field(default_factory=Shortage)
    began_s: float | None = None

    def tell(
        self,
        desk: AiDesk,
        readings: Sequence[PoolReading],
        orders: Orders,
        picture: Picture,
        stage: Stage,
        now: Instant,
    ) -> None:
        """After each tick. `orders` are those before the desk's own caps: a cap is no reason to keep it."""
        desk.acts = stage in (Stage.SHED_ONLY, Stage.FULL)
        may_raise = orders.may_raise and stage is Stage.FULL and picture.meter_trust is MeterTrust.TRUSTED
        cover_w = max(0.0, picture.room_w) + picture.mining_w
        if self.began_s is None:
            self.began_s = now.monotonic_s
        # After a start hosts are silent and charged their most, and the meter contradicts that: no work goes for a guess.
        guessing = picture.meter_trust is not MeterTrust.TRUSTED and now.monotonic_s - self.began_s < START_S
        short_w = self.shortage.take(0.0 if guessing else picture.shed_short_w, now.monotonic_s)
        lockable = [name for name, side in desk.sides.items() if side.clocks is not None]
        wanted = targets(self.pools, readings, orders, short_w, lockable)
        admits = orders.pool_admits or [None] * len(self.pools)
        for pool, reading, target, door in zip(self.pools, readings, wanted, admits, strict=True):
            power = PoolPower(
                reading.read_at_s,
                reading.power_w,
                reading.limit_w,
                pool.min_w,
                pool.baseline_w,
                pool.gpu_count,
                held=reading.held,
            )
            desk.see(pool.name, power, target.target_w, target.forced, may_raise, cover_w, door)
