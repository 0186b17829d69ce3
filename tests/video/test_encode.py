"""Files we write play everywhere and hold what was given."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.video import encode
from marey.video.decode import open_video
from marey.video.encode import write_video


def frames_of(num: int, height: int = 64, width: int = 84, make=None) -> torch.Tensor:
    """Frames of one grey each, brighter with time."""
    return (
        torch.linspace(30, 220, num).to(torch.uint8).view(-1, 1, 1, 1).expand(num, 3, height, width)
    )


def test_h264_is_yuv420p_with_its_index_in_front(tmp_path):
    path = tmp_path / "out.mp4"
    assert write_video(path, frames_of(20), 25) == "libx264"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate) == (
            "h264",
            "yuv420p",
            25,
        )
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (6, 1)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with open_video(path) as reader:
        assert (reader.num_frames, reader.fps) == (20, 25)
        seen = reader.frames_at(range(20)).frames.float().mean((1, 2, 3))
    assert (seen - frames_of(20).float().mean((1, 2, 3))).abs().max() < 4
    assert [f.name for f in tmp_path.iterdir()] == ["out.mp4"]


def test_colours_come_back(tmp_path):
    frames = torch.tensor([200, 60, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(5, 3, 720, 1280)
    write_video(tmp_path / "red.mp4", frames, 25)
    with open_video(tmp_path / "red.mp4") as reader:
        assert reader.frames_at([2]).frames[0].float().mean((1, 2)).tolist() == pytest.approx(
            [200, 60, 30], abs=4
        )


def test_the_same_frames_give_the_same_bytes(tmp_path):
    coarse = torch.randint(20, 230, (6, 3, 6, 8), generator=torch.Generator().manual_seed(0))
    frames = coarse.to(torch.uint8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    path, written = tmp_path / "a.mp4", set()
    for length in [6] * 150 + list(range(1, 7)) * 5 + [6] * 50:
        write_video(path, frames[:length], 10, options={"threads": "1", "bf": "0"})
        if length == 6:
            written.add(path.read_bytes())
    assert len(written) == 1


def test_odd_sizes_are_padded_by_the_last_row_and_column(tmp_path):
    write_video(tmp_path / "odd.mp4", frames_of(3, 33, 45), 25)
    with open_video(tmp_path / "odd.mp4") as reader:
        assert (reader.height, reader.width) == (34, 46)
        assert reader.frames_at([0]).frames.float().std() < 2


def test_an_iterator_of_frames_and_clips_is_streamed(tmp_path):
    whole = frames_of(12)
    write_video(tmp_path / "stream.mp4", iter([whole[:5], whole[5], whole[6:]]), 10)
    with open_video(tmp_path / "stream.mp4") as reader:
        assert (reader.num_frames, reader.fps) == (12, 10)


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("h265", ".mp4"), ("vp9", ".webm"), ("mpeg4", ".avi"), ("ffv1", ".mkv"), ("av1", ".mp4")],
)
def test_every_codec_writes_what_we_read(codec, suffix, tmp_path):
    write_video(tmp_path / f"x{suffix}", frames_of(6, 80), 25, codec=codec, gop=3)
    with open_video(tmp_path / f"x{suffix}") as reader:
        assert reader.num_frames == 6


def test_h265_refuses_pictures_that_its_encoder_does_not_survive(tmp_path):
    with pytest.raises(UserError, match=r"sides of 72 pixels and more, got \(64, 84\); write h264"):
        write_video(tmp_path / "x.mp4", frames_of(6), 25, codec="h265")
    assert not list(tmp_path.iterdir())


def test_sound_is_copied(tmp_path):
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        for i in range(20):
            frame = av.AudioFrame.from_ndarray(
                np.random.default_rng(i).normal(size=(1, 1024)).astype(np.float32) / 9,
                "fltp",
                "mono",
            )
            frame.sample_rate, frame.pts = 16000, 1024 * i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    write_video(tmp_path / "both.mp4", frames_of(25), 25, audio_from=sound)

    def packets(path):
        with av.open(str(path)) as container:
            return [bytes(p) for p in container.demux(audio=0) if p.size]

    assert packets(tmp_path / "both.mp4") == packets(sound)
    write_video(tmp_path / "silent.mp4", frames_of(5), 25, audio_from=tmp_path / "both.mp4")
    write_video(tmp_path / "no_sound.mp4", frames_of(5), 25, audio_from=write_path(tmp_path))


def write_path(folder):
    """A video without sound."""
    write_video(folder / "mute.mp4", frames_of(3), 25)
    return folder / "mute.mp4"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept.mp4"
    path.write_bytes(b"old")

    def breaks():
        yield frames_of(3)
        yield frames_of(3, 32, 32)

    with pytest.raises(
        UserError, match=r"all frames of a video have one size, got \(64, 84\) and then \(32, 32\)"
    ):
        write_video(path, breaks(), 25)
    assert path.read_bytes() == b"old"
    assert [f.name for f in tmp_path.iterdir()] == ["kept.mp4"]


def test_a_missing_encoder_falls_back_and_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(encode.CODECS, "h264", ("no_such_encoder", "mpeg4"))
    with pytest.warns(UserWarning, match="no_such_encoder is not in this FFmpeg; mpeg4 is used"):
        assert write_video(tmp_path / "x.mp4", frames_of(3), 25) == "mpeg4"


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="unknown codec 'h246'; did you mean 'h26"):
        write_video(tmp_path / "x.mp4", frames_of(3), 25, codec="h246")
    with pytest.raises(UserError, match="no frame to write"):
        write_video(tmp_path / "x.mp4", iter([]), 25)
    with pytest.raises(UserError, match="are uint8 RGB"):
        write_video(tmp_path / "x.mp4", torch.zeros(2, 3, 8, 8), 25)
    with pytest.raises(UserError, match="fps is a rate above 0"):
        write_video(tmp_path / "x.mp4", frames_of(3), 0)
    with pytest.raises(UserError, match=r"x\.notaformat: cannot be written"):
        write_video(tmp_path / "x.notaformat", frames_of(3), 25)
    assert list(tmp_path.iterdir()) == []
