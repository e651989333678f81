"""What circuits let each class draw, as dispatch is told: joint, in proportion, and silent where nothing limits."""

from __future__ import annotations

import numpy as np
import pytest

from agent.governor.circuits import Level, achievable_w

pytestmark = pytest.mark.unit


def level(of_row, limit_w):
    free = np.full(len(limit_w), np.inf)
    return Level(np.array(of_row), np.array(limit_w, dtype=float), free, free)


def test_circuit_that_bears_everything_limits_nothing():
    found = achievable_w((level([0, 0, 1], [8_000, 4_000]),), np.array([0, 1, 1]), np.full(3, 3_500.0), 2)
    assert np.isinf(found).all()


def test_classes_on_one_circuit_are_promised_no_more_than_it_bears_together():
    found = achievable_w((level([0, 0, 0, 0], [7_000]),), np.array([0, 1, 1, 1]), np.full(4, 3_500.0), 2)
    assert found.tolist() == pytest.approx([1_750.0, 5_250.0])


def test_narrowest_level_counts_and_rows_without_a_circuit_are_free():
    pdu = level([0, 0, -1], [3_500])
    feeder = level([0, 0, 0], [9_000])
    found = achievable_w((pdu, feeder), np.array([0, 0, 0]), np.full(3, 3_500.0), 1)
    assert found.tolist() == pytest.approx([7_000.0])
