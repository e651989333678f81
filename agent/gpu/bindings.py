"""Finds NVIDIA's NVML bindings (nvidia-ml-py, module pynvml) and notices an old package that shadows them.

PyPI's `pynvml` up to 11 is a package directory of the same name; installed beside nvidia-ml-py it wins the import.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

# The youngest calls of the reader; bindings without them are too old to trust.
NEEDED = (
    "nvmlInitWithFlags",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "NVMLError",
)


def load_bindings() -> tuple[Any | None, list[str]]:
    """The module, or None; and a line for each thing that a person should put right."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            module = importlib.import_module("pynvml")
        except ImportError:
            return None, ["the module pynvml is not installed: pip install nvidia-ml-py"]
    absent = [name for name in NEEDED if not hasattr(module, name)]
    where = getattr(module, "__file__", None) or "an unknown place"
    remedy = "pip uninstall pynvml, then pip install --force-reinstall nvidia-ml-py"
    if absent:
        return None, [f"{where} is an old pynvml without {absent[0]}: {remedy}"]
    if hasattr(module, "__path__"):
        said.append(f"{where} is the old package pynvml, which shadows nvidia-ml-py: {remedy}")
    elif any("pynvml" in str(w.message) and "deprecated" in str(w.message) for w in caught):
        said.append(f"the deprecated package pynvml is installed beside nvidia-ml-py: {remedy}")
    return module, said
