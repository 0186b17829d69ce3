"""Training augmentation: one draw for all frames, ranges, labels and boxes that follow."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.transforms.augment import Augment, Geometry
from marey.transforms.preprocess import Preprocess

SPEC = Preprocess(short_side=20, image_size=16, mean=(0, 0, 0), std=(1, 1, 1))
ONE_FRAME = torch.randint(
    0, 256, (1, 3, 24, 36), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
FRAMES = ONE_FRAME.repeat(5, 1, 1, 1)


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


EVERYTHING = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "grey": 0.3}


@pytest.mark.parametrize("crop", ["short_side_jitter", "random_resized", "none"])
def test_all_frames_get_the_same_and_the_output_has_the_models_shape(crop):
    augment = Augment(preprocess=SPEC, crop=crop, short_side_range=(18, 24), **EVERYTHING)
    for seed in range(10):
        clip = augment(FRAMES, generator(seed))
        assert clip.shape == (5, 3, 16, 16)
        assert clip.dtype == torch.float32
        assert (clip == clip[:1]).all()
        assert clip.min() >= 0
        assert clip.max() <= 1


def test_the_same_generator_gives_the_same_clip_and_another_gives_another():
    augment = Augment(preprocess=SPEC, short_side_range=(18, 24), **EVERYTHING)
    assert torch.equal(augment(FRAMES, generator(3)), augment(FRAMES, generator(3)))
    assert not torch.equal(augment(FRAMES, generator(3)), augment(FRAMES, generator(4)))


def test_nothing_random_is_the_evaluation():
    assert torch.equal(
        Augment(preprocess=SPEC, crop="none", flip=0)(FRAMES, generator()), SPEC.clip(FRAMES)[0]
    )
    stretch = Preprocess(short_side=16, image_size=16, resize_mode="stretch")
    assert torch.equal(
        Augment(preprocess=stretch, crop="none", flip=0)(FRAMES, generator()),
        stretch.clip(FRAMES)[0],
    )


def test_flip_mirrors_and_swaps_the_paired_label_only_when_it_flips():
    always = Augment(preprocess=SPEC, crop="none", flip=1, flip_pairs={3: 4, 4: 3})
    clip, label = always.labelled(FRAMES, 3, generator())
    assert torch.equal(clip, SPEC.clip(FRAMES)[0].flip(-1))
    assert label == 4
    assert always.labelled(FRAMES, 7, generator())[1] == 7
    assert (
        Augment(preprocess=SPEC, crop="none", flip=0, flip_pairs={3: 4})(FRAMES, generator()).shape
        == clip.shape
    )
    assert (
        Augment(preprocess=SPEC, crop="none", flip=0, flip_pairs={3: 4}).labelled(
            FRAMES, 3, generator()
        )[1]
        == 3
    )


def test_a_reversed_clip_gets_the_name_of_the_reversed_action_and_only_where_it_has_one():
    always = Augment(preprocess=SPEC, crop="none", flip=0, reverse=1, reverse_pairs={3: 4, 4: 3})
    frames = FRAMES.clone()
    frames[0] = 0
    clip, label = always.labelled(frames, 3, generator())
    assert torch.equal(clip, SPEC.clip(frames)[0].flip(0))
    assert label == 4
    clip, label = always.labelled(frames, 7, generator())
    assert torch.equal(clip, SPEC.clip(frames)[0])
    assert label == 7
    half = Augment(preprocess=SPEC, crop="none", reverse=0.5, reverse_pairs={3: 4})
    labels = [half.labelled(FRAMES, 3, generator(seed))[1] for seed in range(200)]
    assert 70 < labels.count(4) < 130


def test_half_of_the_clips_are_mirrored():
    flips = [
        Augment(preprocess=SPEC, crop="none").geometry(24, 36, generator(s)).flipped
        for s in range(400)
    ]
    assert 150 < sum(flips) < 250


def test_random_resized_windows_stay_inside_their_ranges():
    augment = Augment(
        preprocess=SPEC, crop="random_resized", area_range=(0.3, 0.6), aspect_range=(0.8, 1.25)
    )
    for seed in range(200):
        _, (top, left, height, width), _ = augment.geometry(120, 160, generator(seed))
        assert 0 <= top <= 120 - height
        assert 0 <= left <= 160 - width
        assert 0.29 < height * width / (120 * 160) < 0.61
        assert 0.77 < width / height < 1.3


def test_a_window_that_never_fits_falls_back_to_the_central_square():
    augment = Augment(
        preprocess=SPEC, crop="random_resized", area_range=(1.0, 1.0), aspect_range=(1.0, 1.0)
    )
    assert augment.geometry(20, 60, generator()).window == (0, 20, 20, 20)


def test_short_sides_are_drawn_from_the_whole_range():
    augment = Augment(preprocess=SPEC, short_side_range=(16, 19))
    assert {min(augment.geometry(24, 36, generator(s)).size) for s in range(60)} == {16, 17, 18, 19}


def test_boxes_follow_the_geometry():
    frame = torch.zeros(1, 3, 40, 60, dtype=torch.uint8)
    frame[..., 10:20, 12:30] = 255
    box = torch.tensor([[12 / 60, 10 / 40, 30 / 60, 20 / 40]])
    augment = Augment(
        preprocess=Preprocess(short_side=32, image_size=32, mean=(0, 0, 0), std=(1, 1, 1)),
        short_side_range=(32, 32),
    )
    geometry = Geometry((40, 60), (4, 6, 32, 32), True)
    moved, visible = augment.boxes(box, geometry)
    pixels = augment.apply(frame, geometry, generator())[0, 0]
    rows, columns = pixels.nonzero().unbind(1)
    seen = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 32
    torch.testing.assert_close(moved[0], seen)
    assert visible.tolist() == [1.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crop": "jitter"}, "unknown crop 'jitter'"),
        ({"flip": 1.5}, "probabilities"),
        ({"short_side_range": (8, 20)}, "below the crop of 16"),
    ],
)
def test_mistakes_are_named(change, words):
    with pytest.raises(UserError, match=words):
        Augment(preprocess=SPEC, **change)
