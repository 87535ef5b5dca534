from __future__ import annotations

import subprocess
import sys

from tests.broker.process import ROOT

_SCRIPT = """
import resource
from broker.malloc import keep_memory
keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytes(3 << 20)
before = faults()
for _ in range(100):
    bytearray(3 << 20)[::4096] = b"x" * 768
print(faults() - before)
"""


def test_large_blocks_come_from_memory_that_was_used_before() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2000  # 768 pages a block, 100 blocks
