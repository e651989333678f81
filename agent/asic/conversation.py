"""One device, one conversation: ask what its family wants asked, answer its dialogues. I/O without policy.

`Line.read` gives a `Reading` or raises DeviceUnreachable or BadReply; `Line.carry_out` drives a command dialogue to
its `Outcome` and never raises for what a device does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.asic.family import (
    ApiRequest,
    Auth,
    Dialogue,
    Family,
    GrpcRequest,
    HttpRequest,
    Login,
    Memory,
    Outcome,
    Reading,
    Request,
)
from agent.asic.keyring import DeviceKeys
from agent.asic.repair import parse_reply
from agent.asic.sharing import share
from agent.asic.transport import Endpoint, ask, call, fetch
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import Mode, Reason

NO_RETRY = (Reason.UNAUTHORISED, Reason.NO_CREDENTIALS, Reason.UNSUPPORTED)
_PASSWORDS = (Auth.DIGEST, Auth.BASIC)
# Until the next slow beat: a firewalled port would cost a deadline at every poll.
_REFUSALS = (Reason.UNSUPPORTED, Reason.GARBLED, Reason.REFUSED, Reason.UNREACHABLE, Reason.SLOW)


@dataclass(slots=True)
class Line:
    """The way to one device: its family, where it listens, what is known of it. `repairs` counts mended replies by form.

    With `keys` the login comes from the keyring, which hears what became of each try; `login` is for those without.
    """

    family: Family
    endpoint: Endpoint
    login: Login | None
    memory: Memory
    deadline_s: float
    repairs: Counter[str]
    keys: DeviceKeys | None = None
    _trying: asyncio.Lock | None = None

    async def put(self, request: Request) -> Any:
        """Send one request and return its parsed reply; raises DeviceUnreachable or BadReply."""
        if isinstance(request, ApiRequest):
            data = await ask(self.endpoint, request, self.deadline_s)
        elif isinstance(request, HttpRequest):
            data = await self._fetch(request)
            if request.plain_text:
                return data.decode("utf-8", "replace")
            if not data.strip():
                return {}
        elif isinstance(request, GrpcRequest):
            return await call(self.endpoint, request, self.deadline_s)
        else:
            from agent.asic.foreign import library_answer  # pyasic-rs is heavy: only rare families pay for it

            return await library_answer(self.endpoint.host, request, self._login(), self.deadline_s)
        mended = parse_reply(data)
        if mended.repairs:
            self.repairs.update(mended.repairs)
        return mended.value

    def _login(self) -> Login | None:
        """What to log in with now."""
        return self.login if self.keys is None else self.keys.login(asyncio.get_running_loop().time())

    async def _fetch(self, request: HttpRequest) -> bytes:
        """One HTTP answer; a refused login is followed by the next one that the keyring allows."""
        keys = self.keys
        if keys is None or request.auth not in _PASSWORDS:
            return await fetch(self.endpoint, request, self._login(), self.deadline_s)
        if keys.known_good:
            return await self._fetch_with(keys, request)
        if self._trying is None:
            self._trying = asyncio.Lock()
        async with self._trying:  # a poll and a command must not spend two tries on one wrong password
            return await self._fetch_with(keys, request)

    async def _fetch_with(self, keys: DeviceKeys, request: HttpRequest) -> bytes:
        while True:
            login = self._login()
            if login is None and keys.any():
                raise DeviceUnreachable(Reason.UNAUTHORISED, self._barred(keys))
            try:
                data = await fetch(self.endpoint, request, login, self.deadline_s)
            except DeviceUnreachable as error:
                if error.reason != Reason.UNAUTHORISED or login is None:
                    raise
                keys.refused(login, asyncio.get_running_loop().time())
                if self._login() is None:
                    raise
            else:
                if login is not None:
                    keys.accepted(login)
                return data

    def _barred(self, keys: DeviceKeys) -> str:
        minutes = keys.wait_s(asyncio.get_running_loop().time()) / 60
        return f"{self.endpoint.host}: every password tried was refused; the next try is in {minutes:.0f} min"

    async def _with_login(self, begin: Callable[[Login | None], Dialogue | None]) -> Outcome | None:
        """Run a dialogue that may use the login, with the next one after each refusal; None when none is needed."""
        while True:
            login = self._login()
            dialogue = begin(login)
            if dialogue is None:
                return None
            outcome = await self._drive(dialogue)
            keys = self.keys
            if keys is None:
                return outcome
            if login is None:
                refused = outcome.reason is Reason.NO_CREDENTIALS and keys.any()
                return Outcome(Reason.UNAUTHORISED, self._barred(keys)) if refused else outcome
            if outcome.accepted:
                keys.accepted(login)
            if outcome.reason is not Reason.UNAUTHORISED:
                return outcome
            if self._login() == login:  # not yet counted by an HTTP exchange of this dialogue
                keys.refused(login, asyncio.get_running_loop().time())
            self.memory.token = None  # made from the login that was refused
            if self._login() is None:
                return outcome

    async def read(self, *, slow: bool, now_s: float = 0.0) -> Reading:
        """Poll once; `slow` asks for the slow facts too, whose failure costs only those facts. `now_s` is monotonic."""
        await self._sign_in(now_s)
        try:
            replies = await self._ask_fast()
        except DeviceUnreachable as error:
            if error.reason != Reason.UNAUTHORISED or self.memory.token is None:
                raise
            self.memory.token = None  # forgotten by the device: one more try with a fresh one
            await self._sign_in(now_s)
            replies = await self._ask_fast()
        if slow:
            self.memory.refused.clear()  # new firmware may know what the old one refused
            self.memory.slow_missed = await self._ask_slow(self.family.slow_requests(self.memory))
        elif self.memory.recheck:
            requests = self.family.slow_requests(self.memory)
            await self._ask_slow(tuple(request for request in requests if request.name in self.memory.recheck))
        reading = self.family.parse(replies, self.memory)
        if reading.reason is Reason.NONE and self.memory.slow_missed is not Reason.NONE:
            return replace(reading, reason=self.memory.slow_missed)
        return reading

    async def _sign_in(self, now_s: float) -> None:
        outcome = await self._with_login(lambda login: self.family.sign_in(self.memory, login, now_s))
        if outcome is not None and not outcome.accepted:
            raise DeviceUnreachable(outcome.reason, f"{self.endpoint.host}: {outcome.detail}")

    async def _ask_fast(self) -> Mapping[str, Any]:
        for _ in range(2):  # a device that refuses a form teaches its family another one
            replies = await self._ask_all(self.family.requests(self.memory))
            if replies is not None:
                return replies
        return await self._ask_all(self.family.requests(self.memory)) or {}

    async def _ask_all(self, requests: tuple[Request, ...]) -> Mapping[str, Any] | None:
        replies: dict[str, Any] = {}
        for request in requests:
            if request.optional and request.name in self.memory.refused:
                continue
            try:
                reply = await self.put(request)
            except (DeviceUnreachable, BadReply) as error:
                if not request.optional:
                    raise
                if isinstance(error, BadReply) or error.reason in _REFUSALS:
                    self.memory.refused.add(request.name)
                continue
            parts, again = self.family.absorb(request, reply, self.memory)
            if again:
                return None
            replies.update(parts)
        return replies

    async def _ask_slow(self, requests: tuple[Request, ...]) -> Reason:
        missed = Reason.NONE
        for request in requests:
            self.memory.slow_replies.pop(request.name, None)
            wants_login = isinstance(request, HttpRequest) and request.auth in _PASSWORDS
            if wants_login and self._login() is None:
                barred = self.keys is not None and self.keys.any()
                missed = Reason.UNAUTHORISED if barred else Reason.NO_CREDENTIALS
                continue
            try:
                self.memory.slow_replies[request.name] = share(await self.put(request))
                self.memory.recheck.discard(request.name)  # one that fails (the daemon restarts) is asked again
            except DeviceUnreachable as error:
                if error.reason in (Reason.UNAUTHORISED, Reason.NO_CREDENTIALS):
                    missed = Reason(error.reason)
            except BadReply:
                missed = missed if request.optional else Reason.GARBLED
        return missed

    async def prepare(self, now_s: float) -> bool:
        """Fetch what a later command will need, where anything is; True when the device was asked. Never raises."""
        dialogue = self.family.prepare(self.memory, self._login(), now_s)
        if dialogue is None:
            return False
        await self._drive(dialogue)
        return True

    async def carry_out(self, mode: Mode, now_s: float) -> Outcome:
        """Drive the family's dialogue for `mode`; `now_s` is monotonic."""
        outcome = await self._with_login(lambda login: self.family.command(mode, self.memory, login, now_s))
        assert outcome is not None  # a command always has a dialogue
        return outcome

    async def _drive(self, dialogue: Dialogue) -> Outcome:
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
            return Outcome(reason, str(error), retry=reason not in NO_RETRY)
        except BadReply as error:
            return Outcome(Reason.GARBLED, str(error), retry=True)
