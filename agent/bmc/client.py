"""One request to a BMC at a time: its own deadline, a bounded answer, a session that is kept and given back.

BMCs answer in 0.2 to 3 s, allow a handful of sessions (eight on an iDRAC, which then answers 503 to everybody), and lock
out who comes with a wrong password again and again. So one session is used for all requests, ended when we end, and
redirects are not followed: the password would go with them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from agent.asic.settings import read_secret
from agent.bmc.outcomes import BmcOutcome, BmcTrouble
from agent.bmc.payload import ROOT, link
from agent.bmc.settings import BmcSettings
from agent.bmc.trust import distrusted, tls_context
from gridpivot.errors import SettingsError

MOST_BYTES = 2**20
SESSIONS = "/redfish/v1/SessionService/Sessions"  # DSP0266; the root says where, on most
_WORDS = {
    401: BmcOutcome.UNAUTHORISED,
    403: BmcOutcome.UNAUTHORISED,
    429: BmcOutcome.BUSY,
    503: BmcOutcome.BUSY,
    504: BmcOutcome.SLOW,
}


class Redfish:
    """One BMC. Connects at the first request; `close` ends the session."""

    def __init__(self, settings: BmcSettings) -> None:
        self._settings, self._url = settings, settings.url.rstrip("/")
        self._client: httpx.AsyncClient | None = None
        self._token: str | None = None
        self._session: str | None = None  # its path, to be deleted
        self._one = asyncio.Lock()

    async def get(self, path: str) -> Mapping[str, Any]:
        """One resource; raises BmcTrouble."""
        async with self._one:
            return await self._ask("GET", path)

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """An action; raises BmcTrouble, `refused` when the BMC says no. That it was taken is no evidence of anything."""
        async with self._one:
            await self._ask("POST", path, body)

    async def close(self) -> None:
        """End the session at the BMC, and the connection."""
        async with self._one:
            client, self._client = self._client, None
            if client is None:
                return
            if self._session is not None and self._token is not None:
                with contextlib.suppress(httpx.HTTPError, TimeoutError, OSError):
                    async with asyncio.timeout(self._settings.deadline_s):
                        await client.delete(self._session, headers={"X-Auth-Token": self._token})
            self._session = self._token = None
            await client.aclose()

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """With a login, and with a new one when the session has ended meanwhile."""
        had = self._token
        status, found, _ = await self._send(method, path, body, await self._login())
        if status == 401 and had is not None:
            self._session = self._token = None
            status, found, _ = await self._send(method, path, body, await self._login())
        if not 200 <= status < 300:
            word = _WORDS.get(status, BmcOutcome.REFUSED if method == "POST" else BmcOutcome.GARBLED)
            if word is BmcOutcome.UNAUTHORISED:
                self._session = self._token = None
            raise BmcTrouble(word, f"{self._url}{path}: {status} {_said(found)}".rstrip())
        return found

    async def _login(self) -> Mapping[str, str]:
        """The password is read each time it is needed: who changes it need not restart us."""
        if self._settings.auth == "basic":
            pair = f"{self._settings.username}:{await self._password()}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}
        if self._token is None:
            await self._open_session(await self._password())
        return {"X-Auth-Token": self._token or ""}

    async def _password(self) -> str:
        try:
            return await asyncio.to_thread(read_secret, self._settings.password_file)
        except SettingsError as error:
            raise BmcTrouble(BmcOutcome.UNAUTHORISED, str(error)) from None

    async def _open_session(self, password: str) -> None:
        _, root, _ = await self._send("GET", ROOT, None, {})
        place = link(root, "Links", "Sessions") or SESSIONS
        login = {"UserName": self._settings.username, "Password": password}
        status, found, headers = await self._send("POST", place, login, {})
        token = headers.get("x-auth-token")
        if not 200 <= status < 300 or not token:
            # The specification says 401 to a wrong password; BMCs say 400 and 403 too.
            word = BmcOutcome.UNAUTHORISED if status in (400, 401, 403) else _WORDS.get(status, BmcOutcome.GARBLED)
            raise BmcTrouble(word, f"{self._url}: no session for {self._settings.username}: {status} {_said(found)}")
        where = headers.get("location") or found.get("@odata.id")
        self._token = token
        self._session = urlsplit(where).path if isinstance(where, str) else None

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, login: Mapping[str, str]
    ) -> tuple[int, Mapping[str, Any], httpx.Headers]:
        deadline_s = self._settings.deadline_s
        headers = {"Accept": "application/json", "OData-Version": "4.0", **login}
        content = None if body is None else orjson.dumps(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with asyncio.timeout(deadline_s):
                if self._client is None:
                    self._client = await self._open()
                async with self._client.stream(method, path, content=content, headers=headers) as said:
                    return said.status_code, self._body(path, said, await self._bounded(path, said)), said.headers
        except (TimeoutError, httpx.TimeoutException):
            raise BmcTrouble(BmcOutcome.SLOW, f"{self._url}{path}: no answer within {deadline_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            why = distrusted(error)
            if why is not None:
                raise BmcTrouble(BmcOutcome.UNTRUSTED, f"{self._url}: {why}") from None
            raise BmcTrouble(BmcOutcome.UNREACHABLE, f"{self._url}: {error or type(error).__name__}") from None

    async def _open(self) -> httpx.AsyncClient:
        context = await asyncio.to_thread(tls_context, self._settings)
        # Connection and handshake end by httpx's own hand, inside our deadline: cancelled there, it leaves its socket behind.
        timeout = httpx.Timeout(self._settings.deadline_s, connect=0.8 * self._settings.deadline_s)
        limits = httpx.Limits(max_connections=1, keepalive_expiry=2.0 * self._settings.beat_s)
        return httpx.AsyncClient(base_url=self._url, verify=context, timeout=timeout, limits=limits, trust_env=False)

    async def _bounded(self, path: str, said: httpx.Response) -> bytes:
        body = bytearray()
        async for piece in said.aiter_bytes():
            body += piece
            if len(body) > MOST_BYTES:
                raise BmcTrouble(BmcOutcome.GARBLED, f"{self._url}{path}: more than {MOST_BYTES // 2**20} MiB")
        return bytes(body)

    def _body(self, path: str, said: httpx.Response, body: bytes) -> Mapping[str, Any]:
        try:
            found = orjson.loads(body) if body else {}
        except orjson.JSONDecodeError:
            found = None
        if isinstance(found, dict):
            return found
        if said.is_success:
            raise BmcTrouble(BmcOutcome.GARBLED, f"{self._url}{path}: an answer that is no JSON object")
        return {}  # an error page; the status says enough


def _said(body: Mapping[str, Any]) -> str:
    """The BMC's own words for a refusal, in a line."""
    error = body.get("error")
    info = error.get("@Message.ExtendedInfo") if isinstance(error, Mapping) else None
    first = info[0] if isinstance(info, list) and info and isinstance(info[0], Mapping) else error
    message = first.get("Message", first.get("message", "")) if isinstance(first, Mapping) else ""
    return " ".join(str(message).split())[:160]
