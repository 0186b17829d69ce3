"""The arrow of time on poses: antisymmetric by construction, and it learns a direction that is
there."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.models import create_model
from marey.models.arrow_of_time import ArrowOfTime


def windows(count: int, seed: int = 0) -> torch.Tensor:
    """Random keypoints (count, 16, 17, 3), all seen."""
    clip = torch.rand(count, 16, 17, 3, generator=torch.Generator().manual_seed(seed))
    return torch.cat((clip[..., :2] - 0.5, 0.5 + clip[..., 2:] / 2), dim=-1)


def drops(count: int, seed: int = 0) -> torch.Tensor:
    """Random poses that jump up at once and sink slowly, at any phase: (count, 16, 17, 3)."""
    generator = torch.Generator().manual_seed(seed)
    pose = windows(count, seed)[:, :1].expand(-1, 16, -1, -1).clone()
    phase = torch.rand(count, 1, 1, generator=generator)
    pose[..., 1] += 0.3 * ((torch.arange(16)[None, :, None] / 8 + phase) % 1)
    pose[..., 0] += 0.01 * torch.randn(count, 16, 17, generator=generator)
    return pose


def test_a_reversed_window_has_the_negative_log_odds():
    model = create_model("arrow_of_time").eval()
    clip = windows(3)
    logits, backwards = model(clip)["logits"], model(clip.flip(1))["logits"]
    assert logits.shape == (3, 2)
    torch.testing.assert_close(logits, -backwards)
    torch.testing.assert_close(logits[:, 0], -logits[:, 1])


def test_a_palindrome_and_an_empty_window_have_no_direction():
    model = create_model("arrow_of_time").eval()
    half = windows(2)[:, :8]
    palindrome = torch.cat((half, half.flip(1)), dim=1)
    torch.testing.assert_close(model(palindrome)["logits"], torch.zeros(2, 2), atol=1e-6, rtol=0)
    assert model(torch.zeros(1, 16, 17, 3))["logits"].abs().max() < 1e-6


def test_only_the_first_person_is_looked_at_and_other_frame_counts_fit():
    model = create_model("arrow_of_time", num_persons=2).eval()
    clip = torch.cat((windows(2), windows(2, seed=1)), dim=2)
    other = torch.cat((windows(2), windows(2, seed=2)), dim=2)
    torch.testing.assert_close(model(clip)["logits"], model(other)["logits"])
    assert model(clip[:, :7])["logits"].shape == (2, 2)
    with pytest.raises(UserError, match="time has two directions"):
        ArrowOfTime(num_classes=3)


def test_it_learns_a_direction_and_none_where_there_is_none():
    right = {}
    for name, make in (("saw", drops), ("noise", windows)):
        torch.manual_seed(0)
        model = ArrowOfTime(embed_dim=16, dropout=0.0)
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(60):
            loss = torch.nn.functional.cross_entropy(
                model(make(64, seed=step))["logits"], torch.zeros(64, dtype=torch.int64)
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        logits = model.eval()(make(400, seed=1000))["logits"]
        right[name] = float((logits[:, 0] > 0).float().mean())
    assert right["saw"] > 0.95
    assert 0.4 < right["noise"] < 0.6
