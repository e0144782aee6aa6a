"""The HTML report in a real browser: it draws, filters, opens cases, asks for nothing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgecheck.history.trends import Trend, TrendPoint
from edgecheck.report import html
from tests.report.documents import candidate, document, record

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("vl_convert", reason="vl-convert-python is not installed")

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
# A busy machine is slow to draw; what waits for this has failed.
PATIENCE_MS = 30_000
LATENCY = "digits/ort/fp32/latency"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield found
        found.close()


class Opened:
    """A page with all that it complained of and asked for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", self.dismissed)
        page.on("request", lambda request: self.asked.append(request.url))

    def dismissed(self, dialog: Any) -> None:
        self.said.append("dialog")
        dialog.dismiss()

    def shown_rows(self) -> Any:
        return self.page.locator("#grid tbody tr:visible")

    def names(self) -> list[str]:
        return self.shown_rows().locator("th").all_inner_texts()

    def open_case(self, key: str) -> Any:
        self.page.locator(f"a.cell[title^='{key}:']").click()
        self.page.locator("dialog[open]").wait_for()
        return self.page.locator("dialog")

    def drawn(self, kind: str) -> Any:
        place = self.page.locator(f"[data-drawn={kind}] svg")
        place.first.wait_for(timeout=PATIENCE_MS)
        return place


# Of a document, an address within it, and a context's options.
Open = Callable[..., AbstractContextManager[Opened]]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Open:
    """Open a document; at the end nothing may have been complained of or asked for."""

    @contextmanager
    def open_document(
        found: dict[str, Any], address: str = "", *, trends: Sequence[Trend] = (), **options: Any
    ) -> Iterator[Opened]:
        path = tmp_path / "edge.html"
        html.write(path, found, trends=trends)
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        try:
            seen = Opened(context.new_page())
            seen.page.goto(path.as_uri() + address)
            yield seen
            assert seen.said == []
            assert {url.partition("#")[0] for url in seen.asked} == {path.as_uri()}
        finally:
            context.close()

    return open_document


def run() -> dict[str, Any]:
    reason = "latency_p95 25 ms is not <= 20 ms"
    failed = record("latency", "failed", model="slow", reason=reason, warnings=["it was hot"])
    return document(
        [
            *candidate(),
            *candidate(precision="int8"),
            *candidate(target="tflite", precision="int8"),
            failed,
            record("export", "not_checked", model="slow", target="coreml", reason="needs macOS"),
        ]
    )


def history() -> list[Trend]:
    points = tuple(
        TrendPoint(
            f"run{n}", f"2026-11-{n + 1:02}T10:00:00+00:00", f"{n}" * 40, v, 0.9 * v, 1.1 * v
        )
        for n, v in enumerate([0.02, 0.021, 0.02, 0.03, 0.031, 0.03])
    )
    return [
        Trend(LATENCY, "latency_p50_ms", "", points, (3,)),
        Trend("digits/ort/int8/latency", "latency_p50_ms", "", points),
        Trend("digits/ort/fp32/memory", "peak_memory_bytes", "", points),
    ]


def test_charts_are_drawn_without_errors_or_requests(opened: Open) -> None:
    with opened(run(), trends=history()) as seen:
        front = seen.drawn("front")
        assert front.locator("path[aria-roledescription=point]").count() == 3
        seen.page.locator("#multiples").scroll_into_view_if_needed()
        assert seen.drawn("trend").count() == 2
        for key, kinds in {
            LATENCY: ["latency", "trend"],
            "digits/ort/fp32/memory": ["growth", "trend"],
            "digits/ort/fp32/export": ["live"],
        }.items():
            dialog = seen.open_case(key)
            for kind in kinds:
                place = dialog.locator(f"[data-drawn={kind}] svg")
                place.scroll_into_view_if_needed()
                place.wait_for()
            seen.page.keyboard.press("Escape")


def test_a_point_tells_what_it_is_also_within_the_dialog(opened: Open) -> None:
    with opened(run(), f"#case={LATENCY}") as seen:
        bar = seen.page.locator("dialog [data-drawn=latency] path[aria-roledescription=bar]").first
        bar.hover(force=True)
        tip = seen.page.locator("dialog #tip")
        tip.wait_for()
        assert "samples" in tip.inner_text()


def test_filters_narrow_the_matrix_and_say_so(opened: Open) -> None:
    with opened(run()) as seen:
        page, told = seen.page, seen.page.locator("#shown")
        assert seen.shown_rows().count() == 5
        page.select_option("[name=target]", "tflite")
        assert seen.shown_rows().count() == 1
        page.select_option("[name=target]", "")
        page.select_option("[name=precision]", "int8")
        assert told.inner_text() == "2 of 5 candidates, 10 cases"
        page.get_by_role("button", name="Clear").click()
        page.locator(".chip.failed").click()
        assert seen.names() == ["slow"]
        page.get_by_role("button", name="Clear").click()
        page.fill("[name=find]", "25 MS")
        assert seen.names() == ["slow"]
        page.fill("[name=find]", "no such thing")
        assert told.inner_text() == "0 of 5 candidates, 0 cases"
        page.get_by_role("button", name="Clear").click()
        page.select_option("[name=check]", "latency")
        assert page.locator("#grid thead th:visible").count() == 4
        assert seen.shown_rows().count() == 4
        page.select_option("[name=model]", "digits")
        assert told.inner_text() == "3 of 5 candidates, 3 cases"


def test_columns_sort_by_their_number_both_ways(opened: Open) -> None:
    cases = candidate() + candidate(precision="int8") + [record("export", model="none")]
    cases[8]["measurements"] = {"latency_p50_ms": 0.001}
    with opened(document(cases)) as seen:
        heading = seen.page.locator("#grid th[data-check=latency]")
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        precisions = seen.shown_rows().locator("td:nth-child(3)")
        assert precisions.all_inner_texts() == ["int8", "fp32", "fp32"]
        assert seen.names()[-1] == "none"
        heading.get_by_role("button").click()
        assert precisions.all_inner_texts() == ["fp32", "int8", "fp32"]
        assert seen.names()[-1] == "none"


def test_a_case_opens_by_its_address_and_shows_its_evidence(opened: Open) -> None:
    with opened(run(), f"#case={LATENCY}") as seen:
        dialog = seen.page.locator("dialog[open]")
        dialog.wait_for()
        text = dialog.inner_text()
        for told in ("latency_p95", "26.8 us", "≤ 20 ms", "26 us to 28 us", "a" * 64, "it crashed"):
            assert told in text
        seen.page.get_by_role("button", name="Close").click()
        playwright.expect(seen.page).not_to_have_url(re.compile("#"))


def test_it_can_be_used_by_keyboard_alone(opened: Open) -> None:
    with opened(run()) as seen:
        page = seen.page
        focused = "document.activeElement.textContent.trim()"
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "Skip to the matrix"
        page.keyboard.press("Enter")
        page.locator("a.cell").nth(2).focus()
        first = page.evaluate("document.activeElement.title")
        page.keyboard.press("Enter")
        page.locator("dialog[open]").wait_for()
        title = page.locator("#evidence-title")
        assert page.evaluate("document.activeElement.closest('dialog') !== null")
        path = page.locator("dialog .path")
        before = path.inner_text()
        page.keyboard.press("ArrowRight")
        playwright.expect(path).not_to_have_text(before)
        page.keyboard.press("ArrowLeft")
        playwright.expect(path).to_have_text(before)
        assert title.inner_text() in first
        page.keyboard.press("Escape")
        page.locator("dialog:not([open])").wait_for(state="attached")
        assert page.evaluate("document.activeElement.title") == first


def test_hostile_text_is_shown_and_never_run(opened: Open) -> None:
    case = record(
        "latency", "failed", model="<script>alert(1)</script>", variant=HOSTILE, reason=HOSTILE,
        details=HOSTILE, warnings=[HOSTILE],
    )  # fmt: skip
    case["limits"][0]["name"] = case["limits"][0]["origin"] = HOSTILE
    accuracy = record("accuracy", model=case["model"], target=HOSTILE)
    latency = record("latency", model=case["model"], target=HOSTILE)
    memory = record(HOSTILE, measurements={HOSTILE: {HOSTILE: HOSTILE}})
    found = document([case, accuracy, latency, memory])
    with opened(found) as seen:
        assert "<script>alert(1)</script>" in seen.names()[0]
        seen.drawn("front").locator("path[aria-roledescription=point]").first.hover(force=True)
        assert HOSTILE in seen.page.locator("#tip").inner_text()
        seen.page.locator("a.cell.failed").click()
        assert HOSTILE in seen.page.locator("dialog pre").inner_text()
        seen.page.locator("dialog [data-drawn=latency] svg").wait_for()
        assert seen.page.locator("img").count() == 0


def luminance(page: Any, what: str) -> float:
    color = page.evaluate(
        "(what) => getComputedStyle(document.querySelector(what)).backgroundColor", what
    )
    return sum(map(float, color.removeprefix("rgb(").removesuffix(")").split(",")[:3])) / 3


def test_light_and_dark_follow_the_system_until_one_is_chosen(opened: Open) -> None:
    for scheme, chosen in (("light", "dark"), ("dark", "light")):
        with opened(run(), color_scheme=scheme) as seen:
            assert (luminance(seen.page, "body") > 128) == (scheme == "light")
            seen.page.locator("#theme").click()
            assert (luminance(seen.page, "body") > 128) == (chosen == "light")
            assert (luminance(seen.page, ".verdict") > 128) == (chosen == "light")


def test_without_script_the_verdict_and_the_matrix_are_there(opened: Open) -> None:
    with opened(run(), java_script_enabled=False) as seen:
        assert seen.page.locator("h1").inner_text() == "Gate closed"
        assert seen.shown_rows().count() == 5
        assert not seen.page.locator(".filters").is_visible()
        assert "need JavaScript" in seen.page.locator("main").inner_text()


@pytest.mark.parametrize("width", [400, 1600])
def test_no_part_is_wider_than_the_window(width: int, opened: Open) -> None:
    with opened(run(), trends=history(), viewport={"width": width, "height": 900}) as seen:
        seen.drawn("front")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        dialog = seen.open_case(LATENCY)
        dialog.locator("[data-drawn=latency] svg").wait_for()
        assert dialog.evaluate("(element) => element.scrollWidth <= element.clientWidth")


def test_printed_it_is_light_and_has_what_matters(opened: Open) -> None:
    with opened(run(), color_scheme="dark") as seen:
        seen.drawn("front")
        seen.page.emulate_media(media="print")
        assert luminance(seen.page, ".verdict") > 128
        assert not seen.page.locator(".filters").is_visible()
        assert seen.shown_rows().count() == 5
        assert len(seen.page.pdf()) > 20_000


def test_five_thousand_cases_open_and_filter(opened: Open) -> None:
    cases = [
        case
        for model in range(100)
        for target in ("ort", "tflite")
        for precision in ("fp32", "fp16", "int8-dynamic", "int8", "int4")
        for case in candidate(model=f"model_{model:03}", target=target, precision=precision)
    ]
    found = document(cases)
    assert len(cases) == 5000
    with opened(found) as seen:
        ready_ms = seen.page.evaluate(
            "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
        )
        assert ready_ms < 10_000
        seen.page.select_option("[name=model]", "model_007")
        assert seen.shown_rows().count() == 10
        dialog = seen.open_case("model_007/tflite/int8/latency")
        assert dialog.locator("h2").inner_text() == "model_007"
