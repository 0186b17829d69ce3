"""Packed copies: same frames, same times, quick to reach."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch

from marey.datasets.open import open_dataset
from marey.datasets.pack import PackSettings, pack_dataset
from marey.errors import UserError
from marey.video.decode import open_video
from marey.video.encode import write_video


def ramp(num: int, height: int = 96, width: int = 128) -> torch.Tensor:
    """Frames of one grey each, brighter with time."""
    return (
        torch.linspace(30, 220, num).to(torch.uint8).view(-1, 1, 1, 1).expand(num, 3, height, width)
    )


@pytest.fixture
def source(tmp_path):
    """Two classes, splits and an unreadable file."""
    for name, num in (("train/run/a.mp4", 20), ("train/jump/b#1.mp4", 30), ("test/run/a.mp4", 10)):
        write_video(tmp_path / "set" / name, ramp(num), 25)
    (tmp_path / "set" / "test" / "jump").mkdir()
    (tmp_path / "set" / "test" / "jump" / "bad.mp4").write_bytes(b"nothing")
    return tmp_path / "set"


def test_copies_are_small_and_keep_labels_splits_and_frames(source, tmp_path):
    packing = pack_dataset(
        open_dataset(source), tmp_path / "out", PackSettings(short_side=48, gop=4), workers=1
    )
    assert packing.num_written == 3
    assert list(packing.unreadable) == [str(source / "test" / "jump" / "bad.mp4")]
    index = open_dataset(tmp_path / "out")
    assert sorted((s.path.name, s.label, s.split) for s in index.samples) == [
        ("a.mp4.mp4", "run", "test"),
        ("a.mp4.mp4", "run", "train"),
        ("b#1.mp4.mp4", "jump", "train"),
    ]
    for sample in index.samples:
        with (
            open_video(sample.path) as copy,
            open_video(
                source / sample.path.relative_to(tmp_path / "out" / "videos").with_suffix("")
            ) as original,
        ):
            assert (copy.num_frames, copy.fps, copy.height, copy.width) == (
                original.num_frames,
                original.fps,
                48,
                64,
            )
            every = range(copy.num_frames)
            gap = copy.frames_at(every).frames.float().mean((1, 2, 3)) - original.frames_at(
                every
            ).frames.float().mean((1, 2, 3))
            assert gap.abs().max() < 3


def test_a_key_frame_comes_every_gop_and_no_b_frames(source, tmp_path):
    pack_dataset(open_dataset(source), tmp_path / "out", PackSettings(gop=4), workers=1)
    with av.open(str(tmp_path / "out" / "videos" / "train" / "run" / "a.mp4.mp4")) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        assert all(
            any(p.is_keyframe for p in packets[i : i + 4]) for i in range(0, len(packets), 4)
        )
        assert [p.pts for p in packets] == sorted(p.pts for p in packets)


def test_running_again_keeps_what_is_there_and_other_settings_are_refused(source, tmp_path):
    index = open_dataset(source)
    pack_dataset(index, tmp_path / "out", workers=1)
    again = pack_dataset(index, tmp_path / "out", workers=1)
    assert (again.num_written, again.num_kept) == (0, 3)
    with pytest.raises(UserError, match="made with other settings"):
        pack_dataset(index, tmp_path / "out", PackSettings(short_side=100))


def test_frames_of_a_varying_rate_are_held_as_long_as_they_were_shown(tmp_path):
    from fractions import Fraction

    path = tmp_path / "set" / "run" / "vfr.mkv"
    path.parent.mkdir(parents=True)
    starts = [0, 100, 200, 300, 700, 800, 900, 1000]  # the fourth is shown four times as long
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.codec_context.time_base = 32, 32, Fraction(1, 1000)
        for i, start in enumerate(starts):
            frame = av.VideoFrame.from_ndarray(
                np.full((32, 32, 3), 20 + 25 * i, np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = start, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    (tmp_path / "set" / "jump").mkdir()
    write_video(tmp_path / "set" / "jump" / "x.mp4", ramp(4), 10)
    pack_dataset(open_dataset(tmp_path / "set"), tmp_path / "out", workers=1)
    with (
        open_video(path) as before,
        open_video(tmp_path / "out" / "videos" / "run" / "vfr.mkv.mp4") as after,
    ):
        assert after.duration_seconds == pytest.approx(before.duration_seconds, abs=0.15)
        for seconds in (0.05, 0.35, 0.55, 0.75, 0.95):
            was, now = (
                r.frames_at_seconds([seconds]).frames.float().mean().item() for r in (before, after)
            )
            assert abs(was - now) < 30


def test_a_packed_array_is_refused(tmp_path):
    np.save(tmp_path / "frames.npy", np.zeros((2, 1, 3, 8, 8), np.uint8))
    (tmp_path / "packed.json").write_text('{"format": 1, "fps": 4.0}')
    (tmp_path / "manifest.csv").write_text("path,label\n0,a\n1,b\n")
    with pytest.raises(UserError, match="is packed already"):
        pack_dataset(open_dataset(tmp_path), tmp_path / "out")
