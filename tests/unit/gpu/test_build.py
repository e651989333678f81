"""Building the stand-in library: once per source, whole or not at all, and None where nothing can compile."""

import importlib.util
from pathlib import Path

import pytest

from sim.gpus import SimGpus
from sim.nvml import build as building

pytestmark = pytest.mark.unit


def test_unchanged_source_is_not_compiled_again(library: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(building, "_compilers", lambda: pytest.fail("compiled again"))
    assert building.build(library.parent) == library


def test_machine_without_compiler_has_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert SimGpus.open(tmp_path, 8) is None


def test_broken_compiler_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(building, "_compilers", lambda: [["false"]])
    assert building.build(tmp_path / "nvml") is None
    assert list((tmp_path / "nvml").iterdir()) == []
