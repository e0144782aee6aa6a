"""``python -m tests.faults``: judges the fault corpus and the sound files, and counts.

Exit code 1 where a fault that shows above rounding escapes, too few are named rightly, or a sound
file fails.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from tests.faults import corpus, judging, sound, verdicts
from tests.faults.verdicts import Score

RIGHT_CHECK, RIGHT_LAYER, SOUND_CASES = 0.95, 0.9, 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("names", nargs="*", help="parts of the names or kinds of faults; all")
    parser.add_argument("--workers", type=int, default=2, help="pytest processes")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the planted files")
    parser.add_argument("--seeds", type=int, default=sound.SEEDS, help="of the sound files")
    parser.add_argument("--only", choices=["faults", "sound"], help="with names: the faults")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        good = options.only == "sound" or _faults(options.names, folder / "faults", options.workers)
        if options.only != "faults" and not options.names:
            good &= _sound(options.seeds, folder / "sound", options.workers)
    return 0 if good else 1


def _faults(names: list[str], folder: Path, workers: int) -> bool:
    folder.mkdir(parents=True)
    faults = [
        fault
        for fault in corpus.FAULTS
        if not names or any(word in f"{fault.kind} {fault.name}" for word in names)
    ]
    problems = verdicts.plant(faults, folder)
    planted = [fault for fault in faults if fault.name not in problems]
    found = verdicts.scores(planted, folder, workers)
    escaped = verdicts.effects([score.fault for score in found if not score.detected], folder)
    lines = [
        *table(found),
        *remarks(found, escaped),
        *(f"not planted: {name}: {problem}" for name, problem in problems.items()),
    ]
    print("\n".join(lines), flush=True)
    layered = [score for score in found if score.layer is not None]
    return (
        not problems
        and all(score.detected or escaped.get(score.fault.name, 2.0) <= 1.0 for score in found)
        and _share(score.right_check for score in found if score.detected) >= RIGHT_CHECK
        and _share(score.right_layer for score in layered if score.detected) >= RIGHT_LAYER
    )


def _share(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 1.0


def table(found: list[Score]) -> list[str]:
    """Counts by kind."""
    kinds = list(dict.fromkeys(score.fault.kind for score in found))
    width = max(map(len, kinds), default=4)
    lines = [f"{'kind':{width}}  planted  detected  right check  right layer"]
    for kind in [*kinds, ""]:
        own = [score for score in found if kind in ("", score.fault.kind)]
        layered = [score for score in own if score.layer is not None]
        layers = f"{sum(item.right_layer for item in layered)}/{len(layered)}" if layered else "-"
        lines.append(
            f"{kind or 'all':{width}}  {len(own):7}  {sum(item.detected for item in own):8}  "
            f"{sum(item.right_check for item in own):11}  {layers:>11}"
        )
    return lines


def remarks(found: list[Score], escaped: dict[str, float]) -> list[str]:
    """A line for each fault that was not found as it should be."""
    lines = []
    for score in found:
        name = score.fault.name
        said = "; ".join(f"{check}: {text}" for check, text in score.failures.items())
        if not score.detected:
            effect = "nothing failed"
            if name in escaped:
                effect = f"{escaped[name]:.2g} times the sound file's own error"
            lines.append(f"escaped: {name}: {effect}")
        elif not score.right_check:
            lines.append(f"another check: {name}: {said}")
        if score.detected and score.layer is not None and not score.right_layer:
            lines.append(f"another layer: {name}: {score.layer or 'none'}, not {score.fault.layer}")
    return lines


def _sound(seeds: int, folder: Path, workers: int) -> bool:
    folder.mkdir(parents=True)
    source = (
        f"from tests.faults.sound import declare\n\nglobals().update(declare(range({seeds})))\n"
    )
    cases = judging.judge(folder, source, sound.TARGETS, workers)["cases"]
    alarms = [case for case in cases if case["verdict"] != "passed"]
    compared = sum(case["check"] == "parity" for case in cases)
    print(
        f"sound: {compared} files of {len(sound.names())} architectures, {len(cases)} cases, "
        f"{len(alarms)} false alarms"
    )
    print(*(f"false alarm: {case['key']}: {case['reason']}" for case in alarms), sep="\n")
    return not alarms and len(cases) >= SOUND_CASES


if __name__ == "__main__":
    raise SystemExit(main())
