"""The agent's end of the GPU guard's socket: renews leases, one exchange per scan, reconnecting by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from agent.gpu.guard import MOST_LINE_BYTES, GpuWish, GuardAnswer, GuardRequest
from agent.gpu.outcomes import LimitOutcome
from agent.gpu.reading import Attempt, ClockAttempt
from gridpivot.errors import GridpivotError


class GuardAway(GridpivotError):
    """The guard did not do it; the text says why."""


class GuardClient:
    """One connection, made anew when it breaks."""

    def __init__(self, socket: Path, lease_s: float, deadline_s: float) -> None:
        self._socket, self._lease_s, self._deadline_s = socket, lease_s, deadline_s
        self._locks = True  # until a guard says that it knows none
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def renew(
        self,
        limits_w: Mapping[str, float],
        fallbacks_w: Mapping[str, float],
        now_s: float,
        clocks_mhz: Mapping[str, int] | None = None,
    ) -> tuple[dict[str, Attempt], dict[str, ClockAttempt]]:
        """Renew the lease of every GPU that has a fallback [W by UUID], with its limit and its clock where they are wanted.

        Raises GuardAway. Limits and clocks of GPUs without a fallback are not sent.
        """
        clocks = dict(clocks_mhz or {}) if self._locks else {}
        reply = await self._asked(limits_w, fallbacks_w, clocks)
        locks: dict[str, ClockAttempt] = {}
        if clocks and "clock_max_mhz" in reply.error and "Extra inputs" in reply.error:
            self._locks = False  # an older guard: limits must not fail for it
            reply = await self._asked(limits_w, fallbacks_w, {})
        if not self._locks:
            too_old = "the GPU guard is of an older version: restart gridpivot-gpu-guard"
            locks = {u: ClockAttempt(m, LimitOutcome.UNSUPPORTED, too_old) for u, m in (clocks_mhz or {}).items()}
        if reply.error:
            self._locks = True
            raise GuardAway(f"{self._socket}: {reply.error}")
        attempts = {u: Attempt(one.limit_w, one.outcome, now_s, one.detail) for u, one in reply.gpus.items()}
        return attempts, locks | {u: ClockAttempt(a.mhz, a.outcome, a.detail) for u, a in reply.clocks.items()}

    async def _asked(
        self, limits_w: Mapping[str, float], fallbacks_w: Mapping[str, float], clocks: Mapping[str, int]
    ) -> GuardAnswer:
        wishes = {
            u: GpuWish(limit_w=limits_w.get(u), fallback_w=watts, clock_max_mhz=clocks.get(u))
            for u, watts in fallbacks_w.items()
        }
        request = GuardRequest(lease_s=self._lease_s, gpus=wishes)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._exchange(request)
        except (OSError, TimeoutError, ValidationError, ValueError) as error:
            self.close()
            why = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or "no answer"
            raise GuardAway(f"{self._socket}: {why}; is gridpivot-gpu-guard running?") from None

    async def _exchange(self, request: GuardRequest) -> GuardAnswer:
        if self._streams is None:
            self._locks = True  # perhaps another guard
            self._streams = await asyncio.open_unix_connection(self._socket, limit=MOST_LINE_BYTES)
        reader, writer = self._streams
        writer.write(request.model_dump_json(exclude_none=True).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError
        return GuardAnswer.model_validate_json(line, strict=False)

    def close(self) -> None:
        """Let go of the connection; the lease runs on."""
        if self._streams is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._streams[1].close()
            self._streams = None


def away(limits_w: Mapping[str, float], why: str, now_s: float) -> dict[str, Attempt]:
    """What became of limits that could not be asked for."""
    return {uuid: Attempt(watts, LimitOutcome.NO_GUARD, now_s, why) for uuid, watts in limits_w.items()}
