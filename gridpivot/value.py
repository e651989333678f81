"""What a megawatt-hour earns, at the meter. Pure arithmetic, shared by dispatch, the merit order and the views."""

from __future__ import annotations


def mining_usd_per_mwh(
    hashprice_usd_per_ph_day: float,
    efficiency_j_per_th: float,
    pool_fee_ratio: float = 0.0,
    overhead_ratio: float = 0.0,
) -> float:
    """Mining income per MWh at the meter [USD/MWh].

    hashprice x (1 - fee) / 24 is USD per PH/s and hour; one PH/s draws 1000 x J/TH watts, so a MWh feeds
    1e6 / (1000 x J/TH) PH/s for an hour; overhead adds to what the meter sees.
    """
    usd_per_ph_hour = hashprice_usd_per_ph_day * (1.0 - pool_fee_ratio) / 24.0
    return usd_per_ph_hour * 1000.0 / efficiency_j_per_th / (1.0 + overhead_ratio)


def ai_usd_per_mwh(delta_usd_per_gpu_hour: float, delta_kw_per_gpu: float) -> float:
    """AI income per MWh of one segment at the meter [USD/MWh].

    1000 x d($/GPU-h) / d(kW per GPU), the kW with the host and cooling share included.
    """
    return 1000.0 * delta_usd_per_gpu_hour / delta_kw_per_gpu


def hashprice_usd_per_ph_day(
    btc_usd: float, difficulty: float, subsidy_btc: float, fees_btc_per_block: float = 0.0
) -> float:
    """Expected income of one PH/s for a day [USD]: 1e15 x 86400 / (difficulty x 2^32) blocks, each subsidy + fees."""
    blocks_per_ph_day = 1e15 * 86_400.0 / (difficulty * 2.0**32)
    return blocks_per_ph_day * (subsidy_btc + fees_btc_per_block) * btc_usd
