"""The HTML report as a file: whole without script, escaped, closed to the network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.errors import EdgecheckError
from edgecheck.history.compare import compare_runs
from edgecheck.history.metrics import METRICS
from edgecheck.history.results import results_of
from edgecheck.history.trends import Trend, TrendPoint
from edgecheck.report import html
from edgecheck.report.page import charts
from tests.report.documents import assert_publishable, candidate, document, record

vl_convert = pytest.importorskip("vl_convert")

law = settings(deadline=None, derandomize=True, max_examples=25)

HOSTILE = "</script><script>alert(1)</script>\"'&<!--\u2028<img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """Elements with their attributes, the text that a person reads, and the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self.scripts: list[list[Any]] = []
        self._in: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._in.append(tag)
            self.scripts.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag: str) -> None:
        if self._in and self._in[-1] == tag:
            self._in.pop()

    def handle_data(self, data: str) -> None:
        if self._in:
            self.scripts[-1][2] += data
        else:
            self.text += f"{data} "

    def find(self, tag: str, **wanted: Any) -> list[dict[str, Any]]:
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and all(attrs.get(key) == value for key, value in wanted.items())
        ]

    def unpacked(self, name: str) -> str:
        """One of the page's packed texts."""
        packed = next(text for _, attrs, text in self.scripts if attrs.get("id") == name)
        return gzip.decompress(base64.b64decode(packed)).decode()

    def evidence(self) -> dict[str, Any]:
        """The evidence of all cases by key."""
        names = [attrs.get("id") or "" for _, attrs, _ in self.scripts]
        packs = [json.loads(self.unpacked(name)) for name in names if name[:6] == "cases-"]
        return {key: item for pack in packs for key, item in pack.items()}


def read(found: dict[str, Any], **more: Any) -> Reader:
    return Reader(html.page(found, **more))


def test_what_these_tests_show_is_what_edgecheck_writes() -> None:
    assert_publishable(document([*candidate(), record("latency", "failed", model="other")]))


def test_verdict_reason_and_commit_are_told_first_and_without_script() -> None:
    found = document([*candidate(), record("latency", "failed", model="other", reason="too slow")])
    text = " ".join(read(found).text.split())
    assert "Gate closed 1 of 6 cases failed" in text
    assert text.index("6 cases failed") < text.index("other too slow") < text.index("Matrix Find")
    assert "Commit cccccccccc on main · 2026-11-21 10:26 UTC · took 4 min 25 s" in text


def test_a_gate_that_passed_shows_no_failures() -> None:
    page = read(document(candidate()))
    assert "Gate passed" in page.text
    assert not page.find("h2", id="failures")


def test_an_interrupted_run_says_that_it_is_incomplete() -> None:
    found = document(candidate())
    assert "interrupted" not in read(found).text
    found["run"]["exit_status"] = 2
    assert "The run was interrupted" in read(found).text


def test_the_matrix_has_a_cell_for_each_case_that_links_to_its_evidence() -> None:
    cases = [*candidate(), *candidate(precision="int8"), record("export", variant="a b/c")]
    page = read(document(cases))
    links = [attrs["href"] for tag, attrs in page.elements if "cell" in attrs.get("class", "")]
    assert len(links) == len(set(links)) == len(cases)
    assert "#case=digits%3Aa%20b/c/ort/fp32/export" in links
    evidence = page.evidence()
    assert set(evidence) == {item["key"] for item in cases}


def test_what_closes_the_gate_comes_first_in_the_matrix() -> None:
    page = read(document([*candidate(), record("latency", "failed", model="zebra")]))
    assert [attrs["data-model"] for attrs in page.find("tr") if "data-model" in attrs] == [
        "zebra",
        "digits",
    ]


def test_an_accepted_failure_is_neither_failed_nor_passed() -> None:
    waiver = {"reason": "known", "owner": "ann", "issue": None, "expires": "2026-12-31"}
    accepted = record(
        "latency", "failed", expected_failure="waived by ann", waiver=waiver, reason="slow"
    )
    page = read(document([accepted]))
    assert "Gate passed" in page.text
    assert "Accepted: waived by ann" in page.text
    assert not page.find("h2", id="failures")
    notes = page.evidence()[accepted["key"]]["notes"]
    assert notes == [["Waived", "known — ann, until 2026-12-31"]]


def test_what_was_not_checked_is_told_with_its_reason() -> None:
    found = document(
        [record("latency", "not_checked", target="coreml", reason="needs macOS")],
        absences=[{"subject": "digits/ort", "what": "int8-qat", "reason": "no QAT program"}],
        skipped_targets={"trt": "no GPU here"},
    )
    text = " ".join(read(found).text.split())
    for told in ("needs macOS", "int8-qat : no QAT program (digits/ort)", "trt no GPU here"):
        assert told in text
    assert "every case was checked" in read(document(candidate())).text


def test_reused_measurements_name_their_run() -> None:
    reused = record("latency", reused="fedcba")
    page = read(document([reused]))
    assert "1 cases were not measured anew" in page.text
    assert "fedcba" in str(page.evidence()[reused["key"]]["notes"])


def test_regressions_are_told_with_baseline_and_numbers() -> None:
    device = {"cpu": "A CPU"}
    before = document(candidate(device=device), run_id="before123456")
    after = document(candidate(device=device))
    after["cases"][0]["measurements"] = {"size_bytes": 214_368}
    after["cases"][1]["verdict"] = "failed"
    gone = document([*before["cases"], record(model="gone")], run_id="before123456")
    comparison = compare_runs(results_of(gone), results_of(after), METRICS)
    page = read(after, comparison=comparison)
    text = " ".join(page.text.split())
    assert "compared with run before12, commit cccccccccc on main" in text
    assert "digits/ort/fp32/export size 107.2 kB 214.4 kB +100 % 1 %" in text
    assert "digits/ort/fp32/parity passed failed" in text
    assert "1 cases of the baseline are not in this run gone/ort/fp32/latency" in text
    flagged = [attrs["title"] for attrs in page.find("a") if "regression" in attrs.get("class", "")]
    assert len(flagged) == 2
    assert "improvement" not in str(page.evidence()[after["cases"][0]["key"]])


def test_changes_that_a_record_tells_are_shown_without_the_comparison() -> None:
    change = {"metric": "latency_p50_ms", "subject": "", "before": 1.0, "after": 2.0}
    change |= {"change": 1.0, "needed": 0.3, "share": True}
    worse = record("latency", regression={"regressions": [change], "improvements": []})
    better = record("memory", regression={"regressions": [], "improvements": [change]})
    page = read(document([worse, better]))
    links = [attrs for attrs in page.find("a") if "regression" in attrs.get("class", "")]
    assert [attrs["title"].partition(":")[0] for attrs in links] == [worse["key"]]
    (table,) = [item for item in page.evidence()[worse["key"]]["tables"] if "base" in str(item)]
    assert table["rows"] == [["latency p50", "1 ms", "2 ms", "+100 %", "30 %", "regression"]]


# -- what is untrusted stays text


@law
@given(st.text(min_size=1, max_size=30) | st.just(HOSTILE))
def test_no_text_of_a_document_becomes_an_element(text: str) -> None:
    case = record(
        "latency", "failed", model=text, variant=text, target=text, precision=text, reason=text,
        details=text, warnings=[text], failures=[text],
    )  # fmt: skip
    own = record(text)
    found = document(
        [case, own],
        absences=[{"subject": text, "what": text, "reason": text}],
        skipped_targets={text: text},
    )
    found["run"]["git"]["branch"] = found["gate"]["reason"] = text
    found["run"]["command"] = [text]
    point = TrendPoint(text, text, text, 1.0)
    trend = Trend(case["key"], text, text, (point, point), (1,))
    page, plain = read(found, trends=[trend]), read(document([record("latency", "failed")]))
    known = {tag for tag, _ in plain.elements} | {"table", "caption", "small", "option"}
    assert {tag for tag, _ in page.elements} <= known | {
        "strong",
        "h3",
        "dl",
        "dt",
        "dd",
        "pre",
        "button",
    }
    assert not [attrs for _, attrs in page.elements if any(name[:2] == "on" for name in attrs)]
    assert len(page.scripts) == len(plain.scripts)


def test_a_model_named_like_a_script_is_shown_by_that_name() -> None:
    page = read(document([record(model="<script>alert(1)</script>")]))
    assert "<script>alert(1)</script>" in page.text
    assert all("alert(1)" not in text for _, _, text in page.scripts)


def test_lone_surrogates_do_not_prevent_a_report(tmp_path: Path) -> None:
    html.write(tmp_path / "edge.html", document([record(model="a\ud800b", reason="\udfff")]))
    assert "Gate passed" in (tmp_path / "edge.html").read_text(encoding="utf-8")


# -- one file, no network


def test_the_policy_allows_the_pages_own_style_and_scripts_only() -> None:
    page = read(document(candidate()))
    policy = page.find("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    inline = [text for _, attrs, text in page.scripts if "type" not in attrs]
    inline.append(page.unpacked("library"))
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inline}
    assert hashes == allowed


def test_nothing_is_loaded_from_anywhere() -> None:
    page = read(document(candidate()))
    for tag, attrs in page.elements:
        assert "src" not in attrs
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        assert attrs.get("href", "#").startswith("#")
        assert "style" not in attrs


def test_the_file_is_replaced_whole_and_alike_for_the_same_run(tmp_path: Path) -> None:
    path = tmp_path / "edge.html"
    path.write_text("older")
    html.write(path, document(candidate()))
    first = path.read_bytes()
    html.write(path, document(candidate()))
    assert path.read_bytes() == first
    assert [item.name for item in tmp_path.iterdir()] == ["edge.html"]


def test_a_document_that_can_not_be_shown_leaves_the_older_file_and_no_litter(
    tmp_path: Path,
) -> None:
    path = tmp_path / "edge.html"
    path.write_text("older")
    with pytest.raises(KeyError):
        html.write(path, {"run": {}})
    assert path.read_text() == "older"
    assert [item.name for item in tmp_path.iterdir()] == ["edge.html"]


def test_raw_samples_are_binned_so_that_the_file_stays_small() -> None:
    slow = record("latency", measurements={"latency_p50_ms": 1.0, "samples_ns": [10**6] * 200_000})
    plain = len(html.page(document([record("latency")])))
    assert len(html.page(document([slow]))) < plain + 20_000


def test_the_report_of_a_matrix_of_300_cases_is_under_2_mb() -> None:
    random = np.random.default_rng(0)
    cases = []
    for number in range(60):
        found = candidate(model=f"model_{number}")
        samples_ns = random.lognormal(10, 0.2, 3000).astype(int).tolist()
        sampled = {"samples_ns": samples_ns, "cpu_samples_ns": samples_ns}
        found[3]["measurements"] = {**found[3]["measurements"], **sampled}
        cases += found
    assert len(cases) == 300
    assert len(html.page(document(cases))) < 2_000_000


def test_a_missing_package_is_one_clear_error(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['vl_convert'] = None\n"
        "from pathlib import Path\nfrom edgecheck.report import html\n"
        "html.write(Path('edge.html'), {})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stderr.splitlines()[-1] == (
        f"{EdgecheckError.__module__}.EdgecheckError: the HTML report needs vl_convert: "
        "pip install 'edgecheck[html]'"
    )


@pytest.mark.parametrize("kind", charts.specs())
def test_every_chart_is_valid_vega_lite(kind: str) -> None:
    spec = charts.specs()[kind]
    names = {layer.get("data", {}).get("name") for layer in [spec, *spec.get("layer", [])]}
    spec["datasets"] = {name: [] for name in names if name}
    compiled = vl_convert.vegalite_to_vega({**spec, "width": 300}, vl_version="6.1")
    assert compiled["marks"]
