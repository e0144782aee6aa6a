"""The PyTorch driver: programs load without unpickling, outputs are matched as declared."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from edgecheck.runtime.torch import name_outputs
from edgecheck.runtime.torch_program import load_program


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": x.sum(1), "double": x * 2}


def test_a_saved_program_loads_and_runs(tmp_path: Path) -> None:
    program = torch.export.export(Two(), (), {"x": torch.ones(2, 3)})
    torch.export.save(program, tmp_path / "m.pt2")
    outputs = load_program(str(tmp_path / "m.pt2")).module()(x=torch.ones(2, 3))
    assert outputs["sum"].tolist() == [3.0, 3.0]


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("open('owned', 'w').close()",))


def test_a_file_with_a_pickle_in_it_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.export.load by itself falls back to unpickling the sample inputs."""
    monkeypatch.chdir(tmp_path)
    program = torch.export.export(Two(), (), {"x": torch.ones(2, 3)})
    torch.export.save(program, "good.pt2")
    torch.save(Exploit(), "evil.pt", pickle_protocol=pickle.HIGHEST_PROTOCOL)
    with zipfile.ZipFile("good.pt2") as good, zipfile.ZipFile("evil.pt2", "w") as evil:
        for name in good.namelist():
            content = good.read(name)
            if name.endswith("sample_inputs/model.pt"):
                content = Path("evil.pt").read_bytes()
            evil.writestr(name.replace("good/", "evil/"), content)
    with pytest.raises(ValueError, match=r"does not load as a torch\.export program"):
        load_program("evil.pt2")
    assert not Path("owned").exists()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_program_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.pt2").write_bytes(content)
    with pytest.raises(ValueError, match=r"does not load as a torch\.export program"):
        load_program(str(tmp_path / "m.pt2"))


def test_dicts_are_matched_by_key_and_tuples_by_order() -> None:
    one, two = torch.zeros(1), torch.ones(2)
    by_key = name_outputs({"b": two, "a": one}, ["a", "b"])
    by_order = name_outputs((one, [two]), ["a", "b"])
    assert [by_key["a"].shape, by_key["b"].shape] == [(1,), (2,)]
    assert [by_order["a"].shape, by_order["b"].shape] == [(1,), (2,)]
    with pytest.raises(ValueError, match="returns 1 tensors, but outputs declares 2"):
        name_outputs(one, ["a", "b"])
