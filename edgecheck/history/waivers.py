"""Waivers: failures that somebody accepted, for a reason and until a day.

Pure but for reading ``waivers.toml``.
"""

from __future__ import annotations

import datetime
import difflib
import fnmatch
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgecheck.errors import EdgecheckError

Identity = Mapping[str, Any]
_PATTERNS = ("model", "target", "precision", "check")
_REQUIRED = ("reason", "owner", "expires")
_FIELDS = (*_PATTERNS, *_REQUIRED, "issue")
_FAILING = ("failed", "unsupported", "inconclusive")


class WaiverError(EdgecheckError):
    """A waivers file that can't be read, or that says something impossible."""


@dataclass(frozen=True)
class Waiver:
    """One accepted failure.

    Attributes:
        number: of the entry in its file, from 1.
        expires: the expiry date: the last day on which it holds, in UTC.
        issue: an http(s) link, or "".
        model: a glob over ``model`` and ``model:variant``.
        target, precision, check: globs over their names.
    """

    number: int
    reason: str
    owner: str
    expires: datetime.date
    issue: str = ""
    model: str = "*"
    target: str = "*"
    precision: str = "*"
    check: str = "*"

    @property
    def patterns(self) -> str:
        """What it covers, as a case's key is written."""
        return "/".join((self.model, self.target, self.precision, self.check))

    @property
    def text(self) -> str:
        """What reports say of a case that it covers."""
        issue = f" ({self.issue})" if self.issue else ""
        return f"waived until {self.expires} by {self.owner}: {self.reason}{issue}"

    def covers(self, identity: Identity) -> bool:
        """Whether a case is one of its own (see `edgecheck.report.record.identity`)."""
        return all(
            fnmatch.fnmatchcase(_value(identity, name), getattr(self, name)) for name in _PATTERNS
        )

    def expired(self, today: datetime.date) -> bool:
        """Whether it holds no more; `today` is a day in UTC."""
        return today > self.expires

    def record(self) -> dict[str, str]:
        """What a case's record keeps of it."""
        return {
            "reason": self.reason,
            "owner": self.owner,
            "issue": self.issue,
            "expires": self.expires.isoformat(),
        }


def _value(identity: Identity, name: str) -> str:
    if name == "model" and identity["variant"]:
        return f"{identity['model']}:{identity['variant']}"
    return str(identity[name])


# -- reading --------------------------------------------------------------------------------------


def load(path: Path) -> tuple[Waiver, ...]:
    """The waivers in a file.

    Raises:
        WaiverError: the file can't be read, or any entry is wrong; the message lists all that is.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise WaiverError(f"can't read the waivers in {path}: {told}") from None
    entries = content.get("waiver", [])
    wrong = [
        f"unknown {name!r}; entries begin with [[waiver]]" for name in content if name != "waiver"
    ]
    if not (isinstance(entries, list) and all(isinstance(item, dict) for item in entries)):
        wrong.append("'waiver' is not a list of tables; entries begin with [[waiver]]")
        entries = []
    first: dict[tuple[str, ...], int] = {}
    for number, entry in enumerate(entries, 1):
        wrong += [f"entry {number}: {problem}" for problem in _problems(entry)]
        patterns = tuple(str(entry.get(name, "*")) for name in _PATTERNS)
        if first.setdefault(patterns, number) != number:
            wrong.append(f"entry {number}: covers the same as entry {first[patterns]}")
    if wrong:
        raise WaiverError(_listed(path, wrong))
    return tuple(Waiver(number, **entry) for number, entry in enumerate(entries, 1))


def _listed(path: Path, wrong: Sequence[str]) -> str:
    if len(wrong) == 1:
        return f"{path}: {wrong[0]}"
    return "\n  ".join((f"{path}: {len(wrong)} problems", *wrong))


def _problems(entry: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an entry by itself."""
    for name in entry:
        if name not in _FIELDS:
            near = difflib.get_close_matches(name, _FIELDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"unknown field {name!r}{hint} (known: {', '.join(_FIELDS)})"
    for name in _REQUIRED:
        if name not in entry:
            yield f"{name!r} is missing"
    for name in _FIELDS:
        # A date-time is a date too, and has a time of day that would not be heeded.
        if name == "expires":
            if name in entry and type(entry[name]) is not datetime.date:
                yield f"'expires' is {entry[name]!r}, no date, as in expires = 2027-01-31"
        elif name in entry and not (isinstance(entry[name], str) and entry[name].strip()):
            yield f"{name!r} is {entry[name]!r}, no text"
    issue = entry.get("issue")
    if isinstance(issue, str) and issue.strip() and not _is_link(issue):
        yield f"'issue' is {issue!r}, no http or https link"


def _is_link(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in text


def unknown(waivers: Iterable[Waiver], known: Sequence[Identity], *, all_models: bool) -> list[str]:
    """What waivers name that there is not; one line each.

    Args:
        known: all cases that the models declare, selected or not.
        all_models: whether those are all models that there are. Without, a waiver for a model that
            is not among them may be right.
    """
    lines = []
    for waiver in waivers:
        problem = _unmatched(waiver, known)
        if problem is not None and (all_models or problem[0] != "model"):
            lines.append(f"entry {waiver.number} ({waiver.patterns}): {problem[1]}")
    return lines


def _unmatched(waiver: Waiver, known: Sequence[Identity]) -> tuple[str, str] | None:
    """The first of a waiver's patterns that leaves no case, and a line on it."""
    left = list(known)
    for name in _PATTERNS:
        pattern = getattr(waiver, name)
        fitting = [item for item in left if fnmatch.fnmatchcase(_value(item, name), pattern)]
        if not fitting:
            names = sorted({_value(item, name) for item in left})
            near = difflib.get_close_matches(pattern, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            there = ", ".join(names) or "none"
            return name, f"{name} {pattern!r} matches nothing{hint} (there: {there})"
        left = fitting
    return None


# -- judging --------------------------------------------------------------------------------------


def find(waivers: Iterable[Waiver], identity: Identity) -> Waiver | None:
    """The waiver of a case: the one that holds longest, expired or not."""
    covering = [item for item in waivers if item.covers(identity)]
    return max(covering, key=lambda item: item.expires, default=None)


def waived(
    record: Mapping[str, Any], waivers: Iterable[Waiver], today: datetime.date
) -> dict[str, Any]:
    """A case's record as its waiver leaves it: an expected failure, or one that says it expired."""
    found = find(waivers, record) if _fails(record) else None
    if found is None:
        return {**record, "waiver": None}
    if not found.expired(today):
        return {**record, "waiver": found.record(), "expected_failure": found.text}
    line = f"the waiver of {found.owner} expired on {found.expires}: {found.reason}"
    return {
        **record,
        "waiver": None,
        "reason": f"{record['reason']}; {line}",
        "failures": [*record["failures"], line],
    }


def _fails(record: Mapping[str, Any]) -> bool:
    """Whether a case failed for all that anybody but a waiver says."""
    waived_already = record.get("waiver") is not None
    return record["verdict"] in _FAILING and (waived_already or not record["expected_failure"])


class State(StrEnum):
    """What became of a waiver in a run."""

    USED = "used"
    EXPIRED = "expired"
    STALE = "stale"
    UNUSED = "unused"


@dataclass(frozen=True)
class WaiverStatus:
    """A waiver after a run.

    Attributes:
        keys: of the cases that it says so for: those that failed, or for a stale one, passed.
    """

    waiver: Waiver
    state: State
    keys: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """What there is to do about it, in one line; "" for nothing."""
        waiver = self.waiver
        name = f"waiver {waiver.number} of {waiver.owner} ({waiver.patterns})"
        if self.state is State.EXPIRED:
            return f"{name} expired on {waiver.expires}; {len(self.keys)} of its cases fail"
        if self.state is State.STALE:
            return f"{name} is stale: none of its {len(self.keys)} cases fails any more; remove it"
        return ""


def judge(
    waivers: Iterable[Waiver],
    records: Sequence[Mapping[str, Any]],
    known: Iterable[Identity],
    today: datetime.date,
) -> list[WaiverStatus]:
    """The state of each waiver after a run.

    A waiver is used if one of its cases failed, and expired if that was after its expiry date. It
    is stale if all cases that it covers were judged, and passed; if only some of them were, it is
    unused.

    Args:
        records: of the run.
        known: all cases that could be judged here, selected or not.
        today: in UTC.
    """
    waivers, known = list(waivers), list(known)
    return [_judge_one(waiver, waivers, records, known, today) for waiver in waivers]


def _judge_one(
    waiver: Waiver,
    waivers: Sequence[Waiver],
    records: Sequence[Mapping[str, Any]],
    known: Sequence[Identity],
    today: datetime.date,
) -> WaiverStatus:
    covered = [item for item in records if waiver.covers(item)]
    failed = {item["key"] for item in covered if _fails(item)}
    if failed and not waiver.expired(today):
        return WaiverStatus(waiver, State.USED, tuple(sorted(failed)))
    # An expired waiver does not matter for a case that another one still covers.
    own = {
        item["key"] for item in covered if item["key"] in failed and find(waivers, item) == waiver
    }
    if own:
        return WaiverStatus(waiver, State.EXPIRED, tuple(sorted(own)))
    not_passed = {item["key"] for item in covered if item["verdict"] != "passed"}
    passed = {item["key"] for item in covered} - not_passed
    expected = {item["key"] for item in (*known, *records) if waiver.covers(item)}
    if expected and expected == passed:
        return WaiverStatus(waiver, State.STALE, tuple(sorted(passed)))
    return WaiverStatus(waiver, State.UNUSED)
