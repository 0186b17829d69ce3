"""A checkpoint is found by its name, and read by the reader of its format."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

import marey
from marey.checkpoints.load import compiled, load_checkpoint
from marey.checkpoints.sources import WEIGHTS_FOLDER, bundled_names, weights_folder
from marey.errors import UserError

TINY = {
    "num_classes": 3,
    "num_frames": 2,
    "image_size": 16,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}


def clip() -> torch.Tensor:
    return torch.randn(1, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_names_that_lead_nowhere(tmp_path):
    with pytest.raises(UserError, match="nowhere/best: no such checkpoint folder; bundled names"):
        load_checkpoint("nowhere/best")
    (tmp_path / "x.pyth").write_bytes(b"")
    with pytest.raises(
        UserError, match="a file, but a checkpoint is a folder; bring a file in with `marey convert"
    ):
        load_checkpoint(tmp_path / "x.pyth")


def test_weights_are_found_in_an_installed_wheel_and_in_a_checkout(tmp_path):
    package = tmp_path / "src" / "marey"
    package.mkdir(parents=True)
    assert weights_folder(package) == tmp_path / "weights"
    (package / "weights").mkdir()
    assert weights_folder(package) == package / "weights"


def test_the_wheel_carries_the_weights_where_they_are_looked_for():
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"weights": "marey/weights"}
    assert {"marey-mini-rgb", "marey-mini-detect", "marey-mini-gat", "marey-mini-order"} <= set(
        bundled_names()
    )


def test_the_short_name_is_the_model_of_poses_and_rgb_the_one_of_pixels():
    assert load_checkpoint("marey-mini").task == "poses"
    assert load_checkpoint("marey-mini-rgb").task == "clips"


def test_bundled_checkpoints_load_and_stay_small():
    for name in bundled_names():
        checkpoint = load_checkpoint(name)
        assert checkpoint.source == name
        folder = WEIGHTS_FOLDER / name
        assert (
            sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 10 * 2**20
        )


@pytest.mark.parametrize("where", ["at once", "at the first forward"])
def test_a_compiler_that_fails_is_replaced_by_the_model_with_a_warning(monkeypatch, where):
    model = marey.create_model("timesformer", **TINY).eval()

    def broken(*args, **kwargs):
        raise RuntimeError("no C++ compiler\nlong story")

    monkeypatch.setattr(torch, "compile", broken if where == "at once" else lambda model: broken)
    with pytest.warns(UserWarning, match=r"torch.compile does not work here \(no C\+\+ compiler\)"):
        answer = compiled(model)(clip())
    assert torch.equal(answer["logits"], model(clip())["logits"])


def test_the_eager_backend_of_the_compiler_gives_equal_outputs(monkeypatch):
    model = marey.create_model("direcformer", **TINY, num_orders=3).eval()
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_(model, backend="eager"))
    with torch.no_grad():
        torch.testing.assert_close(compiled(model)(clip())["logits"], model(clip())["logits"])
