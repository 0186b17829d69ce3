"""Clips for training: randomness by sample, unreadable videos named, packed folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from marey.datasets.clips import ClipDataset, collate_clips, sample_generator
from marey.datasets.index import DatasetIndex, read_folders
from marey.datasets.open import open_dataset
from marey.errors import UserError
from marey.transforms.augment import Augment
from marey.transforms.preprocess import Preprocess
from marey.video.encode import write_video
from marey.video.sampling import ClipSampling

PREPROCESS = Preprocess(
    sampling=ClipSampling(kind="equidistant", num_frames=4), short_side=16, image_size=16
)


def packed(root: Path, num_clips: int = 3, num_frames: int = 4) -> DatasetIndex:
    """A packed folder whose clip i, frame t has all pixels 40 * i + t."""
    frames = np.zeros((num_clips, num_frames, 3, 16, 16), dtype=np.uint8)
    for clip in range(num_clips):
        for t in range(num_frames):
            frames[clip, t] = 40 * clip + t
    np.save(root / "frames.npy", frames)
    (root / "packed.json").write_text(json.dumps({"format": 1, "fps": 8.0}))
    rows = "".join(f"clip{i},{'run' if i % 2 else 'eat'},train\n" for i in range(num_clips))
    (root / "manifest.csv").write_text("path,label,split\n" + rows)
    return open_dataset(root)


def pixel(clip: torch.Tensor) -> list[int]:
    return PREPROCESS.denormalise(clip)[:, 0, 8, 8].round().int().tolist()


def test_packed_rows_are_the_clips_in_order(tmp_path: Path) -> None:
    dataset = ClipDataset(packed(tmp_path), PREPROCESS)
    assert [pixel(dataset[i]["clip"]) for i in range(3)] == [
        [0, 1, 2, 3],
        [40, 41, 42, 43],
        [80, 81, 82, 83],
    ]
    assert [dataset[i]["label"] for i in range(3)] == [0, 1, 0]


def test_longer_packed_clips_are_sampled(tmp_path: Path) -> None:
    dataset = ClipDataset(packed(tmp_path, num_frames=8), PREPROCESS)
    chosen = pixel(dataset[0]["clip"])
    assert len(chosen) == 4
    assert chosen == sorted(set(chosen))


def test_the_random_sampler_draws_per_seed_epoch_and_video_without_augmentation(
    tmp_path: Path,
) -> None:
    index = packed(tmp_path, num_frames=30)
    preprocess = replace(PREPROCESS, sampling=ClipSampling(kind="random", num_frames=4))

    def frames(seed: int, epoch: int, clip: int, draw: bool = True) -> list[int]:
        data = ClipDataset(index, preprocess, seed=seed, draw=draw)
        return [value - 40 * clip for value in pixel(data[epoch, clip]["clip"])]

    first = frames(0, 0, 0)
    assert frames(0, 0, 0) == first == sorted(set(first))
    assert first not in (frames(1, 0, 0), frames(0, 1, 0), frames(0, 0, 1))

    # Validation: the same frames in every epoch, others in another video.
    assert frames(0, 0, 0, draw=False) == frames(1, 5, 0, draw=False)
    assert frames(0, 0, 0, draw=False) != frames(0, 0, 1, draw=False)


def test_short_packed_clips_are_extended_before_or_after_sampling(tmp_path: Path) -> None:
    index = packed(tmp_path, num_frames=5)

    def frames(short: str) -> list[int]:
        sampling = ClipSampling(num_frames=4, stride_frames=3, short=short)
        data = ClipDataset(index, replace(PREPROCESS, sampling=sampling))
        return pixel(data[0]["clip"])

    assert frames("extend") == [0, 1, 3, 4]  # 0 0 1 1 2 2 3 3 4 4 3 3: every third
    assert frames("extend_after") == [0, 1, 3, 3]  # 0 and 3, their average, and back


def test_randomness_depends_on_seed_epoch_and_sample_alone(tmp_path: Path) -> None:
    index = packed(tmp_path)
    augment = Augment(preprocess=PREPROCESS, crop="none", brightness=0.9)
    first, again = (ClipDataset(index, PREPROCESS, augment, seed=5) for _ in range(2))
    again[(0, 0)]  # asking for other samples before changes nothing
    assert torch.equal(first[(1, 2)]["clip"], again[(1, 2)]["clip"])
    assert not torch.equal(first[(1, 2)]["clip"], first[(2, 2)]["clip"])
    assert sample_generator(5, 1, 2).initial_seed() != sample_generator(6, 1, 2).initial_seed()


def test_an_unreadable_video_is_named_and_never_replaced(tmp_path: Path) -> None:
    for name in ("run/a.mp4", "eat/b.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"not a video")
    dataset = ClipDataset(open_dataset(tmp_path), PREPROCESS)
    batch = collate_clips([dataset[0], dataset[1]])
    assert [place for place, _ in batch["unreadable"]] == [0, 1]
    assert "b.mp4" in batch["unreadable"][0][1]
    assert "clip" not in batch


def test_readable_items_are_stacked_without_the_unreadable(tmp_path: Path) -> None:
    dataset = ClipDataset(packed(tmp_path), PREPROCESS)
    batch = collate_clips([dataset[0], {"error": "x.mp4: empty", "sample": 7}, dataset[2]])
    assert batch["clip"].shape == (2, 4, 3, 16, 16)
    assert batch["label"].tolist() == [0, 0]
    assert batch["sample"].tolist() == [0, 2]
    assert batch["unreadable"] == [(7, "x.mp4: empty")]


def test_a_damaged_packed_folder_is_named(tmp_path: Path) -> None:
    index = packed(tmp_path)
    (tmp_path / "packed.json").write_text(json.dumps({"format": 9}))
    from marey.datasets.pack import open_packed

    open_packed.cache_clear()
    with pytest.raises(UserError, match=r"packed\.json: format 9, expected 1"):
        ClipDataset(index, PREPROCESS)[0]


def test_pytorchs_own_loader_survives_a_bad_video(tmp_path):
    for label in ("a", "b"):
        write_video(
            tmp_path / label / "1.mp4", torch.full((4, 3, 32, 32), 90, dtype=torch.uint8), 10
        )
    (tmp_path / "b" / "2.mp4").write_bytes(b"")
    preprocess = Preprocess(
        sampling=ClipSampling(kind="equidistant", num_frames=2), short_side=16, image_size=16
    )
    dataset = ClipDataset(read_folders(tmp_path), preprocess)
    (batch,) = torch.utils.data.DataLoader(dataset, batch_size=3)
    assert batch["clip"].shape == (3, 2, 3, 16, 16)
    assert batch["label"].tolist() == [0, 1, -100]
    assert [bool(error) for error in batch["error"]] == [False, False, True]
    loss = torch.nn.functional.cross_entropy(torch.zeros(3, 2), batch["label"])
    assert float(loss) == pytest.approx(0.6931, abs=1e-3)
