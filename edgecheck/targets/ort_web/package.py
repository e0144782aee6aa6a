"""ONNX Runtime Web in a page: found on this machine, started, and given files and inputs.

Self-contained (standard library and NumPy), since it is sent to the device. Not a driver: that is
`edgecheck.targets.ort_web.run`; nor Chromium: see `edgecheck.targets.ort_web.browser`.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.targets.ort_web import page
from edgecheck.targets.ort_web.browser import BrowserError, Tab
from edgecheck.targets.ort_web.server import WebServer

PACKAGE = "onnxruntime-web"
# The builds of the runtime that a page would take for each provider, and Chromium's switches.
_MODULES = {"wasm": "ort.wasm.min.mjs", "webgpu": "ort.webgpu.min.mjs"}
_SWITCHES = {
    "": ("--disable-gpu",),
    "software": (
        *("--enable-unsafe-webgpu", "--enable-unsafe-swiftshader"),
        "--use-webgpu-adapter=swiftshader",
    ),
    "hardware": ("--enable-unsafe-webgpu", "--enable-features=Vulkan", "--ignore-gpu-blocklist"),
}
_FILES = {"page.html": page.HTML.encode(), "page.mjs": page.SCRIPT.encode()}
# A serialized ONNX model with one Identity node on one float (IR 8, opset 17): loading it makes the
# page fetch, compile and start the runtime before a model is timed or weighed.
_IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a001011"
)
# What is gzipped to be downloaded is compressed once, as web servers do: zlib's default level.
_GZIP_LEVEL = 6


def find_runtime() -> Path | None:
    """The folder with the runtime's .mjs and .wasm files, or None.

    The npm package is looked for at ``EDGECHECK_ORT_WEB``, else as ``node_modules/onnxruntime-web``
    in the current directory and those above it.
    """
    stated = os.environ.get("EDGECHECK_ORT_WEB")
    here = Path.cwd()
    packages = (
        [Path(stated)]
        if stated
        else [folder / "node_modules" / PACKAGE for folder in (here, *here.parents)]
    )
    for package in packages:
        for folder in (package / "dist", package):
            if all((folder / name).is_file() for name in _MODULES.values()):
                return folder
    return None


class Page:
    """The page with the runtime, and its server."""

    def __init__(self, adapter: str, threads: int) -> None:
        runtime = find_runtime()
        if runtime is None:
            raise BrowserError(f"{PACKAGE} is not installed: npm install {PACKAGE}@1.30.0")
        self.provider = "webgpu" if adapter else "wasm"
        files = {
            f"runtime/{item.name}": item
            for item in runtime.iterdir()
            if item.suffix in (".mjs", ".wasm")
        }
        self._files = files
        self.server = WebServer({**files, **_FILES})
        self.tab = Tab(self.server, _SWITCHES[adapter])
        self.about: dict[str, Any] = self.tab.call(
            "start",
            module=f"./runtime/{_MODULES[self.provider]}",
            threads=threads,
            wanted=adapter,
        )
        self._loaded = 0
        self.server.blobs["identity"] = _IDENTITY
        self.tab.call("load", id=-1, model="identity", external=[], optimize=True)
        self.tab.call("release", id=-1)

    def load(self, path: str, *, optimize: bool) -> tuple[int, dict[str, Any]]:
        """Load a file; its number, and its inputs, outputs and ``load_ns``."""
        self._loaded += 1
        content = Path(path).read_bytes()
        self.server.blobs["model"] = content
        external: list[dict[str, str]] = []
        # A model names the files of its weights, which lie beside it.
        for item in sorted(Path(path).parent.iterdir()):
            if item.name != Path(path).name and item.name.encode() in content and item.is_file():
                self.server.blobs[f"external-{len(external)}"] = item.read_bytes()
                external.append({"path": item.name, "blob": f"external-{len(external)}"})
        found = self.tab.call(
            "load", id=self._loaded, model="model", external=external, optimize=optimize
        )
        self.server.blobs.clear()
        return self._loaded, found

    def feed(self, number: int, inputs: dict[str, np.ndarray]) -> None:
        """Give the page the inputs of the inferences to come."""
        content = bytearray()
        described = []
        for name, array in inputs.items():
            array = np.asarray(array, order="C")
            described.append(
                {
                    "name": name,
                    "dtype": array.dtype.name,
                    "shape": list(array.shape),
                    "start": len(content),
                    "size": array.nbytes,
                }
            )
            content += array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        self.server.blobs["inputs"] = content
        self.tab.call("feed", id=number, inputs=described)
        del self.server.blobs["inputs"]

    def outputs(self, number: int) -> dict[str, np.ndarray]:
        """One inference's outputs."""
        described = self.tab.call("outputs", id=number)
        content = self.server.blobs.pop("outputs")
        found, start = {}, 0
        for item in described:
            count = item["size"] // np.dtype(item["dtype"]).itemsize
            array = np.frombuffer(content, item["dtype"], count, start).reshape(item["shape"])
            found[item["name"]] = array.copy()
            start += item["size"]
        return found

    def download(self) -> dict[str, Any]:
        """What the page loaded of the runtime: names, bytes, and bytes when gzipped."""
        names = sorted(name for name in self.server.served if name.startswith("runtime/"))
        packed = 0
        for name in names:
            packed += len(gzip.compress(self._files[name].read_bytes(), _GZIP_LEVEL))
        return {
            "runtime_files": [name.removeprefix("runtime/") for name in names],
            "runtime_download_bytes": sum(self.server.served[name] for name in names),
            "runtime_download_gzip_bytes": packed,
        }

    def held_bytes(self, *, collected: bool) -> dict[str, int]:
        """WebAssembly memory and what JavaScript holds."""
        heap = self.tab.heap_bytes(collected=collected)
        return {"wasm_memory_bytes": self.tab.call("memory"), "js_heap_bytes": heap}

    def close(self) -> None:
        """End the browser and the server."""
        self.tab.close()
        self.server.close()


def probe(adapter: str) -> dict[str, Any]:
    """The WebGPU adapter that there is, in a page of its own.

    Raises:
        BrowserError: there is none, or a software one where hardware was asked for.
    """
    server = WebServer(_FILES)
    tab = Tab(server, _SWITCHES[adapter])
    try:
        found: dict[str, Any] = tab.call("adapter", wanted=adapter)
    finally:
        tab.close()
        server.close()
    return found
