from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from marey.features.cache import FeatureCache
from marey.papers import direcformer_mini as study
from marey.papers.cells import ReproduceOptions
from marey.papers.direcformer import JESTER
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

ROWS = {row.name: row for row in JESTER}


def toy_clips(N=20, T=8):
    """Features whose first channel grows with time, so the order is there to be learned."""
    generator = torch.Generator().manual_seed(0)
    features = 0.1 * torch.randn(N, T, 16, 320, generator=generator)
    features[..., 0] += torch.arange(T).float()[None, :, None]
    splits = tuple("test" if i % 5 == 4 else "train" for i in range(N))
    return study.MiniClips(features.half(), torch.arange(N) % 8, splits, study.ONE_WAY_RECORDINGS)


def test_cells_are_recipes_with_the_attention_and_losses_of_their_name():
    config = study.mini_config(ROWS["C-S +L_ord"], 2)
    assert config.model.arguments["time_attention"] == "cosine"
    assert config.model.arguments["space_attention"] == "softmax"
    assert config.objective.weights == {"class": 1.0, "order": 1.0, "guided": 0.0}
    assert (config.train.seed, config.train.max_steps) == (2, study.MINI_STEPS)


def test_both_ways_are_classes_of_their_own():
    data = study.BothWays(toy_clips())
    assert len(data) == 40
    forward, backward = data[0, 6], data[0, 7]
    assert torch.equal(forward["clip"].flip(0), backward["clip"])
    assert (forward["label"], backward["label"]) == (3, 11)
    assert toy_clips().class_names()[4::8] == ("jump", "jump backwards")
    assert toy_clips().class_names()[5::8] == ("kick", "kick reversed")


def test_features_are_stored_in_the_direction_of_the_recording(tmp_path, monkeypatch):
    frames = np.arange(4, dtype=np.uint8)[None, :, None, None, None] * np.ones(
        (3, 4, 3, 16, 16), np.uint8
    )
    root = tmp_path / "set"
    root.mkdir()
    np.save(root / "frames.npy", frames)
    (root / "packed.json").write_text(
        json.dumps({"format": 1, "fps": 8.0, "class_names": ["jump", "jump backwards", "walk"]})
    )
    lines = [
        f"frames.npy#{i},{label},train,g{i}"
        for i, label in enumerate(("jump", "jump backwards", "walk"))
    ]
    (root / "manifest.csv").write_text("path,label,split,group\n" + "\n".join(lines) + "\n")
    monkeypatch.setattr(study, "render_dataset", lambda out, clips, plan, workers: out)
    preprocess = Preprocess(
        sampling=ClipSampling(kind="uniform", num_frames=4),
        short_side=16,
        image_size=16,
        mean=(0.0,) * 3,
        std=(1 / 255,) * 3,
    )
    arguments = (
        root,
        FeatureCache(tmp_path / "features"),
        3,
        study.MINI_PLAN,
        lambda clips: clips[:, :, :1, 0, 0, None],
        "digest",
        preprocess,
    )
    features, names, splits = study.recorded_features(*arguments, only=("jump",))
    assert features[:, :, 0, 0].tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]
    assert (names, splits) == (["jump", "jump"], ["train", "train"])
    monkeypatch.setattr(study, "open_packed", None)  # the second time they are read
    assert torch.equal(study.recorded_features(*arguments, only=("jump",))[0], features)


@pytest.mark.parametrize("row", JESTER, ids=lambda row: row.name)
def test_every_mini_cell_trains_and_is_measured(row, tmp_path, monkeypatch):
    from marey.layers.paired_stem import PairedStem

    stem = PairedStem(24, 128).eval()
    monkeypatch.setattr(study, "mini_stem", lambda: stem)
    monkeypatch.setattr(study, "mocap_features", lambda cache: toy_clips())
    monkeypatch.setattr(study, "MINI_STEPS", 2)
    result = study.run_mini(row, ReproduceOptions(cache=tmp_path), 0)
    assert 0 <= result["top1"] <= result["top5"] <= 100
    assert result["order"]["clips"] == 4
    assert result["macs_million"] > 10
    assert (tmp_path / "runs" / result["run"] / "last" / "config.json").is_file()
