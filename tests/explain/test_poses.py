"""Joints and moments of a pose model's answer: a model that looks at one wrist is found out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from marey.checkpoints.folder import load_folder
from marey.errors import UserError
from marey.explain.pose_checks import PARTS, check_window_map, window_gains
from marey.explain.poses import draw_sheet, explain_pose_video, explain_poses
from marey.inference.poses import PosePredictor
from marey.persons.pose_tracks import PoseTrack, PoseTracks
from marey.transforms.keypoints import KEYPOINT_NAMES, PART_NAMES
from marey.video.encode import write_video

LIMBS = ("wrist", "knee", "ankle")
WRIST = KEYPOINT_NAMES.index("left_wrist")


class WristWatcher(nn.Module):
    """Says "walk" the surer, the more of the left wrist it sees in the first half of a window."""

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        seen = (clip[:, :8, WRIST, 2] > 0).float().mean(1)
        return {"logits": torch.stack([torch.zeros_like(seen), 0 * seen, 4 * seen], dim=1)}


@pytest.fixture
def predictor(tiny_pose_checkpoint: Path) -> PosePredictor:
    predictor = PosePredictor(load_folder(tiny_pose_checkpoint))
    predictor.model = WristWatcher()
    return predictor


def person(seconds: float = 2.0) -> PoseTracks:
    """Somebody who stands in the middle of the picture."""
    F = round(seconds * 12.5)
    keypoints = np.zeros((F, 17, 3), np.float32)
    keypoints[..., 0] = 0.5 + 0.05 * np.where(np.arange(17) % 2, 1, -1)
    keypoints[..., 1] = np.linspace(0.2, 0.8, 17)
    keypoints[..., 2] = 0.8
    track = PoseTrack(
        number=3,
        frame_indices=np.arange(F),
        seconds=np.arange(F) / 12.5,
        keypoints=keypoints,
        boxes_xyxy=np.tile(np.array([0.4, 0.15, 0.6, 0.85], np.float32), (F, 1)),
        scores=np.full(F, 0.8, np.float32),
        observed=np.ones(F, bool),
    )
    return PoseTracks(
        video="clip.mp4",
        width=96,
        height=96,
        fps=12.5,
        frame_indices=np.arange(F),
        seconds=np.arange(F) / 12.5,
        tracks=(track,),
    )


def test_the_joint_and_the_moments_that_decide_are_named(predictor):
    found = explain_poses(predictor, person())
    assert found is not None
    assert (found.label, found.track) == ("walk", 3)
    assert max(found.parts, key=lambda name: found.parts[name]) == "left wrist"
    assert found.parts["left wrist"] > 0.3
    assert found.parts["right wrist"] == pytest.approx(0)
    early = [fall for start, end, fall in found.moments if end <= 1.0]
    late = [fall for start, end, fall in found.moments if start >= 1.0]
    assert min(early) > 0.01 > max(late)

    column = PART_NAMES.index("left wrist")
    assert float(found.relevance[:8, column].min()) > 0
    assert float(found.relevance[:, [n for n in range(13) if n != column]].abs().max()) < 1e-6
    assert found.faithfulness.better_than_random
    assert found.checks.p_independent <= 0.05
    assert found.checks.gain > found.checks.blob_gain
    # This model has no weights to shuffle, so its map cannot depend on what was learned.
    assert found.checks.weights_correlation == pytest.approx(1)
    assert not found.checks.passed


def test_a_map_of_other_joints_does_not_pass():
    window = torch.ones(16, 17, 3)
    right = torch.zeros(16, 13)
    decisive = [PART_NAMES.index(f"{side} {part}") for side in ("left", "right") for part in LIMBS]
    right[:8, decisive] = 1
    keypoints = [PARTS[number][0] for number in decisive]
    for relevance, passed in ((right, True), (1 - right, False)):
        checks = check_window_map(
            lambda windows: (windows[:, :8][:, :, keypoints, 2] > 0).float().mean((1, 2)),
            window,
            relevance + 0.01 * torch.rand(16, 13, generator=torch.Generator().manual_seed(1)),
            generator=torch.Generator().manual_seed(0),
        )
        assert checks.passed == passed
        assert (checks.p_temporal <= 0.05) == passed


def test_gains_are_the_areas_worked_by_hand():
    """A score that is the share of all parts and moments seen: every map deletes and inserts along
    the same line, so the gain is that of the diagonal."""
    window = torch.ones(4, 17, 3)
    head = len(PARTS[0])

    def share(windows):
        weights = torch.ones(17)
        weights[:head] = 1 / head
        return ((windows[:, :, :, 2] > 0) * weights).sum((1, 2)) / 52

    gains = window_gains(share, window, [torch.rand(4, 13), torch.rand(4, 13)])
    assert gains == pytest.approx([0.0, 0.0], abs=1e-5)


def test_another_label_is_explained_on_request_and_an_unknown_one_named(predictor):
    other = explain_poses(predictor, person(), label="stand")
    assert other is not None
    assert other.parts["left wrist"] < -0.3
    with pytest.raises(UserError, match="wlak"):
        explain_poses(predictor, person(), label="wlak")


def test_nobody_has_nothing_to_explain_but_a_page(predictor, tmp_path, monkeypatch):
    nobody = PoseTracks(
        video="empty.mp4",
        width=64,
        height=48,
        fps=12.5,
        frame_indices=np.arange(5),
        seconds=np.arange(5) / 12.5,
    )
    monkeypatch.setattr(predictor, "read", lambda video: nobody)
    facts = explain_pose_video(predictor, "empty.mp4", tmp_path)
    assert facts["headline"].startswith("no person")
    assert facts["faithfulness"] is None
    assert "nothing to explain" in (tmp_path / "index.html").read_text()


def test_the_picture_marks_the_joint(predictor, tmp_path, monkeypatch):
    video = tmp_path / "clip.mp4"
    write_video(video, torch.full((25, 3, 96, 96), 40, dtype=torch.uint8), fps=12.5)
    monkeypatch.setattr(predictor, "read", lambda video: person())
    facts = explain_pose_video(predictor, video, tmp_path / "out")
    assert facts["joints"]["left wrist"] > 0.3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "index.html",
        "joints.png",
        "explanation.json",
    }
    found = explain_poses(predictor, person())
    assert found is not None
    sheet = np.asarray(draw_sheet(video, person(), found, 8.0).convert("RGB")).astype(int)
    orange = (sheet[..., 0] > 150) & (sheet[..., 2] < 80) & (sheet[..., 1] < 150)
    first_row, second_row = np.array_split(orange, 2)
    assert first_row.sum() > 3 * second_row.sum()  # the wrist matters in the first half
