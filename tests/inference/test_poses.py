"""A pose model on tracks: windows, weights, one answer, nobody, the limit of "unknown"."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from marey.checkpoints.folder import load_folder, save_checkpoint
from marey.errors import UserError
from marey.inference.pose_windows import cut_tracks, fuse, fuse_by_track, limb_speed, window_weight
from marey.inference.poses import PosePredictor
from marey.inference.prediction import NO_PERSON
from marey.inference.timeline import pose_timeline
from marey.models import create_model
from marey.persons.pose_tracks import PoseTrack, PoseTracks
from marey.transforms.pose_clip import PoseSampling, normalise_pose

NAMES = ["other", "stand", "wave"]
SAMPLING = PoseSampling()


def standing(frames: int = 38) -> np.ndarray:
    """A person of the height of half the frame."""
    rows = [0.1] * 5 + [0.18] * 2 + [0.26] * 2 + [0.34] * 2 + [0.34] * 2 + [0.47] * 2 + [0.6] * 2
    keypoints = np.zeros((frames, 17, 3), np.float32)
    keypoints[..., 1] = rows
    keypoints[..., 0] = 0.5 + 0.05 * np.where(np.arange(17) % 2, 1, -1)
    keypoints[..., 2] = 0.7
    return keypoints


def track(number: int, keypoints: np.ndarray, start: float = 0.0) -> PoseTrack:
    F = len(keypoints)
    boxes = np.concatenate([keypoints[..., :2].min(1), keypoints[..., :2].max(1)], axis=1)
    return PoseTrack(
        number=number,
        frame_indices=np.arange(F),
        seconds=start + np.arange(F) / 12.5,
        keypoints=keypoints,
        boxes_xyxy=boxes,
        scores=np.full(F, 0.7, np.float32),
        observed=np.ones(F, bool),
    )


def tracks(*people: PoseTrack, frames: int = 38) -> PoseTracks:
    return PoseTracks(
        video="clip.mp4",
        width=200,
        height=100,
        fps=12.5,
        frame_indices=np.arange(frames),
        seconds=np.arange(frames) / 12.5,
        tracks=people,
    )


def waving() -> np.ndarray:
    keypoints = standing()
    keypoints[:, 9, 1] = 0.1 + 0.1 * np.sin(np.arange(38))
    return keypoints


@pytest.fixture
def predictor(tmp_path) -> PosePredictor:
    torch.manual_seed(0)
    model = create_model(
        "sevitar",
        num_classes=3,
        num_frames=16,
        stem="pose",
        embed_dim=16,
        depth=1,
        num_heads=2,
        cls_in_time=True,
        label_dim=4,
        label_hidden=[8],
        class_hidden=[8],
    )
    save_checkpoint(
        tmp_path / "model",
        model,
        class_names=NAMES,
        preprocess=SAMPLING,
        calibration={"temperature": 1.0, "unknown": {"threshold": 0.8}},
        extra={"other_class": "other"},
    )
    return PosePredictor(load_folder(tmp_path / "model"))


def always(predictor: PosePredictor, logits: list[float]) -> None:
    """Make the model give the same logits for every window."""
    last = predictor.model.class_mlp[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor(logits)


def test_every_track_is_cut_and_a_span_cuts_out_its_part():
    found = tracks(track(1, standing()), track(7, standing(20), start=1.0))
    clips = cut_tracks(found, SAMPLING)
    assert set(clips.tracks) == {1, 7}
    assert clips.clips.shape == (len(clips), 16, 17, 3)
    part = cut_tracks(found, SAMPLING, span=(0.0, 1.9))
    assert part.tracks.count(1) == 1
    assert cut_tracks(found, SAMPLING, span=(50.0, 52.0)).clips.shape == (0, 16, 17, 3)


def test_whoever_is_near_stands_second_in_a_window():
    beside = standing()
    beside[..., 0] += 0.4
    alone = track(3, standing(), start=20.0)
    found = tracks(track(1, standing()), track(2, beside), alone)
    clips = cut_tracks(found, PoseSampling(num_persons=2))
    assert clips.clips.shape[1:] == (16, 34, 3)
    of_first = clips.clips[[place for place, number in enumerate(clips.tracks) if number == 1]]
    # .4 frame heights are .8 heights of a person who is half a frame high
    apart = of_first[..., 17:, 0] - of_first[..., :17, 0]
    torch.testing.assert_close(apart, torch.full_like(apart, 0.8), atol=0.02, rtol=0)
    of_third = clips.clips[[place for place, number in enumerate(clips.tracks) if number == 3]]
    assert (of_third[..., 17:, :] == 0).all()
    assert limb_speed(clips.clips, 8.0).max() < 0.01


def test_larger_surer_and_more_active_people_have_more_say():
    def weight(keypoints: np.ndarray) -> float:
        windows = torch.from_numpy(keypoints[None, :16])
        return float(window_weight(windows, normalise_pose(windows), 8.0))

    small, unsure = standing(), standing()
    small[..., :2] *= 0.5
    unsure[..., 2] = 0.4
    assert weight(small) == pytest.approx(0.5 * weight(standing()), rel=1e-4)
    assert weight(unsure) < 0.7 * weight(standing())
    assert weight(waving()) > 1.2 * weight(standing())


def test_limb_speed_worked_by_hand():
    keypoints = standing(16)
    keypoints[:, 9, 0] += 0.05 * np.arange(16)  # one of twelve, .1 heights each
    clips = normalise_pose(torch.from_numpy(keypoints[None]))
    height = float(np.ptp(keypoints[14, :, 0]))  # the longer side is its reach
    assert float(limb_speed(clips, 8.0)) == pytest.approx(0.05 / height * 8 / 12, rel=0.25)
    still = normalise_pose(torch.from_numpy(standing(16)[None]))
    assert float(limb_speed(still, 8.0)) == pytest.approx(0, abs=1e-5)


def test_fusing_is_a_weighted_mean():
    clips = cut_tracks(tracks(track(1, standing()), track(2, waving())), SAMPLING)
    own = torch.tensor([[1.0, 0.0] if number == 1 else [0.0, 1.0] for number in clips.tracks])
    fused = fuse(own, clips)
    assert float(fused.sum()) == pytest.approx(1)
    assert fused[1] > fused[0]
    torch.testing.assert_close(fuse_by_track(own, clips)[1], torch.tensor([1.0, 0.0]))


def test_nobody_is_said_to_be_nobody(predictor):
    prediction = predictor.predict_tracks(tracks())
    assert prediction.top(1) == [(NO_PERSON, 1.0)]
    assert prediction.trust["unknown"] is None
    assert "nobody" in prediction.trust["reason"]


def test_people_in_too_few_pictures_are_unknown_and_not_nobody(predictor):
    seconds = np.arange(0, 4, 0.5)  # two pictures a second, as of a surveillance camera
    person = replace(track(1, standing(8)), seconds=seconds)
    found = replace(tracks(person), seconds=seconds)
    prediction = predictor.predict_tracks(found)
    assert prediction.nobody
    assert prediction.trust["unknown"] is True
    assert prediction.headline.startswith("unknown: 1 person was found, but in too few moments")
    assert "2.0 pictures a second" in prediction.headline

    passing = replace(found, seconds=np.arange(0, 4, 0.05))  # a tenth of the frames: a false find
    assert predictor.predict_tracks(passing).top(1) == [(NO_PERSON, 1.0)]


def test_the_class_without_a_name_is_never_an_answer_but_makes_it_unknown(predictor):
    assert predictor.class_names == ("stand", "wave")
    always(predictor, [6.0, 0.0, 1.0])
    prediction = predictor.predict_tracks(tracks(track(1, standing())))
    assert prediction.top(1)[0][0] == "wave"
    assert prediction.trust["unknown"] is True
    assert float(prediction.probabilities.sum()) == pytest.approx(1)
    always(predictor, [0.0, 0.0, 6.0])
    assert predictor.predict_tracks(tracks(track(1, standing()))).trust["unknown"] is False


def test_the_score_is_one_at_the_stored_limit(predictor):
    assert predictor.unknown_score(torch.tensor([0.15, 0.05, 0.8])) == pytest.approx(1.0)
    predictor.checkpoint.calibration.pop("unknown")
    assert math.isnan(predictor.unknown_score(torch.tensor([0.2, 0.1, 0.7])))


def test_a_stored_threshold_holds_answers_back(predictor: PosePredictor) -> None:
    always(predictor, [2.0, 0.0, 0.0])
    predictor.checkpoint.calibration["rejection"] = {"threshold": 0.99}
    trust = predictor.predict_tracks(tracks(track(1, standing()))).trust
    assert trust["rejected"] is True
    assert trust["rejection"] == {"threshold": 0.99}
    predictor.checkpoint.calibration["rejection"] = {"threshold": 0.5}
    assert predictor.predict_tracks(tracks(track(1, standing()))).trust["rejected"] is False


def test_every_person_has_an_answer_in_the_json(predictor):
    found = tracks(track(1, standing()), track(2, waving()))
    entry = predictor.predict_tracks(found).to_dict()
    assert [person["track"] for person in entry["persons"]] == [2, 1]  # the more active one first
    assert entry["persons"][0]["predictions"][0]["label"] in predictor.class_names


def test_names_never_trained_on_can_be_ranked(predictor):
    predictor.checkpoint.tensors["label_embeddings"] = torch.nn.functional.normalize(
        torch.randn(3, 4), dim=-1
    )
    prediction = predictor.predict_tracks(tracks(track(1, standing())), labels=["stand", "wave"])
    assert prediction.class_names == ("stand", "wave")
    assert prediction.trust["relative_to_labels"]


def test_a_model_of_pixels_is_refused():
    from marey.checkpoints.load import load_checkpoint

    with pytest.raises(UserError, match="reads no poses"):
        PosePredictor(load_checkpoint("marey-mini-order"))


def test_the_headline_says_the_action_unknown_or_nobody(predictor):
    always(predictor, [0.0, 0.0, 6.0])
    known = predictor.predict_tracks(tracks(track(1, standing())))
    assert known.headline == "wave 100%"
    assert known.to_dict()["headline"] == known.headline
    always(predictor, [6.0, 0.0, 1.0])
    unknown = predictor.predict_tracks(tracks(track(1, standing()))).headline
    assert unknown.startswith("unknown: no known action is likely enough; nearest: wave")
    assert predictor.predict_tracks(tracks()).headline.startswith("no person: nobody")


def test_a_timeline_says_who_is_there_and_when_nobody_is(predictor):
    always(predictor, [0.0, 0.0, 6.0])
    found = tracks(track(1, standing(50)), frames=125)
    segments = pose_timeline(predictor, found)
    assert [segment.label for segment in segments] == ["wave", NO_PERSON]
    assert segments[0].start_seconds == 0
    assert 3.5 < segments[1].start_seconds < 6
    assert segments[1].end_seconds == pytest.approx(10)
    assert segments[1].probability == 1


def test_full_trust_looks_for_people_again_under_mild_changes(tiny_pose_checkpoint, walkers):
    predictor = PosePredictor(load_folder(tiny_pose_checkpoint))
    stability = predictor(walkers, trust="full").trust["stability"]
    assert stability["kept"] == 1
    assert {entry["label"] for entry in stability["corruptions"].values()} == {"walk"}


def test_decoded_frames_are_answered_like_the_file(tiny_pose_checkpoint, walkers):
    predictor = PosePredictor(load_folder(tiny_pose_checkpoint))
    file = predictor(walkers)
    clip = predictor.frames_of(walkers, (0.0, 10.0))
    frames = predictor.predict_clip(clip)
    assert frames.frame_seconds == pytest.approx(file.frame_seconds)
    torch.testing.assert_close(frames.probabilities, file.probabilities)
    one = predictor.predict_clip(replace(clip, frames=torch.zeros_like(clip.frames)))
    assert one.headline.startswith(NO_PERSON)


def test_classes_that_poses_cannot_tell_apart_count_for_one_answer(predictor):
    predictor.checkpoint.extra["shown_as"] = {"stand": "stand or wave", "wave": "stand or wave"}
    merged = PosePredictor(predictor.checkpoint)
    assert merged.class_names == ("stand or wave",)
    logits = torch.log(torch.tensor([0.2, 0.5, 0.3]))
    torch.testing.assert_close(merged.probabilities_at(logits, 1.0), torch.tensor([0.8, 0.2]))
    predictor.checkpoint.extra["shown_as"] = {"stand": None}
    dropped = PosePredictor(predictor.checkpoint)
    assert dropped.class_names == ("wave",)
    torch.testing.assert_close(dropped.probabilities_at(logits, 1.0), torch.tensor([0.3, 0.7]))
    assert dropped.unnamed_probability(torch.tensor([0.3, 0.7])) == pytest.approx(0.7)


def test_without_legs_only_what_arms_do_is_named(predictor):
    always(predictor, [0.0, 6.0, 0.0])
    keypoints = standing()
    keypoints[:, 11:, 2] = 0.05
    alone = predictor.predict_tracks(tracks(track(1, keypoints)))
    assert alone.headline.startswith("unknown: neither hips nor legs are seen; nearest: stand")
    assert alone.persons[0].unknown is True
    predictor.class_names = ("stand", "wave, point or signal")
    always(predictor, [0.0, 0.0, 6.0])
    waves = predictor.predict_tracks(tracks(track(1, keypoints)))
    assert waves.headline == "wave, point or signal 100%"
