"""One request to an API server: its own deadline, a bounded answer, the server's word kept. Knows no resource.

A status that is about one object (404, 409, 429, 403, 5xx) is an answer; a server that as a whole is silent, unreachable or
does not know us is WorkloadRefused. Lists come in pages that are small in bytes, since parsing one holds the interpreter, and
with it the governor's tick, in whichever thread it is done.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from agent.ai.kubernetes.settings import KubernetesSettings
from agent.ai.workload import WorkloadRefused
from gridpivot.vocabulary import LeverOutcome

if TYPE_CHECKING:
    import httpx  # an agent without Kubernetes does not pay for it

MOST_BYTES = 8 * 2**20  # of one answer; etcd keeps no object over 1.5 MiB
FIRST_PAGE, MOST_A_PAGE = 100, 500  # objects; kubectl asks for 500
PAGE_BYTES = 2**19  # what a page should come to: some 5 ms of parsing
MOST_OBJECTS, MOST_PAGES = 100_000, 5_000
IN_THREAD_BYTES = 2**15
POD_FILES = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where a pod finds its token and CA
MERGE_PATCH = "application/merge-patch+json"

Kept = TypeVar("Kept")

_WORDS = {
    401: LeverOutcome.NO_PERMISSION,
    403: LeverOutcome.NO_PERMISSION,
    404: LeverOutcome.GONE,
    429: LeverOutcome.BLOCKED,
    504: LeverOutcome.SLOW,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to one request."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    retry_after_s: float | None = None  # as the server asks, with 429 mostly
    size_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether the server took it; whether it came true is for reading back."""
        return 200 <= self.status < 300

    @property
    def outcome(self) -> LeverOutcome:
        """The word for a refusal."""
        return _WORDS.get(self.status, LeverOutcome.FAILED)

    @property
    def said(self) -> str:
        """One line: status, the server's message, when to come again."""
        message = " ".join(str(self.body.get("message", "")).split())[:200]
        again = "" if self.retry_after_s is None else f" (retry after {self.retry_after_s:g} s)"
        return f"{self.status} {message}".strip() + again


class Api:
    """One API server. Opened at the first request; `close` when done."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._deadline_s = settings.deadline_s
        self._url, self._ca_file, self._token_file = _where(settings)
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def get(self, path: str, **params: str) -> Answer:
        """One object; 404 is an answer."""
        return await self.request("GET", path, params)

    async def patch(self, path: str, body: Mapping[str, Any]) -> Answer:
        """A merge patch (RFC 7386); with metadata.resourceVersion in it the server refuses with 409 what has changed since."""
        return await self.request("PATCH", path, body=body, content_type=MERGE_PATCH)

    async def create(self, path: str, body: Mapping[str, Any]) -> Answer:
        """A new object, or a subresource such as an eviction."""
        return await self.request("POST", path, body=body)

    async def items(
        self, path: str, keep: Callable[[Sequence[Mapping[str, Any]]], Iterable[Kept]], **params: str
    ) -> tuple[Kept, ...]:
        """What `keep` makes of all objects of a collection, called page by page in a thread; the rest of a page is let go.

        Raises WorkloadRefused for whatever is not a list.
        """
        found: list[Kept] = []
        seen, size, going_on = 0, FIRST_PAGE, dict[str, str]()
        for _ in range(MOST_PAGES):
            try:
                answer = await self.get(path, **params, limit=str(size), **going_on)
            except _TooLong:
                if size == 1:
                    raise
                size = max(1, size // 4)
                continue
            if not answer.ok:
                raise WorkloadRefused(answer.outcome, f"GET {path}: {answer.said}{_hint(answer.status)}")
            items, meta = answer.body.get("items", 0), answer.body.get("metadata") or {}
            whole = isinstance(items, list | None) and all(isinstance(one, Mapping) for one in items or ())
            if not whole or not isinstance(meta, Mapping):
                raise WorkloadRefused(LeverOutcome.FAILED, f"GET {path}: not a list; is {self._url} an API server?")
            found += await asyncio.to_thread(_kept, keep, items or [])
            going_on = {"continue": str(meta["continue"])} if meta.get("continue") else {}
            if not going_on:
                return tuple(found)
            seen, size = seen + len(items or ()), _next_page(len(items or ()), answer.size_bytes)
            if seen >= MOST_OBJECTS:
                break
        raise WorkloadRefused(LeverOutcome.FAILED, f"GET {path}: more than {MOST_OBJECTS} objects")

    async def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """Raises WorkloadRefused: `slow` at the deadline, `failed` when nobody answers, `no_permission` for a bad token."""
        import httpx

        try:
            async with asyncio.timeout(self._deadline_s):
                async with self._opening:  # a look asks four questions at once
                    if self._client is None:
                        self._client = await self._open()
                headers = {"Accept": "application/json", **await self._login()}
                content = None if body is None else orjson.dumps(body)
                if content is not None:
                    headers["Content-Type"] = content_type
                async with self._client.stream(method, path, params=params, content=content, headers=headers) as said:
                    body_bytes = await _body(said, f"{method} {path}")
                if len(body_bytes) < IN_THREAD_BYTES:
                    answer = _answer(said, body_bytes)
                else:
                    answer = await asyncio.to_thread(_answer, said, body_bytes)
        except (TimeoutError, httpx.TimeoutException):
            raise WorkloadRefused(
                LeverOutcome.SLOW, f"{method} {path}: no answer within {self._deadline_s:g} s"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            why = str(error) or type(error).__name__
            raise WorkloadRefused(LeverOutcome.FAILED, f"{self._url}: {why}; is the API server up?") from None
        if answer.status == 401:
            raise WorkloadRefused(LeverOutcome.NO_PERMISSION, f"{method} {path}: {answer.said}{_hint(401)}")
        return answer

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _open(self) -> httpx.AsyncClient:
        import httpx

        verify: ssl.SSLContext | bool = True
        if self._ca_file is not None:
            try:
                verify = await asyncio.to_thread(ssl.create_default_context, cafile=str(self._ca_file))
            except (OSError, ssl.SSLError) as error:
                raise WorkloadRefused(
                    LeverOutcome.FAILED, f"{self._ca_file}: {error}; ca_file has to be the cluster's CA as PEM"
                ) from None
        # No proxies of the environment: a pool's scheduler stands in the site's own network.
        # Connection and handshake end by httpx's own hand, inside our deadline: cancelled there, it leaves its socket behind.
        timeout = httpx.Timeout(self._deadline_s, connect=0.4 * self._deadline_s)
        return httpx.AsyncClient(base_url=self._url, verify=verify, timeout=timeout, trust_env=False)

    async def _login(self) -> dict[str, str]:
        """Read each time: tokens of service accounts are changed in place within the hour."""
        if self._token_file is None:
            return {}
        try:
            token = (await asyncio.to_thread(self._token_file.read_text, "ascii")).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise WorkloadRefused(
                LeverOutcome.NO_PERMISSION, f"{self._token_file}: {error}; token_file has to hold a bearer token"
            ) from None
        return {"Authorization": f"Bearer {token}"}


class _TooLong(WorkloadRefused):
    """More bytes than one answer may have; a list can be asked for in smaller pages."""


def _kept(
    keep: Callable[[Sequence[Mapping[str, Any]]], Iterable[Kept]], items: Sequence[Mapping[str, Any]]
) -> list[Kept]:
    return list(keep(items))


def _next_page(objects: int, size_bytes: int) -> int:
    """Objects to ask for, so that a page comes to PAGE_BYTES if they are as large as the last ones."""
    return max(1, min(MOST_A_PAGE, objects * PAGE_BYTES // max(1, size_bytes)))


def _where(settings: KubernetesSettings) -> tuple[str, Path | None, Path | None]:
    """Address, CA and token: of the settings, or as every pod is told them."""
    if settings.api_url is not None:
        return settings.api_url, settings.ca_file, settings.token_file
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host or "kubernetes.default.svc"
    return (
        f"https://{host}:{port}",
        settings.ca_file or POD_FILES / "ca.crt",
        settings.token_file or POD_FILES / "token",
    )


async def _body(said: httpx.Response, what: str) -> bytes:
    body = bytearray()
    async for piece in said.aiter_bytes():
        body += piece
        if len(body) > MOST_BYTES:
            raise _TooLong(LeverOutcome.FAILED, f"{what}: more than {MOST_BYTES // 2**20} MiB")
    return bytes(body)


def _answer(said: httpx.Response, body: bytes) -> Answer:
    try:
        found = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        if said.is_success:
            raise WorkloadRefused(LeverOutcome.FAILED, f"{said.request.url.path}: an answer that is no JSON object")
        found = {}  # a proxy's page; the status says enough
    return Answer(said.status_code, found, _seconds(said.headers.get("retry-after")), len(body))


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 8 else None


def _hint(status: int) -> str:
    return {401: "; is the token expired?", 403: "; see deploy/kubernetes/rbac.yaml"}.get(status, "")
