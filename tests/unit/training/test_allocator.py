import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource
import torch
from lamina.training.device import keep_freed_memory

def count():
    torch.ones(4 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(4 << 20)  # 16 MiB, given back at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(count(), keep_freed_memory(), count())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another system's allocator")
def test_memory_that_was_freed_is_not_asked_for_anew():
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True
    )
    before, is_kept, after = done.stdout.split()
    if is_kept == "True":  # GNU's C library; another cannot be configured
        assert int(before) > 20 * 100  # pages of 4 KiB, or fewer of 64
        assert int(after) < int(before) / 10
