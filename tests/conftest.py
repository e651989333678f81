"""Hypothesis profiles and the shared data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

ROOT = Path(__file__).resolve().parent.parent


def missing(component: str) -> None:
    """Skip with one line on a user's machine; fail on CI, where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{component} is missing, and CI must have it")
    pytest.skip(f"SKIPPED: {component} is missing on this machine")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recorded replies, prices and traces; GRIDPIVOT_SHARED or ../shared."""
    root = Path(os.environ.get("GRIDPIVOT_SHARED", ROOT.parent / "shared")) / "data"
    if not root.is_dir():
        missing(f"shared data at {root} (set GRIDPIVOT_SHARED)")
    return root
