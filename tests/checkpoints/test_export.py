"""Exports give the outputs of the eager model at any batch size; an export that does not is not
written."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from marey.checkpoints.export import compare, export_checkpoint
from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.models import create_model
from marey.transforms.pose_clip import PoseSampling
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

TINY = {
    "num_classes": 3,
    "num_frames": 2,
    "image_size": 16,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}


def checkpoint(folder, name="direcformer", **more):
    model = create_model(name, **{**TINY, **more})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2, generator=generator)
    save_checkpoint(
        folder,
        model,
        class_names=["a", "b", "c"],
        preprocess=Preprocess(sampling=ClipSampling(num_frames=2), short_side=16, image_size=16),
    )
    return load_checkpoint(folder)


def clips(batch: int) -> torch.Tensor:
    return torch.randn(batch, 2, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def test_onnx_gives_equal_outputs_and_carries_its_labels(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the file")
    pytest.importorskip("onnxscript", reason="writes the file")
    source = checkpoint(tmp_path / "model", num_orders=4)
    assert export_checkpoint(source, "onnx", tmp_path / "x.onnx") < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    logits, order_logits, _ = session.run(None, {"clip": clips(3).numpy()})
    expected = source.model(clips(3))
    torch.testing.assert_close(
        torch.as_tensor(logits), expected["logits"].detach(), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        torch.as_tensor(order_logits), expected["order_logits"].detach(), atol=1e-4, rtol=1e-4
    )
    about = json.loads(session.get_modelmeta().custom_metadata_map["marey"])
    assert about["class_names"] == ["a", "b", "c"]
    assert about["outputs"] == ["logits", "order_logits", "embedding"]
    assert Preprocess.from_dict(about["preprocess"]) == source.preprocess
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "x.onnx"]


def test_torch_export_gives_equal_outputs_at_any_batch(tmp_path):
    source = checkpoint(tmp_path / "model", num_orders=4)
    assert export_checkpoint(source, "torch-export", tmp_path / "x.pt2") < 1e-4
    extra = {"marey.json": ""}
    loaded = torch.export.load(str(tmp_path / "x.pt2"), extra_files=extra).module()
    torch.testing.assert_close(
        loaded(clips(5))[0], source.model(clips(5))["logits"], atol=1e-4, rtol=1e-4
    )
    assert json.loads(extra["marey.json"])["class_names"] == ["a", "b", "c"]


@pytest.mark.slow
def test_a_pose_model_is_exported_with_how_its_windows_are_cut(tmp_path):
    source = load_checkpoint("marey-mini")
    assert export_checkpoint(source, "torch-export", tmp_path / "x.pt2") < 1e-4
    extra = {"marey.json": ""}
    torch.export.load(str(tmp_path / "x.pt2"), extra_files=extra)
    about = json.loads(extra["marey.json"])
    assert PoseSampling.from_dict(about["pose_sampling"]) == source.pose_sampling


def test_torch_export_to_a_full_disk_is_one_line(tmp_path, monkeypatch):
    source = checkpoint(tmp_path / "model")

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="the disk is full, nothing was saved there"):
        export_checkpoint(source, "torch-export", tmp_path / "x.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_transformers_layout_is_checked(tmp_path):
    pytest.importorskip("transformers", reason="reads the folder")
    assert (
        export_checkpoint(checkpoint(tmp_path / "m", "timesformer"), "hf", tmp_path / "hf") < 1e-4
    )


def test_outputs_that_differ_are_refused():
    class Dict(nn.Module):
        names = ("logits",)

        def forward(self, clip):
            return (clip.sum((1, 2, 3, 4), keepdim=True).flatten(1),)

    with pytest.raises(UserError, match="toy: outputs differ from the model's by"):
        compare(Dict(), lambda clip: (Dict()(clip)[0] * 1.1,), [clips(2)], "toy")
    with pytest.raises(UserError, match=r"'logits' has shape \(2,\), the model \(2, 1\)"):
        compare(Dict(), lambda clip: (Dict()(clip)[0][:, 0],), [clips(2)], "toy")


def test_messages(tmp_path):
    source = checkpoint(tmp_path / "model")
    with pytest.raises(UserError, match="unknown export format 'onx'; did you mean 'onnx'"):
        export_checkpoint(source, "onx", tmp_path / "x.onnx")
    with pytest.raises(UserError, match="a torch-export file ends in '.pt2'"):
        export_checkpoint(source, "torch-export", tmp_path / "x.onnx")
    with pytest.raises(UserError, match="transformers layout cannot hold a DirecFormer"):
        export_checkpoint(source, "hf", tmp_path / "hf")


def test_eight_bits_quarter_the_file_and_their_cost_is_counted(tmp_path):
    pytest.importorskip("onnxruntime", reason="rounds and runs the file")
    pytest.importorskip("onnxscript", reason="writes the file")
    from marey.checkpoints.export import accuracy_cost
    from marey.video.encode import write_video

    source = checkpoint(tmp_path / "model", embed_dim=64)
    difference = export_checkpoint(source, "onnx", tmp_path / "x.onnx", int8=True)
    assert 0 < difference < 0.3
    export_checkpoint(source, "onnx", tmp_path / "wide.onnx")
    assert (tmp_path / "x.onnx").stat().st_size < 0.7 * (tmp_path / "wide.onnx").stat().st_size
    for place, name in enumerate("ab"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        frames = torch.randint(
            0, 255, (8, 3, 32, 32), generator=torch.Generator().manual_seed(place)
        )
        write_video(tmp_path / "videos" / name / "0.mp4", frames.to(torch.uint8), fps=8)
    cost = accuracy_cost(source, tmp_path / "x.onnx", tmp_path / "videos")
    assert cost["videos"] == 2
    assert cost["unreadable"] == 0
    assert {cost["top1_model"], cost["top1_file"], cost["same_answer"]} <= {0.0, 0.5, 1.0}
    with pytest.raises(
        UserError, match="8-bit weights are written as ONNX only; give --format onnx, not hf"
    ):
        export_checkpoint(source, "hf", tmp_path / "hf", int8=True)
