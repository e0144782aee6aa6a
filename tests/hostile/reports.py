"""Reports with wrong fields and hostile text, through every command that reads one."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecheck.commands.cli import main
from tests.report import documents

JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 10**400, "", "x" * 10_000, "\x1b[31m", "::error::", "../../x"),
    *([], {}, [[]], {"a": {"b": []}}, float("nan"), float("inf"), "2026-01-01", "<script>"),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All paths to values of a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:3])
    for key, inner in items:
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))
        else:
            yield (*path, key)


def mutated(document: dict[str, Any], rng: random.Random) -> Any:
    """The document with one to three values replaced or missing."""
    changed: Any = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(list(places(changed)))
        if not path:
            return rng.choice(JUNK)
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        if rng.random() < 0.2:
            del holder[path[-1]]
        else:
            holder[path[-1]] = rng.choice(JUNK)
    return changed


def commands(report: Path, sound: Path, folder: Path) -> list[list[str]]:
    """All commands that read a report."""
    given = [str(report)]
    return [
        ["report", *given, "--edge-history=none", f"--html={folder / 'r.html'}"],
        ["report", *given, "--edge-history=none", f"--summary={folder / 'r.md'}"],
        ["report", *given, "--edge-history=none", f"--baseline={sound}"],
        ["compare", str(sound), *given, "--edge-history=none"],
        ["compare", *given, str(sound), "--edge-history=none"],
        ["merge", *given, str(sound), f"--output={folder / 'merged.json'}"],
        ["history", "import", *given, f"--edge-history={folder / 'history.db'}"],
    ]


def problems(seed: int, folder: Path) -> list[str]:
    """What went wrong with one mutated report, by command; nothing where all is well.

    All is well where each command shows the report or refuses it in one line, without a control
    character or a CI's command in what is printed.
    """
    document = documents.document(documents.candidate())
    sound, report = folder / "sound.json", folder / "report.json"
    sound.write_text(json.dumps(document))
    report.write_text(json.dumps(mutated(document, random.Random(seed))))
    found = []
    for command in commands(report, sound, folder):
        words, errors = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(words), contextlib.redirect_stderr(errors):
                code = main(command)
        except Exception as error:
            found.append(f"{' '.join(command[:2])}, seed {seed}: {type(error).__name__}: {error}")
            continue
        said = errors.getvalue().strip()
        if code not in (0, 1, 2) or (code == 2 and not _is_one_line(said)):
            found.append(f"{' '.join(command[:2])}, seed {seed}: exit code {code}: {said}")
        if not is_fit(words.getvalue() + said):
            found.append(f"{' '.join(command[:2])}, seed {seed}: prints hostile text")
    return found


def _is_one_line(text: str) -> bool:
    return text.startswith("edgecheck: ") and "\n" not in text


def is_fit(text: str) -> bool:
    """Whether a terminal and a CI's log show a text as it is."""
    return (
        all(letter.isprintable() or letter in "\t\n" for letter in text) and "::error" not in text
    )
