"""The loopback server of web pages: what it was told of, and nothing else."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecheck.targets.ort_web.server import WebServer

law = settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "code.wasm").write_bytes(b"\0asm")
    (folder / "secret").write_bytes(b"secret")
    server = WebServer({"page.html": b"<html>", "runtime/code.wasm": folder / "code.wasm"})
    yield server
    server.close()


def status(url: str, **request: object) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **request), timeout=10) as answer:  # type: ignore[arg-type]
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_files_come_with_what_isolates_a_page(server: WebServer) -> None:
    with urllib.request.urlopen(f"{server.url}runtime/code.wasm", timeout=10) as answer:
        assert answer.read() == b"\0asm"
        assert answer.headers["Content-Type"] == "application/wasm"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert server.served["runtime/code.wasm"] == 4


def test_it_listens_on_the_loopback_interface_only(server: WebServer) -> None:
    assert server._server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    [
        *("", "secret", "runtime/", "runtime/secret", "runtime/../secret", "../page.html"),
        *("runtime/%2e%2e/secret", "//page.html", "blob/nothing", "/etc/passwd", "page.html?x"),
    ],
)
def test_nothing_else_is_there(server: WebServer, path: str) -> None:
    assert status(server.url + path) == 404


@law
@given(st.text(min_size=1, max_size=20))
def test_no_name_leads_out_of_what_was_told(server: WebServer, name: str) -> None:
    if name not in ("page.html", "runtime/code.wasm"):
        assert status(server.url + urllib.parse.quote(name)) == 404


def test_without_the_secret_there_is_nothing(server: WebServer) -> None:
    origin = server.url[: server.url.index("/", len("http://"))]
    assert status(f"{origin}/page.html") == 404
    assert status(f"{origin}/blob/x", data=b"1", method="PUT") == 404
    assert "x" not in server.blobs


@law
@given(st.binary(max_size=1000))
def test_bytes_come_back_as_they_were_sent(server: WebServer, content: bytes) -> None:
    assert status(f"{server.url}blob/outputs", data=content, method="PUT") == 204
    with urllib.request.urlopen(f"{server.url}blob/outputs", timeout=10) as answer:
        assert answer.read() == content


def test_only_blobs_can_be_sent(server: WebServer, tmp_path: Path) -> None:
    assert status(f"{server.url}page.html", data=b"other", method="PUT") == 404
    with urllib.request.urlopen(f"{server.url}page.html", timeout=10) as answer:
        assert answer.read() == b"<html>"
