"""Whether a second build of the same program is the same file, or at least gives the same outputs.

Part of the parity check where ``--edge-rebuild`` asks for it, since it costs a build.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgecheck.digests import digest_of, file_sha256
from edgecheck.judge import determinism
from edgecheck.judge.determinism import BUILDS, Difference
from edgecheck.judge.verdict import Evidence

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench

# A cache may be carried from one machine to another, as CI does. Its key does not hold the
# processor, and ranges of calibration and folded constants are sums that kernels round.
_FROM_CACHE = (
    "; the first one is from the cache, and another processor, which rounds otherwise, may have "
    "made it: compare with an empty --edge-cache"
)


def measure(workbench: Workbench, case: Case, noise: Mapping[str, float]) -> Evidence:
    """Build the file again and compare; nothing where it is not built here.

    Args:
        noise: by output, how much rounding alone moves it, in its unit, where that is known.
    """
    again = workbench.rebuilt(case) if workbench.settings.rebuild else None
    if again is None:
        return Evidence()
    built = workbench.built(case)
    if file_sha256(again) == built.sha256:
        return Evidence(measurements={"rebuild": {"same_file": True}})
    session = workbench.device.open(f"again {case.candidate}", case.target, again, case.options)
    session.bind(workbench.binding(case))
    before = workbench.feed_outputs(case)
    feeds = workbench.feeds(case).feeds
    folder = workbench.settings.scratch / "rebuilt" / digest_of({"case": case.candidate})[:40]
    after = session.run([feeds[index] for index in before], folder)
    worst: dict[str, Difference] = {}
    for first, other in zip(before.values(), after, strict=True):
        for name, path in first.items():
            found = determinism.difference(
                np.load(path, allow_pickle=False), np.load(other[name], allow_pickle=False)
            )
            if name not in worst or found.share > worst[name].share:
                worst[name] = found
    failures, warnings = determinism.judge(case.precision, {BUILDS: worst}, noise)
    if not failures and not warnings:
        warnings = [
            "two builds of the same program differ in their bytes, and not in their outputs: what "
            "ships can't be reproduced"
        ]
    outputs = {name: item.as_data() for name, item in worst.items()}
    hint = _FROM_CACHE if built.cached else ""
    return Evidence(
        tuple(text + hint for text in failures),
        tuple(text + hint for text in warnings),
        {"rebuild": {"same_file": False, "differences": outputs}},
    )
