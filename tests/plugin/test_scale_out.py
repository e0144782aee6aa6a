"""Scale-out: a suite that pytest-xdist spreads over hosts which share no files, by ssh.

Two servers of this user on loopback play the hosts. Each has its own checkout, home and directory
for temporary files; where the kernel lets us, also a mount namespace in which the directories of
the others are hidden.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecheck.history.database import History
from edgecheck.history.report_file import schema_text
from edgecheck.history.results import CaseResult, results_of

pytest.importorskip("xdist")

# A file as the source: importing torch in every process would take most of the time.
SUITE = """
from pathlib import Path
import numpy as np
from edgecheck import Budget, Conformance, Evaluation, Input, Model, metrics

HERE = Path(__file__).parent


class TestTiny(Conformance):
    model = Model(
        HERE / "tiny.onnx",
        inputs=[Input("x", ("batch", 16), low=0.0, high=1.0)],
        outputs=["logits"],
        evaluation=Evaluation(
            np.load(HERE / "x.npy"), labels=np.load(HERE / "labels.npy"), metric=metrics.top1
        ),
    )
    budget = Budget(peak_memory="1 GB")
"""
CRASHING = """
    def test_crash(self, case):
        import os
        if case.case.precision == "fp32":
            os.abort()
"""
ARGUMENTS = ("--edge-targets=ort", "--edge-precisions=fp32,int8-dynamic", "--edge-json=edge.json")
# Those whose results repeat exactly, and one of those that measure.
CHECKS = "--edge-checks=export,parity,accuracy,memory"
REPOSITORY = Path(__file__).parents[1]
HIDE = 'for hidden in "$@"; do mount -t tmpfs none "$hidden" || exit 1; done'
SERVE = f'config=$1; shift; {HIDE}; mkdir -p /run/sshd; exec "$SSHD" -D -e -f "$config"'


@dataclass(frozen=True)
class Host:
    """A machine, as far as files go: the controller or one that runs tests."""

    name: str
    directory: Path
    port: int = 0

    @property
    def checkout(self) -> Path:
        return self.directory / "checkout"

    @property
    def temporary(self) -> Path:
        return self.directory / "tmp"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.directory / "home"),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def make(self, suite: str) -> None:
        for name in ("checkout", "tmp", "home"):
            (self.directory / name).mkdir(parents=True)
        (self.checkout / "pytest.ini").write_text("[pytest]\n")
        (self.checkout / "test_suite.py").write_text(suite)
        write_model(self.checkout)


def write_model(directory: Path) -> None:
    """A classifier with fixed weights, and data that it classifies rightly."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(0, 0.5, (16, 32)).astype(np.float32)
    output = rng.normal(0, 0.5, (32, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "hidden"], ["sums"]),
            helper.make_node("Relu", ["sums"], ["active"]),
            helper.make_node("MatMul", ["active", "output"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(hidden, "hidden"), numpy_helper.from_array(output, "output")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), directory / "tiny.onnx")
    x = rng.uniform(0, 1, (200, 16)).astype(np.float32)
    np.save(directory / "x.npy", x)
    np.save(directory / "labels.npy", (np.maximum(x @ hidden, 0) @ output).argmax(1))


def find_tools() -> dict[str, str]:
    """The programs of OpenSSH, or a skip that says what is missing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    found = {name: shutil.which(name, path=path) for name in ("sshd", "ssh", "ssh-keygen")}
    missing = [name for name, place in found.items() if place is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: install openssh-server and openssh-client")
    return {name: place for name, place in found.items() if place}


def can_hide() -> bool:
    """Whether this user may have mount namespaces of their own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_server_config(host: Host) -> Path:
    environment = " ".join(f"{name}={value}" for name, value in host.environment.items())
    config = host.directory / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{host.port}\n"
        f"HostKey {host.directory}/host_key\n"
        f"AuthorizedKeysFile {host.directory}/authorized_keys\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        f"PermitRootLogin prohibit-password\nPrintMotd no\nSetEnv {environment}\n"
    )
    return config


def write_client_config(directory: Path, hosts: Sequence[Host]) -> Path:
    known = []
    config = []
    for host in hosts:
        key = (host.directory / "host_key.pub").read_text().rpartition(" ")[0]
        known.append(f"[127.0.0.1]:{host.port} {key}\n")
        config.append(f"Host {host.name}\n  Port {host.port}\n")
    config.append(
        "Host *\n  HostName 127.0.0.1\n"
        f"  User {pwd.getpwuid(os.getuid()).pw_name}\n"
        f"  IdentityFile {directory}/key\n  UserKnownHostsFile {directory}/known_hosts\n"
        "  GlobalKnownHostsFile /dev/null\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        "  BatchMode yes\n  StrictHostKeyChecking yes\n  LogLevel ERROR\n"
    )
    (directory / "known_hosts").write_text("".join(known))
    path = directory / "ssh_config"
    path.write_text("".join(config))
    return path


@contextlib.contextmanager
def serving(host: Host, sshd: str, hidden: Sequence[Path] | None) -> Iterator[None]:
    """Run a host's server; in a mount namespace where directories are hidden from it."""
    config = str(write_server_config(host))
    command = [sshd, "-D", "-e", "-f", config]
    if hidden is not None:
        paths = [*map(str, hidden), "/run"]
        command = ["unshare", "--mount", "sh", "-c", SERVE, "sh", config, *paths]
    log = host.directory / "sshd.log"
    with log.open("w") as stream:
        server = subprocess.Popen(command, stderr=stream, env={**os.environ, "SSHD": sshd})
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", host.port)):
                break
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"sshd did not start: {log.read_text()}")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(30)


@dataclass(frozen=True)
class Cluster:
    """A controller and the hosts that it reaches by ssh."""

    controller: Host
    hosts: Sequence[Host]
    ssh_config: Path

    def spread(self, *positions: int) -> list[str]:
        """What spreads a run over workers on the hosts at these positions."""
        specs = [
            f"ssh={host.name}//ssh_config={self.ssh_config}//python={sys.executable}"
            f"//chdir={host.checkout}"
            for host in (self.hosts[position] for position in positions)
        ]
        return ["--dist=load", *(f"--tx={spec}" for spec in specs)]


@contextlib.contextmanager
def cluster_of(directory: Path, suite: str) -> Iterator[Cluster]:
    tools = find_tools()
    hide = can_hide()
    if os.geteuid() == 0 and not hide and not Path("/run/sshd").is_dir():
        pytest.skip("sshd needs /run/sshd where it runs as root, and no mount namespace is allowed")
    controller = Host("controller", directory / "controller")
    hosts = [Host(name, directory / name, free_port()) for name in ("one", "two")]
    for host in (controller, *hosts):
        host.make(suite)
    keys = [controller.directory / "key", *(host.directory / "host_key" for host in hosts)]
    for key in keys:
        command = [tools["ssh-keygen"], "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True)
    with contextlib.ExitStack() as servers:
        for host in hosts:
            shutil.copy(keys[0].with_suffix(".pub"), host.directory / "authorized_keys")
            others = [item.directory for item in (controller, *hosts) if item is not host]
            servers.enter_context(serving(host, tools["sshd"], others if hide else None))
        yield Cluster(controller, hosts, write_client_config(controller.directory, hosts))


def judged(host: Host, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Run pytest in a host's checkout; status, output and JSON report."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST_")
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *ARGUMENTS, *arguments],
        cwd=host.checkout,
        env={**environment, **host.environment, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    report = host.checkout / "edge.json"
    output = done.stdout + done.stderr
    assert report.is_file(), output
    return done.returncode, output, json.loads(report.read_text())


def steady(report: dict[str, Any]) -> object:
    """The report without what must differ between runs: times, and figures of memory."""
    cases = []
    for case in report["cases"]:
        kept = {name: value for name, value in case.items() if name != "timings"}
        if case["check"] == "memory":
            del kept["measurements"], kept["warnings"], kept["details"]
            kept["limits"] = [{**limit, "measured": None} for limit in case["limits"]]
        cases.append(kept)
    return {**report, "run": None, "cases": cases}


def history_of(host: Host) -> Mapping[str, CaseResult]:
    """What the one run in a host's history left there."""
    with History(str(host.checkout / ".edgecheck/history.db"), create=False) as history:
        (run,) = history.runs()
        return history.results(run).cases


def test_two_hosts_judge_as_one_does(tmp_path: Path) -> None:
    with cluster_of(tmp_path, SUITE) as cluster:
        status, output, spread = judged(cluster.controller, CHECKS, *cluster.spread(0, 0, 1))
    single = Host("single", tmp_path / "single")
    single.make(SUITE)
    expected_status, _, alone = judged(single, CHECKS)

    assert status == expected_status == 0, output
    assert len(spread["cases"]) == 8
    assert steady(spread) == steady(alone)
    jsonschema.validate(spread, json.loads(schema_text()))
    kept, expected = history_of(cluster.controller), history_of(single)
    assert kept.keys() == results_of(spread).cases.keys()
    for key, case in kept.items():
        assert case.verdict == expected[key].verdict
        assert case.artifact_sha256 == expected[key].artifact_sha256
        if not key.endswith("/memory"):
            assert case.readings == expected[key].readings
    # Both hosts have built files, in caches of their own; nothing else is left on any.
    for host in cluster.hosts:
        assert list((host.checkout / ".edgecheck/cache").glob("objects/*/*/*.onnx")), host.name
    assert not (cluster.controller.checkout / ".edgecheck/cache").exists()
    assert not any((host.checkout / ".edgecheck/history.db").exists() for host in cluster.hosts)
    for host in (cluster.controller, *cluster.hosts):
        assert not list(host.temporary.glob("edgecheck-????????????????????????????????"))


def test_a_worker_that_dies_on_a_host_is_a_failed_case(tmp_path: Path) -> None:
    with cluster_of(tmp_path, SUITE + CRASHING) as cluster:
        status, output, report = judged(
            cluster.controller, "--edge-checks=export", *cluster.spread(0, 1)
        )
    cases = {case["key"]: case for case in report["cases"]}
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert cases["tiny/ort/fp32/crash"]["verdict"] == "failed"
    assert "crashed while running" in cases["tiny/ort/fp32/crash"]["reason"]
    assert {key for key, case in cases.items() if case["verdict"] == "passed"} == {
        "tiny/ort/fp32/export",
        "tiny/ort/int8-dynamic/export",
        "tiny/ort/int8-dynamic/crash",
    }


def test_what_is_wrong_with_a_selection_is_told_from_hosts_that_run_no_test(tmp_path: Path) -> None:
    with cluster_of(tmp_path, SUITE) as cluster:
        status, output, report = judged(
            cluster.controller, "--edge-models=tony*", *cluster.spread(0)
        )
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "matches no model (models: tiny)" in output
    assert report["gate"]["verdict"] == "closed"
