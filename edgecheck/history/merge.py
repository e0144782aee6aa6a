"""Shards of one run, from a CI matrix or several machines, merged into one JSON report.

The gate is judged anew over all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgecheck.errors import HistoryError
from edgecheck.judge.gate import closes, count_verdicts, judge_gate
from edgecheck.names import SCHEMA, VERDICTS

Document = Mapping[str, Any]
Record = dict[str, Any]

# pytest's exit codes, the worst first: internal error, interrupted, wrong usage, failed, no tests.
_EXIT_STATUSES = (3, 2, 4, 1, 5, 0)
_PASSED, _FAILED, _INTERRUPTED, _INTERNAL_ERROR, _NO_TESTS = 0, 1, 2, 3, 5
_ENDS = {_INTERRUPTED: "was interrupted", _INTERNAL_ERROR: "ended with an internal error"}
# Options that list names; "" selects all there are.
_LISTS = ("targets", "precisions", "models", "checks")
_RUN = ("finished", "exit_status", "command", "options")
_CASE = ("nodeid", "required")


def merge(documents: Sequence[Document], *, accept_dirty: bool = False) -> dict[str, Any]:
    """One report of all shards' cases, the same in whatever order they are given.

    A case that one shard could not check has the verdict of the shard that did. Of two verdicts the
    worse stands, with a warning. The gate is closed by what closes it over all cases; by a shard
    that was interrupted or ended with an error; and by whatever else closed a shard's own gate.

    Args:
        documents: JSON reports (see `report_file.read`); merged ones may be among them.
        accept_dirty: whether shards may be of trees that differ from their commit.

    Returns:
        A report whose ``run.shards`` names the runs that it is made of.

    Raises:
        HistoryError: there are none, one is given twice, or they are not of the same commit.
    """
    shards = _distinct(documents)
    _check_commits(shards, accept_dirty)
    records = _merge_cases(shards)
    accept_missing = all(_accepts_missing(item) for item in shards)
    errors = _errors(shards) or ([] if records else ["the reports hold no case"])
    gate = judge_gate(records, accept_missing=accept_missing, errors=errors)
    return {
        "schema": SCHEMA,
        "run": _merge_runs(shards, gate.closed, bool(records)),
        "gate": {
            "verdict": "closed" if gate.closed else "passed",
            "reason": gate.line,
            "counts": count_verdicts(records),
        },
        "cases": records,
        "absences": _merge_absences(shards),
        "skipped_targets": _merge_skipped(shards, {item["target"] for item in records}),
    }


# -- what may be merged


def _distinct(documents: Sequence[Document]) -> list[Document]:
    """The reports in a fixed order; the same one given twice counts once."""
    if not documents:
        raise HistoryError("there is no report to merge")
    found: dict[str, Document] = {}
    for document in documents:
        _check(document)
        name = document["run"]["id"]
        if found.setdefault(name, document) != document:
            raise HistoryError(f"two different reports are of run {name}")
    parts = [item["id"] for document in found.values() for item in _shards_of(document)]
    twice = sorted({name for name in parts if parts.count(name) > 1})
    if twice:
        raise HistoryError(
            f"run {', '.join(twice)} is given by itself and as a part of a merged report"
        )
    return sorted(found.values(), key=lambda item: (item["run"]["started"], item["run"]["id"]))


def _check(document: Document) -> None:
    run = document["run"]
    missing = [f"run.{name}" for name in _RUN if name not in run]
    missing += [name for name in ("absences", "skipped_targets") if name not in document]
    missing += [
        f"case {item['key']}: {name}"
        for item in document["cases"]
        for name in _CASE
        if name not in item
    ]
    missing += [
        f"verdict {item['verdict']!r}"
        for item in document["cases"]
        if item["verdict"] not in VERDICTS
    ]
    if missing:
        raise HistoryError(f"the report of run {run['id']}: there is no {missing[0]}")


def _check_commits(shards: Sequence[Document], accept_dirty: bool) -> None:
    """Verdicts on different states of the code are not verdicts on one release."""
    if len(shards) == 1:
        return
    runs: dict[str, list[str]] = {}
    for document in shards:
        git = document["run"]["git"] or {}
        commit = git.get("commit")
        runs.setdefault(f"commit {commit}" if commit else "no commit", []).append(_name(document))
    if len(runs) > 1:
        told = "; ".join(f"{state}: {', '.join(names)}" for state, names in sorted(runs.items()))
        raise HistoryError(f"the reports are not of one commit: {told}")
    dirty = [_name(item) for item in shards if (item["run"]["git"] or {}).get("dirty")]
    if dirty and not accept_dirty:
        raise HistoryError(
            f"files differed from the commit, maybe not alike, in {', '.join(dirty)}"
        )


def _name(document: Document) -> str:
    host = document["run"]["host"]
    return f"run {document['run']['id'][:8]} ({host.get('cpu') or host.get('machine')})"


# -- cases


def _merge_cases(shards: Sequence[Document]) -> list[Record]:
    judged: dict[tuple[str, str], list[tuple[Document, Record]]] = {}
    for document in shards:
        for item in document["cases"]:
            # The file's path depends on where pytest ran; what follows tells a test's own
            # parameters apart, which the key does not hold.
            identity = (item["key"], item["nodeid"].partition("::")[2])
            judged.setdefault(identity, []).append((document, item))
    merged = [_merge_case(found) for found in judged.values()]
    return sorted(merged, key=lambda item: (item["key"], item["nodeid"]))


def _merge_case(found: Sequence[tuple[Document, Record]]) -> Record:
    verdicts = [item for item in found if item[1]["verdict"] != "not_checked"]
    document, record = min(verdicts or found, key=lambda item: _rank(item[1]))
    record = {**record, "required": any(item["required"] for _, item in found)}
    if len(verdicts) > 1:
        told = ", ".join(f"{_place(*item)}: {item[1]['verdict']}" for item in verdicts)
        warning = f"judged by {len(verdicts)} shards ({told}); this is {_place(document, record)}"
        record["warnings"] = [*record["warnings"], warning]
    return record


def _rank(record: Record) -> tuple[bool, int]:
    """The worse, the lower; of equals the earliest shard's stands."""
    return not closes(record), VERDICTS.index(record["verdict"])


def _place(document: Document, record: Record) -> str:
    device = record.get("device") or document["run"]["host"]
    return f"run {document['run']['id'][:8]} on {device.get('cpu') or device.get('machine')}"


# -- the gate


def _accepts_missing(document: Document) -> bool:
    return bool(document["run"]["options"].get("missing") == "skip")


def _errors(shards: Sequence[Document]) -> list[str]:
    """Why the gate is closed whatever the records of all shards say."""
    errors = []
    for document in shards:
        gate = document["gate"]
        status = document["run"]["exit_status"]
        own = judge_gate(document["cases"], accept_missing=_accepts_missing(document))
        if status in _ENDS:
            errors.append(f"{_name(document)} {_ENDS[status]}")
        elif gate["verdict"] == "closed" and not own.closed:
            errors.append(f"{_name(document)}: {gate['reason'].removeprefix('gate closed: ')}")
    return errors


def _exit_status(shards: Sequence[Document], closed: bool, any_case: bool) -> int:
    """The worst of the shards' that the gate does not account for, and the gate's own.

    A shard whose gate was closed failed for that, as far as a report tells: where other shards
    complete it, it counts as passed.
    """
    statuses = {_FAILED if closed else _PASSED}
    for document in shards:
        status = document["run"]["exit_status"]
        explained = status == _FAILED and document["gate"]["verdict"] == "closed"
        if not explained and not (status == _NO_TESTS and any_case):
            statuses.add(status)
    unknown = statuses - set(_EXIT_STATUSES)
    return max(unknown) if unknown else min(statuses, key=_EXIT_STATUSES.index)


# -- the rest


def _shards_of(document: Document) -> list[dict[str, Any]]:
    """What a report is made of: itself, or the shards of a merged one."""
    run = document["run"]
    if "shards" in run:
        return list(run["shards"])
    return [{name: run[name] for name in ("id", "host", "command", "exit_status")}]


def _merge_runs(shards: Sequence[Document], closed: bool, any_case: bool) -> dict[str, Any]:
    runs = [item["run"] for item in shards]
    parts = sorted(
        (part for document in shards for part in _shards_of(document)),
        key=lambda part: str(part["id"]),
    )
    ids = "\n".join(str(part["id"]) for part in parts)
    return {
        "id": hashlib.sha256(ids.encode()).hexdigest()[:32],
        "started": min(run["started"] for run in runs),
        "finished": max(run["finished"] for run in runs),
        "exit_status": _exit_status(shards, closed, any_case),
        "command": ["edgecheck", "merge"],
        "options": _merge_options([run["options"] for run in runs]),
        "host": _join([run["host"] for run in runs]),
        "tools": _join([run["tools"] for run in runs]),
        "git": _merge_git([run["git"] for run in runs]),
        "shards": parts,
    }


def _merge_options(options: Sequence[Mapping[str, str]]) -> dict[str, str]:
    merged = {name: str(value) for name, value in _join(options, " | ").items()}
    for name in _LISTS:
        given = [item.get(name, "") for item in options]
        names = [part.strip() for text in given for part in text.split(",")]
        merged[name] = ",".join(sorted(set(names))) if all(given) else ""
    merged["missing"] = "skip" if all(item.get("missing") == "skip" for item in options) else "fail"
    return merged


def _merge_git(found: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    known = [git for git in found if git]
    if not known:
        return None
    # A detached checkout of the same commit says HEAD.
    branches = sorted({git["branch"] for git in known if git.get("branch") not in (None, "HEAD")})
    branch = ", ".join(branches) or known[0].get("branch")
    dirty = any(git.get("dirty") for git in known)
    return {"commit": known[0]["commit"], "branch": branch, "dirty": dirty}


def _join(found: Iterable[Mapping[str, Any]], separator: str = ", ") -> dict[str, Any]:
    """By name the value where all agree, else the different ones as text."""
    values: dict[str, list[Any]] = {}
    for item in found:
        for name, value in item.items():
            known = values.setdefault(name, [])
            if value not in known:
                known.append(value)
    return {
        name: known[0] if len(known) == 1 else separator.join(_parts(known, separator))
        for name, known in sorted(values.items())
    }


def _parts(values: Iterable[Any], separator: str) -> list[str]:
    """Those of a merged report come joined already."""
    return sorted({part for value in values for part in str(value).split(separator)})


def _merge_absences(shards: Sequence[Document]) -> list[dict[str, str]]:
    names = ("subject", "what", "reason")
    found = {
        tuple(str(item.get(name, "")) for name in names)
        for document in shards
        for item in document["absences"]
    }
    return [dict(zip(names, item, strict=True)) for item in sorted(found)]


def _merge_skipped(shards: Sequence[Document], judged: set[str]) -> dict[str, str]:
    """Targets that no shard judged, with the reasons of all."""
    merged = _join([document["skipped_targets"] for document in shards], "; ")
    return {name: str(reason) for name, reason in merged.items() if name not in judged}
