"""The history keeps what it was given, on both databases, and refuses what is not a history."""

import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecheck.errors import HistoryError
from edgecheck.history.compare import LEAST_HISTORY
from edgecheck.history.database import History
from edgecheck.history.results import fingerprint, results_of
from tests.history.conftest import assert_whole, rows
from tests.history.runs import DEVICE, LATENCY, OTHER_DEVICE, case, document, of_id

KEY = case()["key"]

# -- a run is kept as it was ----------------------------------------------------------------------


def test_a_run_is_kept_once(url: str) -> None:
    with History(url) as history:
        assert history.add(document("one"))
        assert not history.add(document("one", [case(verdict="failed")]))
        assert [item.id for item in history.runs()] == ["one"]
        assert history.results(of_id("one")).cases[KEY].verdict == "passed"
    assert rows(url, "SELECT count(*) FROM measurements") == [(3,)]


def test_results_and_document_are_those_of_the_report(url: str) -> None:
    found = document(
        "one",
        [
            case(),
            case("digits/ort/int8/export", device=None, measurements={"size_bytes": 12345}),
            case(
                "digits/ort/int8/accuracy",
                verdict="failed",
                reason="0.9 is not >= 0.98",
                expected_failure="waived: see 12",
                device=OTHER_DEVICE,
                measurements={"metric": "rmse", "higher_is_better": False, "candidate": 0.1},
            ),
            case(
                "digits/ort/int8/parity",
                measurements={"outputs": {"logits": {"sqnr_db": "inf", "top1_agreement": 1.0}}},
            ),
            case("digits/ort/int4/memory", verdict="unsupported", artifact=None, measurements={}),
        ],
        gate="closed",
    )
    with History(url) as history:
        history.add(found)
        (run,) = history.runs()
        assert history.results(run).cases == results_of(found).cases
        assert history.document("one") == found
        assert (run.gate, run.cases, run.failed) == ("closed", 5, 1)  # the accepted one is none


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=64)
MEASUREMENTS = st.fixed_dictionaries(
    {},
    optional={
        "latency_p50_ms": NUMBER,
        "latency_p50_interval_ms": st.tuples(NUMBER, NUMBER).map(list),
        "peak_memory_bytes": st.integers(0, 2**53),
        "outputs": st.dictionaries(TEXT, st.fixed_dictionaries({"sqnr_db": NUMBER}), max_size=3),
    },
)
CASE = st.builds(
    case,
    TEXT,
    reason=TEXT,
    expected_failure=st.none() | TEXT,
    device=st.none() | st.dictionaries(TEXT, TEXT | st.integers(), max_size=2),
    measurements=MEASUREMENTS,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(cases=st.lists(CASE, unique_by=lambda item: item["key"], max_size=4))
def test_whatever_a_report_says_is_kept(url: str, cases: list[Any]) -> None:
    with History(url) as history:
        name = f"run-{len(history.runs())}"
        found = document(name, cases)
        assert history.add(found)
        assert history.results(of_id(name), spreads=False).cases == results_of(found).cases
        assert history.document(name) == found


def test_text_that_databases_do_not_take_is_kept_readable(url: str) -> None:
    found = document("one", [case(verdict="failed", reason="nul \0 and surrogate \udc80.")])
    with History(url) as history:
        history.add(found)
        reason = history.results(of_id("one")).cases[KEY].reason
        assert history.document("one") == found
    assert reason == "nul \ufffd and surrogate ?."


def test_what_can_not_be_written_leaves_nothing(url: str) -> None:
    broken = document("one", [case(), case("b", verdict=None)])
    with History(url) as history:
        with pytest.raises(HistoryError, match=r"(?i)not.null"):
            history.add(broken)
        assert history.runs() == []
    assert rows(url, "SELECT count(*) FROM results") == [(0,)]


# -- runs and series ------------------------------------------------------------------------------


def test_runs_are_the_newest_first_and_filtered(url: str) -> None:
    with History(url) as history:
        for stored in (
            document("b", hour=2, gate="closed"),
            document("a", hour=1),
            document("d", hour=4, branch="next", commit="d" * 40),
            document("c", hour=3),
        ):
            history.add(stored)

        def names(**filters: Any) -> list[str]:
            return [item.id for item in history.runs(**filters)]

        assert names() == ["d", "c", "b", "a"]
        assert names(branch="main") == ["c", "b", "a"]
        assert names(branch="main", gate="passed") == ["c", "a"]
        assert names(commit="d" * 40) == ["d"]
        assert names(branch="gone") == []


def test_a_run_that_is_not_there_is_said_so(url: str) -> None:
    with History(url) as history:
        for ask in (history.document, lambda name: history.results(of_id(name))):
            with pytest.raises(HistoryError, match="there is no run nothing"):
                ask("nothing")


def test_a_series_is_of_one_number_the_oldest_first(url: str) -> None:
    with History(url) as history:
        for number in range(6):
            device = OTHER_DEVICE if number == 3 else DEVICE
            measured = {**LATENCY, "latency_p50_ms": float(number)}
            history.add(
                document(
                    f"run-{number}",
                    [
                        case(measurements=measured, device=device),
                        case("other", measurements={"latency_p50_ms": 99.0}),
                    ],
                    hour=10 - number,
                    branch="next" if number == 5 else "main",
                )
            )

        def values(**filters: Any) -> list[float]:
            points = history.series(KEY, "latency_p50_ms", **filters)
            assert all(item.run.id == f"run-{item.value:.0f}" for item in points)
            return [item.value for item in points]

        assert values() == [5, 4, 3, 2, 1, 0]
        assert values(limit=2) == [1, 0]
        assert values(device=fingerprint(DEVICE)) == [5, 4, 2, 1, 0]
        assert values(branch="main", device=fingerprint(OTHER_DEVICE)) == [3]
        assert history.series(KEY, "latency_p50_ms", "logits") == []
        point = history.series(KEY, "latency_p50_ms", limit=1)[0]
        assert (point.low, point.high, point.artifact_sha256) == (1.9, 2.1, "a" * 64)
        assert len(history.metrics_of(KEY)) == 2 * 3  # on two devices


def test_readings_of_the_machine_know_how_far_they_varied(url: str) -> None:
    values = [1.00, 1.10, 0.90, 1.00, 1.10, 0.90, 1.00, 50.0]  # one is odd
    assert len(values) == LEAST_HISTORY
    with History(url) as history:
        for number, value in enumerate(values):
            measured = {"latency_p50_ms": value, "size_bytes": 100}
            history.add(document(f"run-{number}", [case(measurements=measured)], hour=number))
            for name, changes in (
                ("branch", {"branch": "next"}),
                ("device", {"cases": [case(device=OTHER_DEVICE)]}),
            ):
                history.add(document(f"{name}-{number}", hour=number, **changes))

        def spreads(name: str, **options: Any) -> dict[str, Any]:
            run = next(item for item in history.runs() if item.id == name)
            readings = history.results(run, **options).cases[KEY].readings
            return {item.metric: item.spread for item in readings}

        assert spreads("run-6") == {"latency_p50_ms": None, "size_bytes": None}
        assert spreads("run-7", spreads=False)["latency_p50_ms"] is None
        found = spreads("run-7")
        # Median 1.0, half of the values within 0.1 of it.
        assert found["latency_p50_ms"] == pytest.approx(1.4826 * 0.1)
        assert found["size_bytes"] is None
        assert spreads("device-7")["latency_p50_ms"] == 0


def test_single_latencies_are_left_to_json_files(url: str) -> None:
    measured = {**LATENCY, "samples_ns": [1, 2], "cpu_samples_ns": [1, 2]}
    with History(url) as history:
        history.add(document("run-0", [case(measurements=measured)]))
        assert history.document("run-0") == document("run-0", [case(measurements=LATENCY)])


def test_what_was_taken_over_is_no_new_point(url: str) -> None:
    with History(url) as history:
        for number in range(LEAST_HISTORY + 3):
            reused = "run-0" if number % 4 == 3 else None
            measured = {"latency_p50_ms": 7.0 if reused else 1.0 + number / 100}
            cases = [case(measurements=measured, reused=reused)]
            history.add(document(f"run-{number}", cases, hour=number))
        last = history.results(history.runs()[0])
        assert 7.0 not in [item.value for item in history.series(KEY, "latency_p50_ms")]
        taken_over = next(item for item in history.runs() if item.id == "run-3")
        assert history.results(taken_over).cases[KEY].reused
    (reading,) = last.cases[KEY].readings
    # Runs 0 to 10 without 3 and 7: the median is 1.05, and the middle deviation 0.03.
    assert reading.spread is not None
    assert reading.spread == pytest.approx(1.4826 * 0.03 / 1.05, rel=0.35)
    assert reading.spread < 0.1


def test_prune_keeps_the_newest_and_the_last_that_passed_of_each_branch(url: str) -> None:
    with History(url) as history:
        for number in range(8):
            branch = "next" if number == 0 else "main"
            gate = "closed" if number > 4 else "passed"
            history.add(document(f"run-{number}", hour=number, gate=gate, branch=branch))
        removed = history.prune(keep=2)
        assert [item.id for item in removed] == ["run-5", "run-3", "run-2", "run-1"]
        assert history.prune(keep=2) == []
        assert len(history.series(KEY, "latency_p50_ms")) == 4
    assert assert_whole(url) == ["run-7", "run-6", "run-4", "run-0"]
    assert rows(url, "SELECT count(*) FROM measurements") == [(4 * 3,)]


def test_prune_keeps_what_a_branch_is_compared_with(url: str) -> None:
    with History(url) as history:
        whole = document("whole", hour=0)
        whole["cases"].append({**whole["cases"][0], "key": "other/ort/fp32/parity"})
        history.add(whole)
        for number in range(1, 4):
            history.add(document(f"partial-{number}", hour=number))
        assert [item.id for item in history.prune(keep=1)] == ["partial-2", "partial-1"]


def test_forgotten_cases_leave_the_rest(url: str) -> None:
    with History(url) as history:
        first = document("first", hour=0)
        first["cases"].append({**first["cases"][0], "key": "old/ort/fp32/parity"})
        history.add(first)
        assert history.forget("old/*") == ["old/ort/fp32/parity"]
        assert history.forget("old/*") == []
        assert "old/ort/fp32/parity" not in history.case_keys()
        assert len(history.series(KEY, "latency_p50_ms")) == 1
        # The run's own report stays as it was.
        assert len(history.document("first")["cases"]) == len(first["cases"])


# -- what is not a history ------------------------------------------------------------------------


def refused(url: str | Path, **options: Any) -> str:
    """The one line with which a URL is refused."""
    with pytest.raises(HistoryError) as caught:
        History(str(url), **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "url",
    ["mysql://me:secret@host/db", "sqlite+aiosqlite:///x", "postgresql+asyncpg://me:secret@h/d"],
)
def test_other_databases_are_refused(url: str) -> None:
    text = refused(url)
    assert "postgresql://USER" in text
    assert "secret" not in text


@pytest.mark.parametrize("url", ["sqlite://", ":memory:", "", "sqlite:///file:x?mode=ro&uri=true"])
def test_what_names_no_file_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "needs a file" in refused(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a?b.db", "a%20b.db", "ä b/history.db"])
def test_a_path_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    with History(str(tmp_path / name)) as history:
        history.add(document())
    assert (tmp_path / name).is_file()


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"history {tmp_path}: it is a directory, not a file"
    (tmp_path / "file").touch()
    assert "can't make its directory: File exists" in refused(tmp_path / "file" / "history.db")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database\n" * 100)
    assert "file is not a database" in refused(path)
    assert path.read_text() == "no database\n" * 100


def test_a_truncated_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with History(str(path)) as history:
        history.add(document())
    path.write_bytes(path.read_bytes()[:5000])
    assert "malformed" in refused(path)


def test_where_there_is_none_none_is_made_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "below" / "history.db"
    assert "there is no history at" in refused(path, create=False)
    assert not path.parent.exists()
    (tmp_path / "empty.db").touch()
    assert "there is no history in it yet" in refused(tmp_path / "empty.db", create=False)
    History(str(path)).close()
    History(str(path), create=False).close()


def test_another_programs_database_is_refused_and_left_alone(url: str) -> None:
    if "://" not in url:
        connection = sqlite3.connect(url)
        connection.execute("CREATE TABLE runs (miles INTEGER)")
        connection.close()
    else:
        create_table(url)
    assert "another program's database (its tables: runs)" in refused(url)
    with pytest.raises(Exception, match="results"):
        rows(url, "SELECT * FROM results")


def create_table(url: str) -> None:
    import sqlalchemy as sql

    engine = sql.create_engine(sql.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE runs (miles INTEGER)")
    engine.dispose()


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    History(str(path)).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE edgecheck_version SET version = 99")
    connection.close()
    text = refused(path)
    assert "it has version 99" in text
    assert "update edgecheck" in text


def test_a_file_that_may_only_be_read_is_refused() -> None:
    # Not pytest's directory: it belongs to root where root runs the tests.
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "history.db"
        with History(str(path)) as history:
            history.add(document("one"))
        path.chmod(0o444)
        Path(directory).chmod(0o555)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)
            assert "readonly database" in refused(path)
            assert "unable to open" in refused(path.with_name("new.db"))
        finally:
            if root:
                os.seteuid(0)
            Path(directory).chmod(0o755)
