"""The bank of other footage: there, readable, small, and of two kinds."""

from __future__ import annotations

from marey.checkpoints.encoders import frames_preprocess
from marey.checkpoints.sources import bundled_names
from marey.features.far_bank import FAR_BANK, far_bank, far_clips


def test_the_bank_is_shipped_and_small() -> None:
    index = far_bank()
    assert len(index) == 16
    kinds = {sample.path.stem.split("-")[0] for sample in index.samples}
    assert kinds == {"person", "pattern"}
    assert sum(sample.path.stat().st_size for sample in index.samples) < 1 << 20
    assert FAR_BANK.name not in bundled_names()


def test_every_video_becomes_one_clip_and_they_move() -> None:
    clips = far_clips(frames_preprocess(num_frames=4, image_size=32))
    assert clips.shape == (16, 4, 3, 32, 32)
    changes = (clips[:, 1:] - clips[:, :-1]).abs().flatten(1).mean(1)
    assert bool((changes > 0.005).all())
