"""Our folder format: what is saved comes back, and what does not fit is named."""

from __future__ import annotations

import errno
import json

import pytest
import torch
from safetensors import safe_open

import marey
from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.transforms.preprocess import Preprocess

TINY = {
    "num_classes": 3,
    "num_frames": 2,
    "image_size": 16,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}
PREPROCESS = Preprocess(short_side=20, image_size=16, mean=(0.5, 0.5, 0.5))


def clip() -> torch.Tensor:
    return torch.randn(1, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("timesformer", {"stem": "conv"}),
        ("direcformer", {"num_orders": 4}),
        ("sevitar", {"label_dim": 5, "num_orders": 2}),
    ],
)
def test_a_round_trip_gives_equal_outputs_and_everything_else(tmp_path, name, more):
    model = marey.create_model(name, **TINY, **more).eval()
    save_checkpoint(
        tmp_path / "best",
        model,
        class_names=["run", "walk", "jump"],
        preprocess=PREPROCESS,
        calibration={"temperature": 1.5},
        extra={"note": "x"},
        tensors={"permutations": torch.arange(2)},
    )
    loaded = load_checkpoint(tmp_path / "best")
    assert torch.equal(loaded.model(clip())["logits"], model(clip())["logits"])
    assert not loaded.model.training
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert (loaded.name, loaded.source) == (name, str(tmp_path / "best"))
    assert (loaded.class_names, loaded.preprocess) == (["run", "walk", "jump"], PREPROCESS)
    assert (loaded.calibration, loaded.extra) == ({"temperature": 1.5}, {"note": "x"})
    assert torch.equal(loaded.tensors["permutations"], torch.arange(2))
    assert torch.equal(
        marey.load_model(tmp_path / "best")(clip())["logits"], model(clip())["logits"]
    )


def test_the_same_model_has_the_same_bytes(tmp_path):
    """The library alone writes the two names of the metadata in either order."""
    model = marey.create_model("timesformer", **TINY)
    written = set()
    for turn in range(8):
        save_checkpoint(
            tmp_path / str(turn), model, class_names=["ä", "b", "c"], preprocess=Preprocess()
        )
        written.add((tmp_path / str(turn) / "model.safetensors").read_bytes())
    assert len(written) == 1
    assert load_checkpoint(tmp_path / "0").class_names == ["ä", "b", "c"]


def test_half_storage_is_half_the_size_and_loads_as_float32(tmp_path):
    model = marey.create_model("timesformer", **TINY)
    for storage in ("float32", "float16"):
        save_checkpoint(
            tmp_path / storage, model, class_names=None, preprocess=None, storage=storage
        )
    sizes = [
        (tmp_path / storage / "model.safetensors").stat().st_size
        for storage in ("float16", "float32")
    ]
    assert sizes[0] < 0.65 * sizes[1]
    loaded = load_checkpoint(tmp_path / "float16")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    torch.testing.assert_close(
        loaded.model(clip())["logits"], model.eval()(clip())["logits"], atol=1e-3, rtol=0
    )
    assert loaded.class_names == ["class 0", "class 1", "class 2"]
    with torch.no_grad():
        model.head.weight.fill_(1e6)
    with pytest.raises(
        UserError, match=r"'head.weight' has values beyond the range of torch.float16"
    ):
        save_checkpoint(tmp_path / "x", model, class_names=None, preprocess=None, storage="float16")


def test_batch_norm_statistics_keep_full_precision(tmp_path):
    model = marey.create_model("timesformer", **TINY, stem="conv")
    model(torch.randn(4, 2, 3, 16, 16))
    save_checkpoint(tmp_path, model, class_names=None, preprocess=None, storage="float16")
    loaded = load_checkpoint(tmp_path).model
    assert torch.equal(
        loaded.patch_embed.convs[1].running_var, model.patch_embed.convs[1].running_var
    )
    assert loaded.patch_embed.convs[1].num_batches_tracked == 1


def test_a_full_disk_is_said_and_the_old_checkpoint_survives(tmp_path, monkeypatch):
    model = marey.create_model("timesformer", **TINY).eval()
    save_checkpoint(tmp_path, model, class_names=None, preprocess=None)
    before = model(clip())["logits"]

    def full(stored, path, metadata):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("marey.checkpoints.folder.save_file", full)
    torch.nn.init.ones_(model.head.weight)
    with pytest.raises(
        UserError, match="the disk is full, nothing was saved there and an older file"
    ):
        save_checkpoint(tmp_path, model, class_names=None, preprocess=None)
    assert torch.equal(load_checkpoint(tmp_path).model(clip())["logits"], before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def damage(folder, what):
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    if what == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "no weights":
        weights.unlink()
    elif what == "not json":
        (folder / "config.json").write_text("{")
    elif what == "no config":
        (folder / "config.json").unlink()
    else:
        changes = {
            "other classes": {"num_classes": 4},
            "more depth": {"depth": 2},
            "bad key": {"deepth": 2},
        }
        config |= {"format": 2} if what == "format 2" else {"arguments": TINY | changes[what]}
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "model.safetensors: not a readable safetensors file"),
        ("no weights", "model.safetensors: no such file"),
        ("no config", "config.json: no such file"),
        ("not json", "config.json: not valid JSON"),
        ("format 2", "expected a marey checkpoint of format 1, got format 2"),
        (
            "other classes",
            r"2 mismatched \(head.weight: \(3, 16\) in the file, \(4, 16\) in the model",
        ),
        ("more depth", "missing .blocks.1"),
        ("bad key", "'deepth'; did you mean 'depth'"),
    ],
)
def test_damage_is_named(tmp_path, what, message):
    save_checkpoint(
        tmp_path, marey.create_model("timesformer", **TINY), class_names=None, preprocess=None
    )
    damage(tmp_path, what)
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path)


def test_class_names_must_match_the_logits(tmp_path):
    with pytest.raises(UserError, match="2 class names for a model of 3 classes"):
        save_checkpoint(
            tmp_path,
            marey.create_model("timesformer", **TINY),
            class_names=["a", "b"],
            preprocess=None,
        )


def test_only_registered_models_are_saved(tmp_path):
    with pytest.raises(UserError, match="a Linear cannot be saved"):
        save_checkpoint(tmp_path, torch.nn.Linear(1, 1), class_names=None, preprocess=None)


def test_nothing_is_pickled(tmp_path):
    save_checkpoint(
        tmp_path, marey.create_model("timesformer", **TINY), class_names=None, preprocess=None
    )
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert "head.weight" in file.keys()  # noqa: SIM118
