"""What the process takes from the system it gives back."""

import psutil
import pytest

from gridpivot.limits import give_back_memory

pytestmark = pytest.mark.unit
BLOCK_BYTES, BLOCKS = 64 * 1024, 1_600  # below glibc's mmap threshold: these come from the heap


def test_freed_heap_goes_back_to_the_system() -> None:
    process = psutil.Process()
    give_back_memory()
    before = process.memory_info().rss
    held = [bytearray(b"x") * BLOCK_BYTES for _ in range(BLOCKS)]
    pin = bytearray(b"x") * BLOCK_BYTES  # the last block stays, so that the heap cannot simply shrink
    assert process.memory_info().rss - before > BLOCK_BYTES * BLOCKS / 2
    held.clear()
    give_back_memory()
    assert process.memory_info().rss - before < BLOCK_BYTES * BLOCKS / 4
    assert len(pin) == BLOCK_BYTES
