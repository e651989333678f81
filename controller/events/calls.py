"""Calls of capacity that was sold: what ceiling a call means at each site, how long it lasts, and what it suspends. Pure.

A call asks a site to stand its sold megawatts below its baseline: what the meter showed before the call, or the
contract's block. It lasts at least the product's shortest run. While it lasts, and through the product's rest after
it, the same megawatts are not asked to stand ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.connection import ConnectionSettings, SoldSettings
from controller.dispatch.terms import SoldCapacity
from gridpivot.errors import Refused


@dataclass(frozen=True, slots=True)
class Called:
    """A call of one product at one site, in real seconds from now; `ends_in_s` None = until released."""

    product: str
    starts_in_s: float
    ends_in_s: float | None


def sold_of(site: str, connection: ConnectionSettings, product: str) -> SoldSettings:
    """The site's terms for a product; raises Refused where it sold none."""
    for sold in connection.sold:
        if sold.product == product:
            return sold
    known = ", ".join(s.product for s in connection.sold) or "none"
    raise Refused(f"{site} has sold no {product!r}; its products are: {known} (sites[].connection.sold)")


def ceiling_w(site: str, connection: ConnectionSettings, product: str, standing_w: float | None) -> float:
    """Ceiling that a call means [W]; `standing_w` is what the meter shows. Raises Refused without a baseline."""
    sold = sold_of(site, connection, product)
    if sold.baseline == "contract":
        if connection.contract is None:
            raise Refused(f"{site}: {product} is measured against a contract, and it has none; give --ceiling-mw")
        baseline_w = connection.contract.block_mw * 1e6
    elif standing_w is None:
        raise Refused(f"{site}: its meter is not trusted now, so {product} has no baseline; give --ceiling-mw")
    else:
        baseline_w = standing_w
    return max(0.0, baseline_w - sold.mw * 1e6)


def least_end_ms(sold: SoldSettings, starts_at_unix_ms: int, ends_at_unix_ms: int | None) -> int | None:
    """End of a call that lasts at least the product's shortest run [ms]; None = until released."""
    if ends_at_unix_ms is None:
        return None
    return max(ends_at_unix_ms, starts_at_unix_ms + round(sold.min_run_h * 3_600_000))


def standing_ready(
    sold: tuple[SoldCapacity, ...], rest_s: Mapping[str, float], calls: tuple[Called, ...]
) -> tuple[SoldCapacity, ...]:
    """What is sold, without the times in which its product is called or rests [real s, by product]."""
    for call in calls:
        after_s = None if call.ends_in_s is None else call.ends_in_s + rest_s.get(call.product, 0.0)
        sold = tuple(
            piece for one in sold for piece in (_without(one, call.starts_in_s, after_s) if one.product == call.product else (one,))
        )  # fmt: skip
    return sold


def _without(one: SoldCapacity, begins_s: float, ends_s: float | None) -> tuple[SoldCapacity, ...]:
    pieces = []
    last = one.ends_in_s
    if one.starts_in_s < begins_s:
        pieces.append(_between(one, one.starts_in_s, begins_s if last is None else min(begins_s, last)))
    if ends_s is not None and (last is None or ends_s < last):
        pieces.append(_between(one, max(ends_s, one.starts_in_s), last))
    return tuple(pieces)


def _between(one: SoldCapacity, starts_in_s: float, ends_in_s: float | None) -> SoldCapacity:
    return SoldCapacity(
        one.product,
        one.power_w,
        one.notice_s,
        starts_in_s,
        ends_in_s,
        one.availability_usd_per_mwh,
        one.penalty_usd_per_mwh,
    )
