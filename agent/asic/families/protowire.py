"""The protobuf wire format, as far as a handful of small messages needs it: bytes from fields, fields from bytes.

Generated classes for Braiins' whole API would be thousands of lines for six messages. Varints, doubles and
length-delimited fields only; groups are refused. Source: the public encoding guide of Protocol Buffers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from gridpivot.errors import BadReply

Value = int | float | str | bytes
Fields = Mapping[int, list[int | bytes]]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def encode(fields: Iterable[tuple[int, Value]]) -> bytes:
    """A message from (field number, value) pairs: int and bool as varint, float as double, str and bytes with length."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, float):
            out += _varint(number << 3 | _FIXED64) + struct.pack("<d", value)
        elif isinstance(value, int):
            out += _varint(number << 3 | _VARINT) + _varint(int(value))
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | _BYTES) + _varint(len(raw)) + raw
    return bytes(out)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers travel as their two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: bytes) -> Fields:
    """Fields by number, each a list in order: ints for varints, bytes for all else. Raises BadReply when malformed."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        else:
            if kind == _BYTES:
                length, at = _read_varint(data, at)
            elif kind in (_FIXED64, _FIXED32):
                length = 8 if kind == _FIXED64 else 4
            else:
                raise BadReply(f"protobuf: wire type {kind} of field {number} is not understood")
            if length > len(data) - at:
                raise BadReply(f"protobuf: field {number} is cut off")
            value, at = data[at : at + length], at + length
        fields.setdefault(number, []).append(value)
    return fields


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise BadReply("protobuf: cut off inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise BadReply("protobuf: a number longer than 64 bits")


def integer(fields: Fields, number: int) -> int | None:
    """Last varint of a field; None when absent."""
    found = [value for value in fields.get(number, ()) if isinstance(value, int)]
    return found[-1] if found else None


def text(fields: Fields, number: int) -> str | None:
    """Last string of a field; None when absent or empty."""
    found = [value for value in fields.get(number, ()) if isinstance(value, bytes)]
    return (found[-1].decode("utf-8", "replace") or None) if found else None


def double(fields: Fields, number: int) -> float | None:
    """Last double of a field; None when absent."""
    found = [value for value in fields.get(number, ()) if isinstance(value, bytes) and len(value) == 8]
    return float(struct.unpack("<d", found[-1])[0]) if found else None


def messages(fields: Fields, number: int) -> list[Fields]:
    """Every sub-message of a repeated field; raises BadReply when one is malformed."""
    return [decode(value) for value in fields.get(number, ()) if isinstance(value, bytes)]


def message(fields: Fields, number: int) -> Fields:
    """Last sub-message of a field, without fields when absent."""
    found = messages(fields, number)
    return found[-1] if found else {}
