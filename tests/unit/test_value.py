"""What a megawatt-hour earns: DESIGN's formulas, worked by hand."""

from __future__ import annotations

import pytest

from gridpivot.value import ai_usd_per_mwh, hashprice_usd_per_ph_day, mining_usd_per_mwh

pytestmark = pytest.mark.unit


def test_mining_at_50_usd_per_ph_day_and_20_j_per_th() -> None:
    # 50 x 0.98 / 24 = 2.041667 USD per PH/s and hour; 20 J/TH are 20 kW per PH/s, so a MWh feeds 50 PH/s for an hour.
    assert mining_usd_per_mwh(50.0, 20.0, pool_fee_ratio=0.02) == pytest.approx(102.0833333)
    # 5 % overhead: only 0.952381 of the metered MWh reaches a miner.
    assert mining_usd_per_mwh(50.0, 20.0, 0.02, 0.05) == pytest.approx(97.2222222)


def test_an_s19_at_34_j_per_th_and_hashprice_45() -> None:
    # 45 / 24 = 1.875 USD per PH/s and hour; 1 MWh / 34 kW = 29.41176 PH/s hours.
    assert mining_usd_per_mwh(45.0, 34.21) == pytest.approx(1.875 * 1000 / 34.21)
    assert mining_usd_per_mwh(45.0, 34.0) == pytest.approx(55.1470588)


def test_ai_segment_of_a_gpu_from_550_to_1100_watts() -> None:
    # The second half of the power adds 0.30 USD to a GPU hour: 0.30 / 0.55 kWh = 545.45 USD per MWh.
    assert ai_usd_per_mwh(0.30, 0.55) == pytest.approx(545.4545454)


def test_hashprice_from_price_difficulty_and_subsidy() -> None:
    # At difficulty 1e14: 1e15 x 86400 / (1e14 x 2^32) = 2.0116568e-4 blocks per PH/s and day; x 3.125 x 60000 USD.
    assert hashprice_usd_per_ph_day(60_000.0, 1e14, 3.125) == pytest.approx(37.7185642, rel=1e-6)
    assert hashprice_usd_per_ph_day(60_000.0, 1e14, 3.125, 0.3125) == pytest.approx(1.1 * 37.7185642, rel=1e-6)
