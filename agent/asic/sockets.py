"""The only sockets of the ASIC side: one bounded exchange over TCP, whole by its deadline or a word why not.

Whatever a device does (silence, a byte a second, ten megabytes, a slammed door), the caller gets bytes or
`DeviceUnreachable` with one of: unreachable, refused, slow, garbled.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from gridpivot.errors import DeviceUnreachable
from gridpivot.vocabulary import Reason

MAX_REPLY_BYTES = 1 << 20
_CHUNK = 1 << 16

Whole = Callable[[bytearray], bool]


async def exchange(
    host: str, port: int, payload: bytes, whole: Whole, deadline_s: float, max_bytes: int = MAX_REPLY_BYTES
) -> bytes:
    """Send `payload` and return what came until `whole` or the close; raises DeviceUnreachable."""
    writer: asyncio.StreamWriter | None = None
    where = f"{host}:{port}"
    data = bytearray()
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_connection(host, port, limit=_CHUNK)
            writer.write(payload)
            while chunk := await reader.read(_CHUNK):
                data += chunk
                if len(data) > max_bytes:
                    raise DeviceUnreachable(Reason.GARBLED, f"{where}: reply longer than {max_bytes} bytes")
                if whole(data):
                    break
    except TimeoutError:
        word, told = (Reason.UNREACHABLE, "no connection") if writer is None else (Reason.SLOW, "no complete reply")
        raise DeviceUnreachable(word, f"{where}: {told} within {deadline_s:g} s") from None
    except ConnectionRefusedError:
        raise DeviceUnreachable(Reason.REFUSED, f"{where}: connection refused; is the miner's API running?") from None
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise DeviceUnreachable(Reason.UNREACHABLE, f"{where}: {name}") from None
    finally:
        if writer is not None:
            writer.transport.abort()
    if not data:
        raise DeviceUnreachable(Reason.UNREACHABLE, f"{where}: closed without a reply; restarting?")
    return bytes(data)
