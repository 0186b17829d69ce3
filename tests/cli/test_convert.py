"""`marey convert` and `marey export` from the command line."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from marey.checkpoints.convert import read_class_names
from marey.checkpoints.load import load_checkpoint
from marey.cli import build_app
from marey.errors import UserError
from marey.models import create_model

TINY = {
    "num_classes": 3,
    "num_frames": 2,
    "image_size": 16,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}


def run(*arguments: str):
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def test_convert_reads_a_released_file_and_names_its_classes(tmp_path):
    model = create_model("timesformer", **TINY).eval()
    torch.save({"model_state": model.state_dict()}, tmp_path / "x.pyth")
    (tmp_path / "names.txt").write_text("run\nwalk\njump\n")
    arguments = (
        "convert",
        tmp_path / "x.pyth",
        "--from",
        "timesformer",
        "--out",
        tmp_path / "out",
        "--num-heads",
        "2",
        "--class-names",
        tmp_path / "names.txt",
        "--json",
    )
    answer = run(*arguments)
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["model"] == "timesformer"
    loaded = load_checkpoint(tmp_path / "out")
    clip = torch.randn(1, 2, 3, 16, 16)
    torch.testing.assert_close(loaded.model(clip)["logits"], model(clip)["logits"])
    assert loaded.class_names == ["run", "walk", "jump"]
    again = run(*arguments)
    assert isinstance(again.exception, UserError)
    assert "there is a checkpoint already; choose another --out or add --overwrite" in str(
        again.exception
    )
    assert run(*arguments, "--overwrite").exit_code == 0


def test_convert_starts_a_video_model_from_an_image_vit(tmp_path):
    timm = pytest.importorskip("timm", reason="makes the image model")
    vit = timm.create_model(
        "vit_base_patch16_224", img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2
    )
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    answer = run(
        "convert",
        tmp_path / "vit.pth",
        "--from",
        "vit",
        "--out",
        tmp_path / "out",
        "--num-heads",
        "2",
        "--num-classes",
        "4",
        "--num-frames",
        "2",
        "--model",
        "direcformer",
    )
    assert answer.exit_code == 0, answer.output
    assert "missing tensors are initialised and must be trained" in answer.output
    assert load_checkpoint(tmp_path / "out").arguments["time_attention"] == "cosine"


def test_convert_reads_i3d(public_i3d_names, tmp_path):
    torch.save(
        public_i3d_names(create_model("i3d", num_classes=3).state_dict()), tmp_path / "rgb.pt"
    )
    assert (
        run("convert", tmp_path / "rgb.pt", "--from", "i3d", "--out", tmp_path / "out").exit_code
        == 0
    )
    loaded = load_checkpoint(tmp_path / "out")
    assert (loaded.name, loaded.preprocess.mean, loaded.preprocess.sampling.target_fps) == (
        "i3d",
        (0.5,) * 3,
        25.0,
    )


def test_convert_names_unknown_formats_and_missing_files(tmp_path):
    for arguments, message in [
        ((tmp_path / "x", "--from", "timesfromer"), "did you mean 'timesformer'"),
        ((tmp_path / "x.pyth", "--from", "timesformer"), "x.pyth: no such file"),
        ((tmp_path / "x", "--from", "hf"), "no such folder"),
    ]:
        answer = run("convert", *arguments, "--out", tmp_path / "out")
        assert isinstance(answer.exception, UserError)
        assert message in str(answer.exception)
    assert not (tmp_path / "out").exists()


def test_export_writes_and_reports(tmp_path):
    torch.save(
        {"model_state": create_model("timesformer", **TINY).state_dict()}, tmp_path / "x.pyth"
    )
    run(
        "convert",
        tmp_path / "x.pyth",
        "--from",
        "timesformer",
        "--out",
        tmp_path / "model",
        "--num-heads",
        "2",
    )
    pytest.importorskip("transformers", reason="checks the export")
    answer = run("export", tmp_path / "model", "--format", "hf", "--out", tmp_path / "hf", "--json")
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["largest_relative_difference"] < 1e-4


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "x\n\ny\n"),
        ("a.json", '["x", "y"]'),
        ("a.json", '{"y": 1, "x": 0}'),
        ("a.json", '{"0": "x", "1": "y"}'),
    ],
)
def test_class_names_are_read_from_every_form(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name) == ["x", "y"]


def test_class_names_with_a_gap_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"x": 0, "y": 2}')
    with pytest.raises(UserError, match="indices 0 to K-1"):
        read_class_names(tmp_path / "a.json")
