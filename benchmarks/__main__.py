"""``python -m benchmarks``: run the benchmarks, print one table, exit 1 if a limit is broken."""

from __future__ import annotations

import argparse
import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks import (
    change_points,
    collection,
    history,
    latency,
    matrix,
    memory,
    parity_cost,
    plugin_cost,
    regressions,
    reruns,
    workers,
)
from benchmarks.common import BenchmarkError, Row, told

BENCHMARKS = {
    "plugin_cost": plugin_cost.measure,
    "collection": collection.measure,
    "matrix": matrix.measure,
    "memory": memory.measure,
    "parity_cost": parity_cost.measure,
    "latency": latency.measure,
    "workers": workers.measure,
    "change_points": change_points.measure,
    "history": history.measure,
    "regressions": regressions.measure,
    "reruns": reruns.measure,
}
# Those that run only where they are asked for.
LONG = ("regressions", "reruns")
_WIDTH = 100


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=BENCHMARKS, help="one benchmark"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer repetitions and less data: for a first look"
    )
    parser.add_argument("--long", action="store_true", help=f"also {', '.join(LONG)}")
    options = parser.parse_args()
    usual = [name for name in BENCHMARKS if options.long or name not in LONG]
    rows: list[Row] = []
    for name in options.only or usual:
        with told(name):
            try:
                rows += BENCHMARKS[name](options.quick)
            except BenchmarkError as error:
                print(error, file=sys.stderr)
                rows.append(Row(f"{name} could not be measured", "see above", ok=False))
    Console(width=_WIDTH, highlight=False).print(_table(rows))
    return 0 if all(row.ok for row in rows) else 1


def _table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("what", ratio=1)
    table.add_column("measured", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("")
    for row in rows:
        verdict = Text("over", "bold red") if not row.ok else Text("ok" if row.limit else "")
        table.add_row(Text(row.what), Text(row.measured), Text(row.limit), verdict)
    return table


if __name__ == "__main__":
    sys.exit(main())
