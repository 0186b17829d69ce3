"""Training videos are known again by content, whatever their name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from marey.datasets.index import DatasetIndex, read_folders
from marey.datasets.seen import HASHES, describe_training, seen_in_training
from marey.video.encode import write_video


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """Two videos of each of two classes, all of different pictures, and a file that is none."""
    root = tmp_path_factory.mktemp("training")
    generator = torch.Generator().manual_seed(0)
    for label in ("a", "b"):
        for number in range(2):
            coarse = torch.randint(0, 255, (6, 3, 6, 8), generator=generator).to(torch.uint8)
            frames = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)
            write_video(root / label / f"{number}.mp4", frames, 10)
    (root / "b" / "broken.mp4").write_bytes(b"")
    return read_folders(root)


def test_a_renamed_and_a_re_encoded_copy_are_found_and_another_video_is_not(
    training: DatasetIndex, tmp_path: Path
) -> None:
    tensors = describe_training(training)
    assert tensors[HASHES].shape == (5,)
    (tmp_path / "a").mkdir()
    shutil.copy(training.root / "a" / "0.mp4", tmp_path / "a" / "renamed.mp4")
    coarse = torch.randint(0, 255, (6, 3, 6, 8), generator=torch.Generator().manual_seed(9))
    other = coarse.to(torch.uint8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    write_video(tmp_path / "a" / "another.mp4", other, 10)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 255, (6, 3, 6, 8), generator=generator).to(torch.uint8)
    again = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)
    write_video(tmp_path / "a" / "re-encoded.mp4", again, 10, crf=30)

    index = read_folders(tmp_path)
    seen = seen_in_training(index, tensors)
    assert seen is not None
    named = [index.samples[position].path.name for position in sorted(seen.positions)]
    assert named == ["re-encoded.mp4", "renamed.mp4"]
    assert [index.samples[i].path.name for i in seen.same_file] == ["renamed.mp4"]


def test_a_checkpoint_that_does_not_say_is_not_taken_for_clean(training: DatasetIndex) -> None:
    assert seen_in_training(training, {}) is None


def test_all_of_the_training_set_is_found_in_itself(training: DatasetIndex) -> None:
    seen = seen_in_training(training, describe_training(training))
    assert seen is not None
    assert seen.same_file == (0, 1, 2, 3, 4)
