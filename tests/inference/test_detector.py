from __future__ import annotations

import json

import pytest
import torch

from marey.checkpoints.folder import save_checkpoint
from marey.datasets.ava_format import read_box_rows
from marey.errors import UserError
from marey.inference.detector import Detector
from marey.models import create_model
from marey.transforms.preprocess import Preprocess
from marey.video.decode import open_video
from marey.video.encode import write_video
from marey.video.sampling import ClipSampling

NAMES = ["walk", "run", "jump"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "tiny"
    torch.manual_seed(0)
    model = create_model(
        "action_transformer",
        num_classes=3,
        num_frames=4,
        width=0.125,
        num_proposals=6,
        rpn_channels=16,
        dim=16,
        ffn=32,
        query_channels=8,
        location_channels=8,
        anchor_sizes=[16, 32],
    )
    preprocess = Preprocess(
        sampling=ClipSampling(num_frames=4, stride_frames=1, target_fps=4.0),
        image_size=64,
        resize_mode="stretch",
    )
    save_checkpoint(folder, model, class_names=NAMES, preprocess=preprocess)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "scene.mp4"
    frames = torch.randint(
        0, 255, (24, 3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    write_video(path, frames, fps=8.0)
    return path


def test_every_second_has_its_key_frame_and_the_answer_is_json(checkpoint, video):
    detections = Detector.load(checkpoint, persons="own", min_score=0.0)(video)
    assert [moment.seconds for moment in detections.moments] == pytest.approx([0.5, 1.5, 2.5])
    entry = json.loads(json.dumps(detections.to_dict()))
    person = entry["moments"][0]["persons"][0]
    assert set(person) == {
        "track",
        "person_score",
        "unknown",
        "box_xyxy",
        "box_xyxy_norm",
        "actions",
    }
    assert person["unknown"] is None  # a model of pixels does not judge that
    assert person["box_xyxy"][2] <= 64
    assert {track["track"] for track in entry["tracks"]} == {
        p["track"] for m in entry["moments"] for p in m["persons"]
    }


def test_given_boxes_are_kept_and_named(checkpoint, video, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("scene,0001,0.1,0.1,0.4,0.9,,0.9\nscene,0001,0.7,0.5,0.75,0.6,,0.9\n")
    detections = Detector.load(checkpoint, persons=str(boxes))(video)
    assert [len(moment.persons) for moment in detections.moments] == [
        2,
        2,
        0,
    ]  # 0.5 s and 1.5 s are near second 1
    assert detections.moments[0].persons[0].box_xyxy_norm == pytest.approx((0.1, 0.1, 0.4, 0.9))
    assert len(detections.moments[0].persons[1].probabilities) == 3


def test_a_model_that_finds_nobody_is_refused(tmp_path):
    save_checkpoint(
        tmp_path / "i3d",
        create_model("i3d", num_classes=2, width=0.125),
        class_names=["a", "b"],
        preprocess=Preprocess(),
    )
    with pytest.raises(UserError, match="is a i3d, which finds no persons; use marey-mini-detect"):
        Detector.load(tmp_path / "i3d")
    with pytest.raises(UserError, match="no such"):
        Detector.load(tmp_path / "absent")


def test_the_command_prints_json_and_writes_csv_and_video(checkpoint, video, tmp_path):
    from typer.testing import CliRunner

    from marey.cli import build_app

    csv, annotated = tmp_path / "out.csv", tmp_path / "out.mp4"
    result = CliRunner().invoke(
        build_app(),
        [
            "detect",
            str(video),
            "--model",
            str(checkpoint),
            "--persons",
            "own",
            "--min-score",
            "0",
            "--json",
            "--ava-csv",
            str(csv),
            "--save-annotated",
            str(annotated),
        ],
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["persons"] == "own"
    assert document["results"][0]["error"] is None
    rows = read_box_rows(csv)
    assert rows.keys[0] == ("scene", 0.5)
    assert set(rows.class_ids.tolist()) <= {1, 2, 3}
    with open_video(annotated) as reader:
        assert (reader.num_frames, reader.height) == (24, 480)


def test_an_unreadable_video_is_named_and_the_others_are_answered(checkpoint, video, tmp_path):
    from typer.testing import CliRunner

    from marey.cli import build_app

    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    result = CliRunner().invoke(
        build_app(), ["detect", str(broken), str(video), "--model", str(checkpoint), "--json"]
    )
    assert result.exit_code == 1
    results = json.loads(result.stdout)["results"]
    assert "broken.mp4" in results[0]["error"]
    assert results[1]["error"] is None


def test_people_followed_with_poses_keep_their_numbers_at_every_key_frame(checkpoint, walkers):
    detections = Detector.load(checkpoint)(walkers, every_seconds=0.5)
    assert detections.poses is not None
    tracks = {track.number for track in detections.poses.tracks}
    assert len(tracks) == 2
    assert len(detections.moments) == 4
    for moment in detections.moments:
        assert {person.track for person in moment.persons} == tracks
    first, last = detections.moments[0], detections.moments[-1]
    for before in first.persons:
        (after,) = [person for person in last.persons if person.track == before.track]
        assert abs(after.box_xyxy_norm[0] - before.box_xyxy_norm[0]) > 0.1
    assert detections.to_dict()["tracks"][0]["moments"] == 4


def test_nobody_followed_is_an_empty_answer(checkpoint, day_and_night):
    detections = Detector.load(checkpoint, persons="movenet")(day_and_night, every_seconds=4.0)
    assert [moment.persons for moment in detections.moments] == [(), ()]
    assert detections.tracks() == []
