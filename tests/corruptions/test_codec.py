"""Codecs keep the length, repeat bit for bit, lose nothing they need not, and name what FFmpeg
lacks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import marey
from marey.corruptions import KINDS, codec
from marey.errors import UserError

CODEC = [name for name, kind in KINDS.items() if kind.category == "codec"]


@pytest.fixture(scope="module")
def clip() -> Tensor:
    """Twelve frames of a moving texture with odd sides, (12, 3, 65, 71)."""
    base = torch.randint(0, 256, (1, 3, 12, 14), generator=torch.Generator().manual_seed(0)).float()
    scene = torch.nn.functional.interpolate(base, size=(65, 95), mode="bicubic").clamp(0, 255)[0]
    return torch.stack([scene[..., 2 * t : 2 * t + 71] for t in range(12)]).to(torch.uint8)


@pytest.mark.parametrize("kind", CODEC)
def test_a_codec_keeps_shape_and_repeats(kind: str, clip: Tensor) -> None:
    def run() -> Tensor:
        return marey.corrupt(clip, kind, 4, generator=torch.Generator().manual_seed(5))

    changed = run()
    assert changed.shape == clip.shape
    assert changed.dtype == torch.uint8
    assert torch.equal(changed, run())
    assert not torch.equal(changed, clip)


@pytest.mark.parametrize("kind", ["h264_crf", "h265_crf", "h264_abr", "h265_abr", "frame_rate"])
def test_a_higher_severity_is_further_from_the_clean_clip(kind: str, clip: Tensor) -> None:
    distances = [
        (marey.corrupt(clip, kind, severity).float() - clip.float()).abs().mean().item()
        for severity in range(1, 6)
    ]
    assert distances[-1] > distances[0]
    assert all(later > earlier - 0.5 for earlier, later in itertools.pairwise(distances)), distances


@pytest.mark.parametrize("kind", ["mpeg1", "mpeg2"])
def test_quantisers_beyond_31_change_nothing_more(kind: str, clip: Tensor) -> None:
    severe = [marey.corrupt(clip, kind, severity) for severity in (3, 4, 5)]
    assert torch.equal(severe[0], severe[1])
    assert torch.equal(severe[1], severe[2])
    mild = marey.corrupt(clip, kind, 1)
    assert (mild.float() - clip.float()).abs().mean() < (
        severe[0].float() - clip.float()
    ).abs().mean()


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "mpeg4", "mpeg2video"])
def test_frames_come_back_in_their_places(encoder: str, clip: Tensor) -> None:
    back = codec.decode(codec.encode(clip, encoder, fps=25.0), 12, 65, 71)
    distance = (back.float()[:, None] - clip.float()[None]).abs().mean((2, 3, 4))
    assert distance.argmin(1).tolist() == list(range(12))


def test_a_lost_frame_repeats_the_last_good_one(clip: Tensor) -> None:
    stream = codec.encode(clip, "mpeg4", qscale=2, fps=25.0)
    whole = codec.decode(stream, 12, 65, 71)
    cut = codec.decode(replace(stream, packets=stream.packets[:5]), 12, 65, 71)
    assert torch.equal(cut[:5], whole[:5])
    assert all(torch.equal(frame, whole[4]) for frame in cut[5:])


def test_a_stream_of_which_nothing_is_left_is_black(clip: Tensor) -> None:
    stream = codec.encode(clip, "libx264")
    assert codec.decode(replace(stream, packets=()), 12, 65, 71).max() == 0


def test_frame_rate_holds_each_kept_frame(clip: Tensor) -> None:
    slow = marey.corrupt(clip, "frame_rate", 5, fps=30.0)  # 6 of 30: each frame shown five times
    assert all(torch.equal(slow[i], slow[i - i % 5]) for i in range(12))
    assert not torch.equal(slow[0], slow[5])


@pytest.mark.parametrize("size", [(40, 40), (32, 32), (64, 64), (90, 64)])
def test_h265_of_small_pictures_repeats(size: tuple[int, int]) -> None:
    noise = torch.randint(0, 256, (8, 3, *size), generator=torch.Generator().manual_seed(0))
    small = noise.to(torch.uint8)

    changed = marey.corrupt(small, "h265_crf", 3)
    assert changed.shape == small.shape
    for length in (1, 3, 6):
        marey.corrupt(small[:length], "h265_crf", 3)
        assert torch.equal(marey.corrupt(small, "h265_crf", 3), changed)


def test_one_frame_goes_through_every_codec() -> None:
    single = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    for kind in CODEC:
        assert marey.corrupt(single, kind, 3).shape == (1, 3, 64, 64)


def test_a_missing_encoder_is_named() -> None:
    with pytest.raises(UserError, match="has no encoder 'libx266'"):
        codec.require_encoder("libx266")
