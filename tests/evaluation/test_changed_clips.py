"""What each model is shown of a video, clean and changed."""

from __future__ import annotations

import torch

from marey.corruptions import corruption
from marey.datasets.index import DatasetIndex
from marey.evaluation.candidates import load_candidate
from marey.evaluation.changed_clips import changed_clips, decode_video, model_view


def test_models_with_the_same_crop_meet_the_same_noise(data: DatasetIndex) -> None:
    candidates = [
        load_candidate(name, data.class_names)
        for name in ("toy_models:brightness_network", "toy_models:growing_light")
    ]
    sample = next(sample for sample in data.samples if "broken" not in sample.path.name)
    video = decode_video(
        "name",
        sample,
        [candidate.preprocess for candidate in candidates],
        at=64,
        max_frames=300,
    )
    first, second = changed_clips(video, corruption("gaussian_noise", 5), seed=0)
    assert torch.equal(first, second)


def test_pixel_kinds_see_the_model_s_own_crop(data: DatasetIndex) -> None:
    frames = torch.zeros(1, 3, 90, 120, dtype=torch.uint8)
    frames[..., 60:] = 200
    stretched, cropped = model_view(frames, 0, 64), model_view(frames, 256 / 224, 64)
    assert stretched.shape == cropped.shape == (1, 3, 64, 64)
    assert (stretched[..., 30:34] != stretched[..., :1]).any()


def test_a_temporal_corruption_gives_each_model_its_frames_of_the_new_order(
    data: DatasetIndex,
) -> None:
    preprocess = load_candidate("toy_models:growing_light", data.class_names).preprocess
    sample = next(sample for sample in data.samples if "broken" not in sample.path.name)
    video = decode_video("name", sample, [preprocess], at=64, max_frames=300)
    [clip] = changed_clips(video, corruption("reverse_sampling", 1), seed=0)
    view = video.views[video.geometry[0]]
    assert all(any(torch.equal(frame, shown) for shown in view) for frame in clip)
    levels = clip.float().mean((1, 2, 3))
    assert (levels.diff() <= 0).all()
    assert levels[0] > levels[-1]


def test_of_a_long_video_the_middle_is_taken(data: DatasetIndex) -> None:
    preprocess = load_candidate("toy_models:growing_light", data.class_names).preprocess
    sample = next(sample for sample in data.samples if "broken" not in sample.path.name)
    whole = decode_video("name", sample, [preprocess], at=64, max_frames=300)
    middle = decode_video("name", sample, [preprocess], at=64, max_frames=4)
    [view], [part] = whole.views.values(), middle.views.values()
    assert torch.equal(part, view[4:8])
