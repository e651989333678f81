"""Address ranges that a person types: 10.1.0.0/18, 10.1.0.10-10.1.0.99, 10.1.0.7. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from gridpivot.errors import SettingsError

MANY_ADDRESSES = 1 << 17  # a /15: more is rarely meant


@dataclass(frozen=True, slots=True)
class AddressRange:
    """From the first to the last address, both included."""

    first: IPv4Address
    last: IPv4Address

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1


def parse_ranges(texts: Sequence[str]) -> list[AddressRange]:
    """Ranges in order, overlaps merged; raises SettingsError naming what cannot be read and how to write it."""
    ranges = sorted((_parse(text) for text in texts), key=lambda r: (int(r.first), int(r.last)))
    merged: list[AddressRange] = []
    for each in ranges:
        if merged and int(each.first) <= int(merged[-1].last) + 1:
            merged[-1] = AddressRange(merged[-1].first, max(merged[-1].last, each.last))
        else:
            merged.append(each)
    return merged


def addresses(ranges: Sequence[AddressRange]) -> Iterator[str]:
    """Every address, one after the other."""
    for each in ranges:
        for number in range(int(each.first), int(each.last) + 1):
            yield str(IPv4Address(number))


def _parse(text: str) -> AddressRange:
    first, dash, last = (part.strip() for part in text.partition("-"))
    try:
        if dash:
            # 10.1.0.10-99 is what technicians write
            whole = last if "." in last else f"{first.rsplit('.', 1)[0]}.{last}"
            found = AddressRange(IPv4Address(first), IPv4Address(whole))
            if found.first > found.last:
                raise ValueError("it ends before it begins")
            return found
        network = ipaddress.IPv4Network(first, strict=False)
    except ValueError as error:
        raise SettingsError(
            f"{text}: not an IPv4 range ({error}); write 10.1.0.0/18, 10.1.0.10-10.1.0.99 or one address"
        ) from None
    if network.prefixlen >= 31:
        return AddressRange(network.network_address, network.broadcast_address)
    return AddressRange(network.network_address + 1, network.broadcast_address - 1)  # neither is a host's
