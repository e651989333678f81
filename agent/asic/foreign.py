"""Miners that no family here speaks to, through pyasic-rs: identified over the network once, then asked. I/O only.

The library calls an unreachable miner one that mines, without an exception, so reachability is ours: a port must open
before it is asked, and an answer without a single fact counts as none. What it says of a command is passed on as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from agent.asic.family import LibraryRequest, Login
from gridpivot.errors import DeviceUnreachable
from gridpivot.vocabulary import Reason

DOORS = (4028, 80, 8080, 4433, 443, 50051)  # where the miners that the library knows listen
_FACTS = ("hashrate", "wattage", "uptime", "mac", "firmware_version", "api_version", "hostname")
_MAX_KNOWN = 20_000

_known: dict[str, Any] = {}  # host -> the library's handle; dropped whenever its device was not there


async def library_answer(
    host: str, request: LibraryRequest, login: Login | None, deadline_s: float
) -> Mapping[str, Any]:
    """Reply of the library as a plain mapping; raises DeviceUnreachable (unreachable, slow, unsupported, garbled).

    `data` gives the library's own field names. Commands give `supported` and, where it is true, `said`.
    """
    reached = False
    try:
        async with asyncio.timeout(deadline_s):
            await _require_door(host)
            reached = True
            miner = _known.get(host) or await _identify(host, login)
            if request.action == "data":
                return await _data(host, miner)
            return await _obey(miner, request)
    except TimeoutError:
        _known.pop(host, None)
        word = Reason.SLOW if reached else Reason.UNREACHABLE
        raise DeviceUnreachable(word, f"{host}: no answer within {deadline_s:g} s") from None
    except DeviceUnreachable as error:
        if error.reason != Reason.UNSUPPORTED:
            _known.pop(host, None)
        raise
    except (RuntimeError, ValueError, OSError) as error:  # what the library raises for a device it cannot talk to
        _known.pop(host, None)
        told = f"{host}: {request.action} failed in the library ({type(error).__name__})"
        raise DeviceUnreachable(Reason.GARBLED, told) from None


async def _require_door(host: str) -> None:
    """Return once any known port opens; raises DeviceUnreachable when all of them are refused."""
    pending = {asyncio.create_task(_opens(host, port)) for port in DOORS}
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() for task in done):
                return
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    raise DeviceUnreachable(Reason.UNREACHABLE, f"{host}: no port of a miner is open")


async def _opens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.transport.abort()
    return True


async def _identify(host: str, login: Login | None) -> Any:
    try:
        from pyasic_rs import MinerFactory
    except ImportError:
        told = f"{host}: the family 'other' needs pyasic-rs; install it with pip install pyasic-rs"
        raise DeviceUnreachable(Reason.UNSUPPORTED, told) from None
    miner = await MinerFactory().get_miner(host)
    if miner is None:
        raise DeviceUnreachable(Reason.UNSUPPORTED, f"{host}: pyasic-rs does not know what this is")
    if login is not None:
        miner.set_auth(login.username, login.password)  # once: it forgets its token at every call
    while len(_known) >= _MAX_KNOWN:
        _known.pop(next(iter(_known)))
    _known[host] = miner
    return miner


async def _data(host: str, miner: Any) -> Mapping[str, Any]:
    said: Mapping[str, Any] = (await miner.get_data()).model_dump()
    if all(said.get(fact) in (None, "") for fact in _FACTS):
        raise DeviceUnreachable(Reason.UNREACHABLE, f"{host}: a port is open, but it tells nothing that can be read")
    return said


async def _obey(miner: Any, request: LibraryRequest) -> Mapping[str, Any]:
    able, call = {
        "pause": (miner.supports_pause, miner.pause),
        "resume": (miner.supports_resume, miner.resume),
        "limit_power": (miner.supports_set_power_limit, miner.set_power_limit),
    }[request.action]
    if not able:
        return {"supported": False}
    said = await (call() if request.argument is None else call(request.argument))
    return {"supported": True, "said": bool(said)}
