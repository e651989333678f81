"""`gridpivot site NAME --ai`: from the wire to the document."""

from __future__ import annotations

from gridpivot.ai_figures import pool_figures
from gridpivot.shapes_ai import SiteAiShape
from gridpivot.v1 import operator_pb2 as op


def site_ai_shape(site: op.SiteSummary) -> SiteAiShape:
    """One site's AI half."""
    rollup = site.rollup
    return SiteAiShape(
        site=site.site,
        report_age_s=site.report_age_s if site.HasField("report_age_s") else None,
        ai_power_w=rollup.ai_power_w if rollup.HasField("ai_power_w") else None,
        pools=[pool_figures(pool) for pool in rollup.pools],
    )
