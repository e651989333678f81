"""Every recorded file of Braiins, VNish, ePIC and LuxOS, as the index lists them: its own family's, or one clear line."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest

from agent.asic.decode import decode
from gridpivot.errors import BadReply

pytestmark = pytest.mark.unit
Recorded = Callable[[str], bytes]

FOLDERS = {
    "asic-rs/braiins/": "braiins",
    "asic-rs/epic/": "epic",
    "asic-rs/luxminer/": "luxos",
    "proto-fleet/antminer-vnish/": "vnish",
}
# cgminer's summary of a VNish machine is not signed: alone it looks like a stock Antminer's.
UNSIGNED = "proto-fleet/antminer-vnish/rpc/summary.json"


def test_no_recorded_file_is_taken_for_another_family(recorded: Recorded) -> None:
    listed = {row["file"] for row in csv.DictReader(io.StringIO(recorded("INDEX.csv").decode()))}
    decoded = 0
    for folder, family in FOLDERS.items():
        for file in sorted(name for name in listed if name.startswith(folder) and name != UNSIGNED):
            try:
                assert decode(recorded(file)).family == family, file
                decoded += 1
            except BadReply as error:
                assert "\n" not in str(error), file
    assert decoded >= 25
