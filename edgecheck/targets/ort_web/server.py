"""A server on the loopback interface for one page: its files, and bytes in both directions.

Self-contained (standard library), since it is sent to the device. Not a server of folders: it has
the files that it is told of, by name, and nothing else.
"""

from __future__ import annotations

import mimetypes
import secrets
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What makes a page cross-origin isolated, and so gives it threads and the finer clock (HTML
# standard, 7.1.3 and 7.1.4; High Resolution Time, 4.2).
_ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html"}


class WebServer:
    """Serves files by name and blobs by name, on 127.0.0.1 at a free port.

    Every address begins with a secret, so that no other page and no other user of the machine can
    ask for anything.

    Args:
        files: what the page may load, by name.

    Attributes:
        url: the page's folder, with a slash at its end.
        blobs: bytes by name that the page may fetch, and those that it sent.
        served: size in bytes of each file that was asked for, by name.
    """

    def __init__(self, files: Mapping[str, Path | bytes]) -> None:
        self.blobs: dict[str, bytes | bytearray] = {}
        self.served: dict[str, int] = {}
        self._files = dict(files)
        self._prefix = f"/{secrets.token_urlsafe(16)}/"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}{self._prefix}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def _content(self, address: str) -> bytes | bytearray | None:
        """What lies at an address: names are looked up whole, so that no path leads elsewhere."""
        if not address.startswith(self._prefix):
            return None
        name = address.removeprefix(self._prefix)
        if name.startswith("blob/"):
            return self.blobs.get(name.removeprefix("blob/"))
        found = self._files.get(name)
        if found is None:
            return None
        content = found if isinstance(found, bytes) else found.read_bytes()
        self.served[name] = len(content)
        return content

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # http.server's name
                content = server._content(self.path)
                self._answer(404 if content is None else 200, content or b"")

            def do_PUT(self) -> None:
                name = self.path.removeprefix(f"{server._prefix}blob/")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if name == self.path:
                    self._answer(404, b"")
                    return
                server.blobs[name] = body
                self._answer(204, b"")

            def _answer(self, status: int, content: bytes | bytearray) -> None:
                self.send_response(status)
                kind = _TYPES.get(Path(self.path).suffix) or mimetypes.guess_type(self.path)[0]
                for name, value in _ISOLATION.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", kind or "application/octet-stream")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
