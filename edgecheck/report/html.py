"""The HTML report: a run as one file that people look at, without network.

Everything in a document is untrusted: the template escapes it, the script sets it as text, and the
page's Content-Security-Policy allows no script or style but the page's own, by their hashes. Not
for what is shown: that is `edgecheck.report.page`.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import importlib
import json
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from edgecheck import __version__
from edgecheck.errors import EdgecheckError
from edgecheck.history.compare import CaseComparison, RunComparison
from edgecheck.history.trends import Trend
from edgecheck.report.page import against, charts, fronts, matrix, tracks
from edgecheck.report.page.evidence import evidence_of
from edgecheck.report.page.status import CLOSING, STATUSES, status_of
from edgecheck.units import format_bytes, format_time

# In this order, as one script.
_SCRIPTS = ("evidence.js", "charts.js", "page.js")
_VEGA_LITE = "6.1"
_EXPORT = "window.vegaEmbed = vegaEmbed;"
_SHIFTS = 100
_INTERRUPTED = 2
# What the cells of a column show.
_UNITS = {
    "export": "size",
    "parity": "least SQNR",
    "accuracy": "metric",
    "latency": "p50",
    "memory": "peak",
}


def check_available() -> None:
    """Make sure before the run that the report can be made after it.

    Raises:
        EdgecheckError: a package of the extra ``html`` is missing.
    """
    for name in ("jinja2", "vl_convert"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise EdgecheckError(
                f"the HTML report needs {error.name or name}: pip install 'edgecheck[html]'"
            ) from None


def write(
    path: Path,
    document: Mapping[str, Any],
    *,
    comparison: RunComparison | None = None,
    trends: Sequence[Trend] = (),
) -> None:
    """Write the report of a run, replacing an older one only once it is complete.

    Args:
        document: a JSON report (``edgecheck-report/1``).
        comparison: with the baseline.
        trends: series of the history; of each the last `edgecheck.report.page.tracks.POINTS`
            points are drawn.

    Raises:
        EdgecheckError: a package of the extra ``html`` is missing.
    """
    check_available()
    text = page(document, comparison=comparison, trends=trends)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(text.encode("utf-8", "replace"))
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def page(
    document: Mapping[str, Any],
    *,
    comparison: RunComparison | None = None,
    trends: Sequence[Trend] = (),
) -> str:
    """The report as HTML."""
    from markupsafe import Markup

    style, library = _source("page.css"), _library()
    script = '"use strict";\n(() => {\n' + "\n".join(map(_source, _SCRIPTS)) + "})();\n"
    found, without_front = fronts.fronts_of(document["cases"])
    changes = comparison.cases if comparison else _recorded(document)
    data = {
        "specs": charts.specs(),
        "fronts": [_front(front) for front in found],
        "trends": tracks.embedded(trends),
    }
    evidence = [
        (item["key"], evidence_of(item, changes.get(item["key"]))) for item in document["cases"]
    ]
    return str(
        _template().render(
            **_view(document, comparison, trends),
            fronts=found,
            without_front=without_front,
            version=__version__,
            policy=_policy(style, script, library),
            style=Markup(style),
            script=Markup(script),
            library=_packed_library(),
            data=_pack_json(data),
            cases=[
                _pack_json(dict(evidence[start : start + matrix.PACK]))
                for start in range(0, len(evidence), matrix.PACK)
            ],
        )
    )


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgecheck.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"time": format_time, "bytes": format_bytes, "address": _address}
    return environment.get_template("page.html")


def _address(key: str) -> str:
    """A case's key as part of an address."""
    return urllib.parse.quote(key, errors="replace")


def _view(
    document: Mapping[str, Any], comparison: RunComparison | None, trends: Sequence[Trend]
) -> dict[str, Any]:
    """The values that the template shows, apart from the packed data."""
    records = document["cases"]
    compared = against.view(comparison) if comparison else None
    regressed = (
        compared.regressed
        if compared
        else frozenset(key for key, case in _recorded(document).items() if case.regressions)
    )
    rows, checks = matrix.rows_of(records, regressed), matrix.checks_of(records)
    counts = dict.fromkeys(STATUSES, 0)
    for item in records:
        counts[status_of(item)] += 1
    shifts = tracks.shifts_of(trends)
    return {
        **_run_view(document),
        **_groups_view(records),
        "tiles": _tiles(counts, rows, compared, records),
        "against": compared,
        "filters": [
            ("model", _options(row.model for row in rows)),
            ("target", _options(row.target for row in rows)),
            ("precision", list(dict.fromkeys(_by_width(rows)))),
            ("check", checks),
        ],
        "statuses": [
            (name, mark, word, counts[name])
            for name, (word, mark) in STATUSES.items()
            if counts[name]
        ],
        "rows": rows,
        "checks": checks,
        "units": _UNITS,
        "cases_count": len(records),
        "shifts": shifts[:_SHIFTS],
        "shifts_left": max(0, len(shifts) - _SHIFTS),
        "series_count": len(trends),
        "absences": matrix.absences_of(document),
        "skipped_targets": document["skipped_targets"],
        "reused": sum(bool(item.get("reused")) for item in records),
    }


def _run_view(document: Mapping[str, Any]) -> dict[str, Any]:
    """The template's values about the run as a whole."""
    run, gate = document["run"], document["gate"]
    git = run["git"] or {}
    return {
        "run": run,
        "passed": gate["verdict"] == "passed",
        "interrupted": run.get("exit_status") == _INTERRUPTED,
        "gate_reason": _after_title(gate["reason"]),
        "commit": git.get("commit") or "",
        "branch": git.get("branch") or "",
        "dirty": git.get("dirty", False),
        "started": run["started"][:16].replace("T", " ") + " UTC",
        "duration": _duration(run),
        "facts": _facts(run),
    }


def _groups_view(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The template's values about cases that fail, are accepted or are not checked."""
    statuses = {
        "failures": CLOSING,
        "accepted": ("accepted",),
        "not_checked": ("not_checked",),
    }
    view: dict[str, Any] = {}
    for name, chosen in statuses.items():
        view[name], view[f"{name}_left"] = matrix.groups_of(records, chosen)
    return view


def _recorded(document: Mapping[str, Any]) -> dict[str, CaseComparison]:
    recorded = ((item["key"], against.recorded(item)) for item in document["cases"])
    return {key: case for key, case in recorded if case is not None}


def _after_title(reason: str) -> str:
    """The gate's line without what the title says already."""
    return reason.removeprefix("gate closed: ").removeprefix("gate passed: ")


def _options(names: Any) -> list[str]:
    return sorted(set(names))


def _by_width(rows: Sequence[matrix.Row]) -> list[str]:
    ordered = sorted(rows, key=lambda row: (row.precision_order, row.precision))
    return [row.precision for row in ordered]


def _tiles(
    counts: Mapping[str, int],
    rows: Sequence[matrix.Row],
    compared: against.Against | None,
    records: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    failed = sum(counts[name] for name in CLOSING)
    warnings = sum(len(item["warnings"]) for item in records)
    found = [
        (counts["passed"], "passed", "good"),
        (failed, "failed", "bad" if failed else ""),
        (counts["accepted"], "accepted", "warn" if counts["accepted"] else ""),
        (counts["not_checked"], "not checked", "warn" if counts["not_checked"] else ""),
        (len(rows), "candidates", ""),
        (warnings, "warnings", "warn" if warnings else ""),
    ]
    if compared:
        worse = compared.regression_count
        found[-1:] = [(worse, "regressions", "bad" if worse else "good")]
    return [{"value": f"{value:,}", "label": label, "kind": kind} for value, label, kind in found]


def _duration(run: Mapping[str, Any]) -> str:
    """How long the run took, or "" where its end is not known."""
    try:
        start, end = (
            datetime.datetime.fromisoformat(run[name]) for name in ("started", "finished")
        )
        seconds = round((end - start).total_seconds())
    except (KeyError, TypeError, ValueError):
        return ""
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    host, git = run["host"], run["git"] or {}
    facts = [
        ("run", run["id"]),
        ("command", " ".join(run.get("command", []))),
        ("commit", git.get("commit") or "not in a repository"),
        ("machine", f"{host.get('cpu')}, {host.get('cores')} cores, {host.get('machine')}"),
        ("system", f"{host.get('system')}, Python {host.get('python')}"),
        ("exit status", str(run.get("exit_status", "not known"))),
    ]
    for shard in run.get("shards", []):
        facts.append(("shard", f"{shard['id']} on {shard['host'].get('cpu')}"))
    return facts


def _front(front: fronts.Front) -> dict[str, Any]:
    return {
        "metric": front.metric,
        "values": [
            {
                "candidate": item.name,
                "target": item.target,
                "precision": item.precision,
                "accuracy": item.accuracy,
                "latency_ms": item.latency_ms,
                "latency": format_time(item.latency_ms),
                "kB": item.size_bytes / 1e3,
                "file": format_bytes(item.size_bytes),
                "edge_score": "none" if item.score is None else f"{item.score:.3g} per ms",
                "verdict": "passed" if item.passed else "not passed",
                "on_front": item.on_front,
            }
            for item in front.candidates
        ],
    }


def _source(name: str) -> str:
    return (resources.files("edgecheck.report") / "page" / name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, out of the installed package.

    It is a module that hands out its names through ``window``: within a function its other names
    stay its own.
    """
    import vl_convert

    return f"(() => {{{vl_convert.javascript_bundle(_EXPORT, vl_version=_VEGA_LITE)}}})();"


@cache
def _packed_library() -> str:
    return _pack(_library())


def _pack_json(value: Any) -> str:
    return _pack(json.dumps(value, allow_nan=False))


def _pack(text: str) -> str:
    """Compressed, and in letters that mean nothing to HTML; the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def _policy(style: str, *scripts: str) -> str:
    """No network, no eval, no inline script or style but these."""
    allowed = " ".join(f"'sha256-{_hash(text)}'" for text in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'sha256-{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
