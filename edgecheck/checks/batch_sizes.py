"""Whether a file runs at all batch sizes; a part of `edgecheck.checks.export`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecheck.errors import ChildError

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Feeds, Workbench


def try_all(workbench: Workbench, case: Case) -> list[str]:
    """Run the parity inputs at each batch size; the batch axis of every output must follow.

    Returns:
        A sentence for each failure.

    Raises:
        ChildError: the file fails, and the sizes are not the cause.
    """
    feeds = workbench.feeds(case)
    failures = []
    try:
        results = workbench.feed_outputs(case)
    except ChildError as error:
        if error.kind != "raised" or not (problem := _size_that_fails(workbench, case, feeds)):
            raise
        return [problem]
    for index, outputs in results.items():
        batch = feeds.sizes[index].get("batch")
        for name, path in outputs.items():
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            if batch is not None and shape[:1] not in ((batch,), ()):
                failures.append(
                    f"output {name!r} has shape {shape} for {feeds.labels[index]}: "
                    "its first axis does not follow the batch"
                )
    return failures


def _size_that_fails(workbench: Workbench, case: Case, feeds: Feeds) -> str:
    """The error of a file that runs at some sizes only, or "" if sizes are not the cause."""
    session = workbench.session(case)
    ran: list[int] = []
    for index, feed in enumerate(feeds.feeds):
        with tempfile.TemporaryDirectory() as folder:
            try:
                session.run([feed], Path(folder))
            except ChildError as error:
                if not ran or feeds.sizes[index] in [feeds.sizes[other] for other in ran]:
                    return ""
                return (
                    f"the file runs on {', '.join(feeds.labels[other] for other in ran)}, but not "
                    f"on {feeds.labels[index]}: a size is fixed within it, as by a reshape to that "
                    f"of the exporter's example ({error})"
                )
        ran.append(index)
    return ""
