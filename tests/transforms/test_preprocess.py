"""The one specification: its round trip, its geometry, and views of real files."""

from __future__ import annotations

import json

import pytest
import torch

from marey.errors import UserError
from marey.transforms import functional as F
from marey.transforms.preprocess import Preprocess
from marey.video.clip import Clip
from marey.video.extension import extend_frames
from marey.video.sampling import ClipSampling


def noise(*shape: int) -> torch.Tensor:
    """uint8 noise, always the same."""
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


class FakeReader:
    """A video in memory with the interface of VideoReader, that counts what is decoded."""

    def __init__(
        self, num_frames: int, size: tuple[int, int] = (24, 36), fps: float = 25.0
    ) -> None:
        self.frames = noise(num_frames, 3, *size)
        self.num_frames, self.fps, self.path = num_frames, fps, "fake.mp4"
        self.frame_seconds = tuple(i / fps for i in range(num_frames))
        self.calls: list[list[int]] = []

    def frame_range(self, start, end):
        first = 0 if start is None else round(start * self.fps)
        return first, self.num_frames if end is None else round(end * self.fps)

    def end_seconds(self, index):
        return (index + 1) / self.fps

    def indices_at_seconds(self, seconds):
        return [int(t * self.fps + 1e-6) for t in seconds]

    def frames_at(self, indices, *, held=None):
        self.calls.append(list(indices))
        return Clip(
            frames=self.frames[list(indices)],
            frame_indices=tuple(indices),
            fps=self.fps,
            path=self.path,
            frame_seconds=tuple(self.frame_seconds[i] for i in indices),
        )


SMALL = Preprocess(
    sampling=ClipSampling(num_frames=4, stride_frames=3), short_side=20, image_size=16
)


def test_it_survives_json():
    spec = Preprocess(
        sampling=ClipSampling(kind="segments", num_frames=16),
        mean=(0.1, 0.2, 0.3),
        crops=3,
        channel_order="bgr",
        interpolation="bicubic",
        resize_mode="stretch",
    )
    assert Preprocess.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_unknown_keys_name_the_nearest():
    with pytest.raises(
        UserError, match="unknown preprocess key 'image_sise'; did you mean 'image_size'"
    ):
        Preprocess.from_dict({"image_sise": 3})
    with pytest.raises(UserError, match="unknown sampling key 'frames'"):
        Preprocess.from_dict({"sampling": {"frames": 3}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crops": 2}, "1 or 3"),
        ({"short_side": 100}, "must be at least the crop"),
        ({"resize_mode": "squash"}, "unknown resize mode"),
        ({"channel_order": "rbg"}, "unknown channel order"),
        ({"std": (0.2, 0.0, 0.2)}, "std is above 0"),
        ({"interpolation": "area"}, "unknown interpolation"),
    ],
)
def test_mistakes_are_named_on_construction(change, words):
    with pytest.raises(UserError, match=words):
        Preprocess(**change)


def test_one_crop_is_the_centre_of_the_resized_frame():
    frames = noise(4, 3, 24, 36)
    clip = SMALL.clip(frames)
    assert clip.shape == (1, 4, 3, 16, 16)
    expected = F.normalise(F.resize(frames, 20, 30)[..., 2:18, 7:23], SMALL.mean, SMALL.std)
    assert torch.equal(clip[0], expected)


def test_three_crops_resize_the_short_side_to_the_crop_itself():
    frames = noise(2, 3, 24, 36)
    clip = SMALL.clip(frames, 3)
    resized = SMALL.normalise(F.resize(frames, 16, 24))
    for s, left in enumerate((0, 4, 8)):
        assert torch.equal(clip[s], resized[..., left : left + 16])


def test_stretch_keeps_everything_and_loses_the_shape():
    frames = torch.zeros(2, 3, 20, 60, dtype=torch.uint8)
    frames[..., 30:] = 255
    clip = Preprocess(
        short_side=16, image_size=16, resize_mode="stretch", mean=(0, 0, 0), std=(1, 1, 1)
    ).clip(frames)
    assert clip.shape == (1, 2, 3, 16, 16)
    assert clip[0, 0, 0, 0, 0] == 0
    assert clip[0, 0, 0, 0, 15] == 1


def test_views_are_numbered_temporal_first_and_decode_each_frame_once():
    reader = FakeReader(40)
    clips, sources = SMALL.views(reader, 3, 3)
    assert clips.shape == (9, 4, 3, 16, 16)
    assert len(sources) == 3
    assert len(reader.calls) == 1
    assert len(set(reader.calls[0])) == len(reader.calls[0])
    for v in range(3):
        indices = SMALL.sampling.indices(40, view=v, num_views=3)
        assert sources[v].frame_indices == tuple(indices)
        assert torch.equal(clips[3 * v : 3 * v + 3], SMALL.clip(reader.frames[indices], 3))


def test_a_part_of_a_video_is_sampled_as_a_video_of_its_own():
    reader = FakeReader(40)
    clip = SMALL.sample(reader, start_seconds=0.4, end_seconds=1.2)  # frames 10..29
    assert clip.frame_indices == (10, 13, 16, 19)
    assert clip.frame_seconds == pytest.approx((0.4, 0.52, 0.64, 0.76))


def test_the_same_generator_samples_the_same_training_clip():
    reader = FakeReader(200)
    once, again = (
        SMALL.sample(reader, generator=torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert once.frame_indices == again.frame_indices


def spec_with(short: str) -> Preprocess:
    """SMALL with another short-clip policy."""
    return Preprocess(
        sampling=ClipSampling(num_frames=4, stride_frames=3, short=short),
        short_side=20,
        image_size=16,
    )


def test_extension_before_sampling_takes_frames_of_the_extended_video():
    reader = FakeReader(5)
    clip = spec_with("extend").sample(reader)
    assert torch.equal(clip.frames, extend_frames(reader.frames, 12)[[0, 3, 6, 9]])


def test_extension_after_sampling_extends_the_few_frames_there_are():
    reader = FakeReader(5)  # stride 3: frames 0 and 3; 6 and 9 do not exist
    clip = spec_with("extend_after").sample(reader)
    assert torch.equal(clip.frames, extend_frames(reader.frames[[0, 3]], 4))
    assert clip.frames.shape[0] == len(clip.frame_indices) == 4


def test_a_long_video_is_never_extended():
    reader = FakeReader(30)
    plain = spec_with("repeat_last").sample(reader)
    assert all(
        torch.equal(spec_with(short).sample(reader).frames, plain.frames)
        for short in ("extend", "extend_after", "loop")
    )


def test_sampling_by_seconds_equals_by_frames_at_a_constant_rate():
    by_time = Preprocess(
        sampling=ClipSampling(num_frames=4, stride_frames=3, unit="seconds"),
        short_side=20,
        image_size=16,
    )
    reader = FakeReader(40)
    assert by_time.sample(reader).frame_indices == SMALL.sample(reader).frame_indices


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(4, 3, 8, 8),
        torch.zeros(4, 1, 8, 8, dtype=torch.uint8),
        torch.zeros(0, 3, 8, 8, dtype=torch.uint8),
    ],
)
def test_wrong_frames_are_named(bad):
    with pytest.raises(UserError, match=r"expected uint8 RGB frames \(T, 3, H, W\)"):
        SMALL.clip(bad)


def test_denormalise_undoes_clip():
    frames = noise(2, 3, 20, 20)
    spec = Preprocess(short_side=20, image_size=20, channel_order="bgr")
    torch.testing.assert_close(
        spec.denormalise(spec.clip(frames)[0]), frames.float(), atol=1e-3, rtol=0
    )
