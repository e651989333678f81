"""Wire coding of lane records: one zstd frame per message, bounded on the way in.

gRPC's own gzip costs 76 ms of CPU per full report; zstd at level 1 costs about 2 ms.
"""

from __future__ import annotations

from typing import TypeAlias

import zstandard
from google.protobuf.message import DecodeError, Message

from gridpivot.errors import BadReport
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import telemetry_pb2 as pb

MAX_RECORD_BYTES = 16 * 1024 * 1024  # decompressed; a full report of 100,000 devices needs 2 MB

# A site's event is a sentence and some figures; a roll-up a few lines a class. Packed, megabytes of them weigh nothing.
MAX_EVENT_BYTES = 256 * 1024
MAX_ROLLUP_BYTES = 1024 * 1024

RecordKind: TypeAlias = "wire.RecordKind.ValueType"
_MESSAGES: dict[RecordKind, type[Message]] = {
    wire.RECORD_KIND_SITE_EVENT: pb.SiteEvent,
    wire.RECORD_KIND_SITE_ROLLUP: pb.SiteRollup,
    wire.RECORD_KIND_DEVICE_REPORT: pb.DeviceReport,
    wire.RECORD_KIND_INVENTORY: pb.Inventory,
}
_LARGEST: dict[RecordKind, int] = {
    wire.RECORD_KIND_SITE_EVENT: MAX_EVENT_BYTES,
    wire.RECORD_KIND_SITE_ROLLUP: MAX_ROLLUP_BYTES,
}
KIND_OF: dict[type[Message], RecordKind] = {message: kind for kind, message in _MESSAGES.items()}


def encode_payload(message: Message) -> bytes:
    """zstd frame of a serialised message."""
    return zstandard.compress(message.SerializeToString(), level=1)


def unpacked_bytes(payload: bytes) -> int:
    """What a record says it will be once unpacked (bytes), as far as it would be unpacked at all; 0 when it says nothing."""
    try:
        return min(max(0, zstandard.frame_content_size(payload)), MAX_RECORD_BYTES)
    except zstandard.ZstdError:
        return 0


def decode_payload(kind: RecordKind, payload: bytes) -> Message:
    """Message of a record; raises BadReport for an unknown kind, a bomb, or bytes that do not parse."""
    message_type = _MESSAGES.get(kind)
    if message_type is None:
        raise BadReport(f"record kind {kind} is unknown here; update this side")
    try:
        size, most = zstandard.frame_content_size(payload), _LARGEST.get(kind, MAX_RECORD_BYTES)
        if size < 0 or size > most:
            raise BadReport(f"record of kind {kind} with {size} bytes, at most {most} are taken")
        return message_type.FromString(zstandard.decompress(payload, max_output_size=most))
    except (zstandard.ZstdError, DecodeError) as error:
        raise BadReport(f"record of kind {kind} does not decode: {error}") from error
