"""Python code in a process of its own that may take only so much memory more than its imports did."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from support.command import clean_environment

# RLIMIT_DATA counts private memory that can be written, and fails an allocation beyond it at once; Linux alone says how
# much a process has already.
PRELUDE = """
import resource
{imports}
with open("/proc/self/status") as _status:
    _data = next(int(line.split()[1]) for line in _status if line.startswith("VmData:")) << 10
resource.setrlimit(resource.RLIMIT_DATA, (_data + ({megabytes} << 20),) * 2)
"""


def run_within(megabytes: int, imports: str, code: str, *, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run `code` after `imports` with so much memory more; what it printed, and how it ended."""
    if sys.platform != "linux":
        pytest.skip("only Linux limits the memory of a process in this way")
    whole = PRELUDE.format(imports=textwrap.dedent(imports), megabytes=megabytes) + textwrap.dedent(code)
    environment = clean_environment() | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", whole], env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
