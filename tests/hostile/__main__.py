"""``python -m tests.hostile``: mutated files and reports, kills and cancels.

Exit code 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.hostile import kills, mutants, reports


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("--mutants", type=int, default=2000, help="model files")
    parser.add_argument("--kills", type=int, default=100, help="runs that are stopped")
    parser.add_argument("--reports", type=int, default=3000, help="JSON reports")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for name, count, attack in (
            ("reports", options.reports, _reports),
            ("kills", options.kills, kills.run),
            ("mutants", options.mutants, _mutants),
        ):
            if count:
                good &= _tried(name, count, attack, options.seed, Path(folder) / name)
    return 0 if good else 1


Attack = Callable[[int, int, Path], list[str]]


def _tried(name: str, count: int, attack: Attack, seed: int, folder: Path) -> bool:
    started = time.monotonic()
    problems = attack(count, seed, folder)
    minutes = (time.monotonic() - started) / 60
    print(f"{name}: {count} in {minutes:.1f} minutes, seed {seed}: {len(problems)} problems")
    print("".join(f"  {line}\n" for line in problems), end="", flush=True)
    return not problems


def _reports(count: int, seed: int, folder: Path) -> list[str]:
    folder.mkdir()
    numbers = range(seed * count, (seed + 1) * count)
    return [line for number in numbers for line in reports.problems(number, folder)]


def _mutants(count: int, seed: int, folder: Path) -> list[str]:
    tally = mutants.run(count, seed, folder)
    for (kind, verdict), number in sorted(tally.verdicts.items()):
        print(f"  {kind} {verdict}: {number}")
    return tally.problems


if __name__ == "__main__":
    raise SystemExit(main())
