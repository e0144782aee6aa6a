"""Ends this process as soon as the one that started it is dead.

Without that, xdist's workers go on for seconds after their controller was killed, and so do the
children that they measure with.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies; on Linux only."""
    parent = os.getppid()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that call: no signal will come
            os._exit(1)
