"""Whether this machine has an NVIDIA GPU. Asked in a child process: drivers crash and hang too."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

_TIMEOUT_S = 30
# The CUDA driver API: cuInit, cuDeviceGetCount and cuDeviceGetName return 0 on success.
_PROBE = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
count, name = ctypes.c_int(), ctypes.create_string_buffer(100)
failed = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
if not failed and count.value and not cuda.cuDeviceGetName(name, 100, 0):
    print(name.value.decode())
"""


@cache
def gpu_name() -> str:
    """The first GPU's name, or "" where there is none that works."""
    try:
        found = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
