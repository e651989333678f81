"""A controller on an older copy of its database goes above what sites have seen, and is not led astray by one that lies."""

import pytest

from controller.planner import MOST_EPOCHS_AHEAD
from tests.unit.identity.conftest import House

pytestmark = pytest.mark.unit


async def test_epoch_goes_above_what_a_site_has_seen_and_stays_for_everything_else(house: House) -> None:
    loop = house.service.loop
    ours = loop._epoch
    await loop.outgrow("falcon-1", ours - 1, 900)
    assert loop._epoch == ours
    await loop.outgrow("falcon-1", ours, 7)  # a plan of this epoch that we never made
    assert loop._epoch == ours + 1
    await loop.outgrow("falcon-1", ours + 40, 1)
    assert loop._epoch == ours + 41
    for absurd in (ours + MOST_EPOCHS_AHEAD + 100, 2**63 - 1):
        await loop.outgrow("falcon-1", absurd, 1)
        assert loop._epoch == ours + 41
    assert await house.service.store.ledger.next_epoch() == ours + 42  # durable
