"""One device, one conversation: ask what its family wants asked, answer its dialogues. I/O without policy.

`Line.read` gives a `Reading` or raises DeviceUnreachable or BadReply; `Line.carry_out` drives a command dialogue to
its `Outcome` and never raises for what a device does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.asic.family import ApiRequest, Family, HttpRequest, Login, Memory, Outcome, Reading, Request
from agent.asic.repair import parse_reply
from agent.asic.transport import Endpoint, ask, fetch
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import Mode, Reason

_NO_RETRY = (Reason.UNAUTHORISED, Reason.NO_CREDENTIALS)


@dataclass(slots=True)
class Line:
    """The way to one device: its family, where it listens, what is known of it. `repairs` counts mended replies by form."""

    family: Family
    endpoint: Endpoint
    login: Login | None
    memory: Memory
    deadline_s: float
    repairs: Counter[str]

    async def put(self, request: Request) -> Any:
        """Send one request and return its parsed reply; raises DeviceUnreachable or BadReply."""
        if isinstance(request, ApiRequest):
            data = await ask(self.endpoint, request.payload, self.deadline_s)
        else:
            data = await fetch(self.endpoint, request.method, request.path, request.body, self.login, self.deadline_s)
        mended = parse_reply(data)
        self.repairs.update(mended.repairs)
        return mended.value

    async def read(self, *, slow: bool) -> Reading:
        """Poll once; `slow` asks for the slow facts too, whose failure costs only those facts."""
        replies = await self._ask_all(self.family.requests(self.memory))
        if replies is None:  # the device refused the form, the family has learned from it
            replies = await self._ask_all(self.family.requests(self.memory))
        if replies is None:
            replies = await self._ask_all(self.family.requests(self.memory)) or {}
        if slow:
            self.memory.slow_missed = await self._ask_slow()
        reading = self.family.parse(replies, self.memory)
        return replace(reading, reason=self.memory.slow_missed) if reading.reason is Reason.NONE else reading

    async def _ask_all(self, requests: tuple[Request, ...]) -> Mapping[str, Any] | None:
        replies: dict[str, Any] = {}
        for request in requests:
            parts, again = self.family.absorb(request, await self.put(request), self.memory)
            if again:
                return None
            replies.update(parts)
        return replies

    async def _ask_slow(self) -> Reason:
        missed = Reason.NONE
        for request in self.family.slow_requests(self.memory):
            self.memory.slow_replies.pop(request.name, None)
            if isinstance(request, HttpRequest) and self.login is None:
                missed = Reason.NO_CREDENTIALS
                continue
            try:
                self.memory.slow_replies[request.name] = await self.put(request)
            except DeviceUnreachable as error:
                if error.reason in _NO_RETRY:
                    missed = Reason(error.reason)
            except BadReply:
                missed = Reason.GARBLED
        return missed

    async def carry_out(self, mode: Mode, now_s: float) -> Outcome:
        """Drive the family's dialogue for `mode`; `now_s` is monotonic."""
        dialogue = self.family.command(mode, self.memory, self.login, now_s)
        try:
            request = next(dialogue)
            while True:
                try:
                    reply = await self.put(request)
                except (DeviceUnreachable, BadReply) as error:
                    request = dialogue.throw(error)
                else:
                    request = dialogue.send(reply)
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome
        except DeviceUnreachable as error:
            reason = Reason(error.reason)
            return Outcome(reason, str(error), retry=reason not in _NO_RETRY)
        except BadReply as error:
            return Outcome(Reason.GARBLED, str(error), retry=True)
