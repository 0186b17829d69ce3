"""From a folder of videos to a model, its page and its card; bad folders are named."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

import marey
from marey.cli import run
from marey.datasets.index import read_folders
from marey.errors import UserError, VideoError
from marey.features.cache import FeatureCache
from marey.inference.answers import Answers
from marey.inference.live import watch
from marey.inference.predictor import Predictor
from marey.inference.timeline import timeline
from marey.persons.pose_tracks import PoseTrack, PoseTracks
from marey.teaching.controls import metadata_predictions
from marey.teaching.data import few_shots, open_teaching_data
from marey.teaching.teach import crossval
from marey.video.decode import open_video
from marey.video.encode import write_video


def moving(kind: str, seed: int, frames: int = 16) -> torch.Tensor:
    """A square that stands or moves, over noise; uint8 (T, 3, 64, 64)."""
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randint(90, 110, (frames, 3, 64, 64), generator=generator)
    top = int(torch.randint(4, 40, (1,), generator=generator))
    for t in range(frames):
        left = 4 + (3 * t if kind == "slide" else 20)
        clip[t, :, top : top + 16, left : left + 16] = 230
    return clip.to(torch.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for number in range(12):
        kind = ("slide", "stand")[number % 2]
        (root / kind).mkdir(exist_ok=True)
        write_video(root / kind / f"{number}.mp4", moving(kind, number), fps=8)
    (root / "slide" / "broken.mp4").write_bytes(b"not a video")
    return root


@pytest.fixture(scope="module")
def taught(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    cache = FeatureCache(out / "cache")
    return marey.teach(folder, out / "model", encoder="frames", views=1, num_folds=3, cache=cache)


def test_a_model_is_taught_and_opened_again(taught, folder):
    report = taught.report
    assert report["accuracy"] > 0.8
    assert report["controls"]["metadata"]["accuracy"] <= 0.75
    assert report["controls"]["majority"]["accuracy"] == 0.5
    assert [entry["video"] for entry in report["unreadable"]] == ["slide/broken.mp4"]
    assert report["num_videos"] == 12

    predictor = Predictor.load(taught.out)
    assert predictor.class_names == ("slide", "stand")
    answer = predictor(folder / "slide" / "0.mp4")
    assert answer.top(1)[0][0] == "slide"
    assert answer.trust["not_calibrated"].startswith("not calibrated: 12 videos")
    assert answer.trust["calibrated"] is False
    assert predictor(folder / "stand" / "1.mp4").top(1)[0][0] == "stand"
    assert predictor.checkpoint.calibration == report["calibration"]
    assert report["calibration"]["trust"]["num_videos"] == 12


def test_page_card_and_answers_say_the_same(taught):
    page = (taught.out / "report.html").read_text()
    card = (taught.out / "README.md").read_text()
    accuracy = f"{taught.report['accuracy']:.2f}"
    for text in (page, card):
        assert f"Expected accuracy on new videos: {accuracy}" in text
        assert "only size, length and rate" in text
        assert "Trust: not calibrated: 12 videos, at least 40 are needed" in text
    assert "Confusion matrix" in page
    assert page.count("<figure>") == len(taught.report["errors"])
    stored = Answers.load(taught.out / "out-of-fold")
    names = stored.class_names
    right = sum(
        names[int(logits.argmax())] == label
        for logits, label in zip(stored.logits[:, 0], stored.labels, strict=True)
    )
    assert right / 12 == pytest.approx(taught.report["accuracy"])
    assert json.loads((taught.out / "teach.json").read_text())["encoder"] == "frames"


def test_evaluate_opens_a_taught_model(taught, folder, capsys):
    status = run(["evaluate", str(taught.out), "--data", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)["top1"] > 0.9
    assert status == 1  # one file cannot be read


def test_an_interrupted_run_says_how_to_go_on_and_does(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from marey.checkpoints import encoders

    network = type(encoders.bundled_frames())
    forward, calls = network.forward, []

    def interrupted(self, clip):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return forward(self, clip)

    monkeypatch.setattr(network, "forward", interrupted)
    words = [str(folder), "--encoder", "frames", "--views", "1", "--folds", "3"]
    assert run(["crossval", *words]) == 130
    error = capsys.readouterr().err
    assert "4 of 13 videos are stored for 'frames'" in error
    assert "the features that were computed are kept; go on with: marey crossval" in error

    calls.append(1)
    assert run(["crossval", *words, "--json"]) == 0
    out, err = capsys.readouterr()
    # Eight more of the encoder and twelve of the single-frame control.
    assert len(calls) - 6 == 8 + 12
    assert json.loads(out)["accuracy"] > 0.8
    assert "fold 0:" in err


def walking(video, **_):
    """Poses as if one person walked where the file's folder is "slide"."""
    if "broken" in str(video):
        raise VideoError(f"{video}: no video")
    speed = 0.1 if "slide" in str(video) else 0.0
    frames = np.arange(20)
    keypoints = np.random.default_rng(len(str(video))).normal(size=(1, 17, 3)).repeat(20, 0)
    keypoints[:, 9, 0] += speed * frames
    track = PoseTrack(
        number=1,
        frame_indices=frames,
        seconds=frames / 12.5,
        keypoints=keypoints.astype(np.float32),
        boxes_xyxy=np.zeros((20, 4), np.float32),
        scores=np.ones(20, np.float32),
        observed=np.ones(20, bool),
    )
    return PoseTracks(
        video=str(video),
        width=64,
        height=64,
        fps=12.5,
        frame_indices=frames,
        seconds=frames / 12.5,
        tracks=(track,),
    )


@pytest.mark.parametrize("encoder", ["poses", "frames+motion+poses"])
def test_a_model_of_poses_predicts_and_is_evaluated(folder, tmp_path, monkeypatch, capsys, encoder):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("video_vectors", "pose_cache"):
        monkeypatch.setattr(f"marey.features.{module}.read_poses", walking)
    words = ["--encoder", encoder, "--views", "1", "--folds", "3", "--json"]
    assert run(["teach", str(folder), "--out", str(tmp_path / "m"), *words]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["encoder"] == encoder
    assert [entry["video"] for entry in report["unreadable"]] == ["slide/broken.mp4"]
    assert report["accuracy"] > 0.8

    predictor = Predictor.load(tmp_path / "m", views=2)
    assert predictor(folder / "slide" / "0.mp4").top(1)[0][0] == "slide"
    monkeypatch.setattr(
        "marey.features.video_vectors.poses_of_frames",
        lambda clip, **_: walking(folder / "slide" / "0.mp4"),
    )
    model = str(tmp_path / "m")
    assert run(["predict", str(folder / "stand/1.mp4"), "--model", model, "--trust", "full"]) == 0
    assert "of three mild corruptions" in " ".join(capsys.readouterr().out.split())
    words = ["--corruptions", "fog", "--severities", "1", "--limit", "2", "--attacks", "fgsm"]
    report = ["robustness", model, "--data", str(folder), *words, "--out", str(tmp_path / "r")]
    assert run([*report, "--json"]) == 0
    printed = capsys.readouterr()
    assert "is not attacked: no gradients reach the pixels" in " ".join(printed.err.split())
    measured = json.loads(printed.out)["models"][model]
    assert measured["clean_accuracy"] > 0
    out = ["--format", "onnx", "--out", str(tmp_path / "m.onnx")]
    assert run(["export", str(tmp_path / "m"), *out]) == 2
    assert "teach with --encoder frames" in " ".join(capsys.readouterr().err.split())
    run(["evaluate", str(tmp_path / "m"), "--data", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)["top1"] > 0.9
    segments = timeline(predictor, folder / "slide" / "0.mp4", window_seconds=1.0)
    assert segments[0].label == "slide"
    with open_video(folder / "slide" / "0.mp4") as reader:
        frames = list(zip(reader.frame_seconds, reader.frames_at(range(16)).frames, strict=True))
    answers = list(watch(predictor, frames, window_seconds=1.0, step_seconds=0.5))
    assert {entry["label"] for entry in answers[-1]["predictions"]} == {"slide", "stand"}
    with pytest.raises(UserError, match="poses of the video"):
        predictor.outputs(torch.zeros(1, 8, 3, 160, 160))


def test_an_attentive_model_is_taught_and_opened_again(folder, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    arguments = {"views": 1, "num_folds": 2, "cache": cache, "device": "cpu"}
    taught = marey.teach(folder, tmp_path / "m", encoder="frames", method="attentive", **arguments)
    report = taught.report
    assert report["kind"] == "attentive"
    assert set(report["methods"]) == {"probe", "attentive", "p"}
    assert "beside the linear map's" in report["method_choice"]
    assert "a learned query" in (tmp_path / "m" / "report.html").read_text()
    outputs = Predictor.load(tmp_path / "m", views=1).outputs(torch.zeros(1, 8, 3, 160, 160))
    assert outputs["embedding"].shape == (1, 192)
    assert outputs["deciding_embedding"].shape == (1, 9216)


def test_encoders_that_are_equally_good_answer_together(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("marey.teaching.teach.peopled", lambda *_: 0.0)
    monkeypatch.setattr("marey.teaching.teach.PICTURES", ("motion", "frames"))
    cache = FeatureCache(tmp_path / "cache")
    taught = marey.teach(folder, tmp_path / "m", views=1, num_folds=3, cache=cache, device="cpu")
    assert {row["encoder"] for row in taught.report["averaged"]} == {"motion", "frames"}
    assert taught.report["encoder"] == "frames+motion"
    assert "the mean of ridge regressions of" in (tmp_path / "m" / "report.html").read_text()
    predictor = Predictor.load(tmp_path / "m", views=1)
    assert tuple(predictor.model.vectors) == ("motion",)
    for name, label in (("slide/0.mp4", "slide"), ("stand/1.mp4", "stand")):
        assert predictor(folder / name).top(1)[0][0] == label


def test_the_recipe_of_earlier_versions_teaches(folder, tmp_path, monkeypatch, capsys):
    called = {}
    monkeypatch.setattr(
        "marey.cli.teach.teach",
        lambda *args, **words: called.update(data=args[0], out=args[1], **words),
    )
    words = ["train", "finetune_folder", "--data", str(folder), "--out", str(tmp_path / "m")]
    assert run(words) == 0
    assert called == {"data": str(folder), "out": tmp_path / "m", "dataset": None, "json": False}
    assert "is now `marey teach`" in capsys.readouterr().err
    assert run([*words, "--set", "train.epochs=1"]) == 2
    assert "take another recipe, such as sevitar_folder" in capsys.readouterr().err


def test_answers_below_a_target_accuracy_are_held_back(folder, tmp_path):
    arguments = {"encoder": "frames", "views": 1, "num_folds": 3, "device": "cpu"}
    cache = FeatureCache(tmp_path / "cache")
    taught = marey.teach(folder, tmp_path / "m", target_accuracy=1.0, cache=cache, **arguments)
    rejection = taught.report["calibration"]["rejection"]
    assert rejection["accuracy"] == 1.0
    assert Predictor.load(tmp_path / "m").calibration["rejection"] == rejection
    assert any("the model does not answer" in note for note in taught.report["notes"])
    with pytest.raises(UserError, match=r"lies between 0 and 1, got 95"):
        marey.teach(folder, tmp_path / "n", target_accuracy=95, cache=cache, **arguments)


def test_a_class_that_leaks_by_size_is_named_with_the_remedy(tmp_path):
    """Both classes show the same; one was recorded at another size."""
    for number in range(12):
        kind = ("wave", "bow")[number % 2]
        (tmp_path / "videos" / kind).mkdir(parents=True, exist_ok=True)
        clip = moving("stand", number)
        clip = clip if kind == "wave" else clip[..., :48]
        write_video(tmp_path / "videos" / kind / f"{number}.mp4", clip, fps=8)
    found = crossval(
        tmp_path / "videos",
        encoder="frames",
        views=1,
        num_folds=3,
        cache=FeatureCache(tmp_path / "cache"),
    )
    assert found.report["controls"]["metadata"]["accuracy"] == 1.0
    advice = " ".join(found.report["record_more"])
    assert "size, length and rate alone name the class in 100% of the videos" in advice
    assert "one camera, at one size" in advice


def test_methods_that_do_not_fit_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="unknown method 'bayes'"):
        marey.teach(folder, tmp_path, method="bayes")
    with pytest.raises(UserError, match="trains on clips, and 'motion' reads none"):
        marey.teach(folder, tmp_path, method="full", encoder="motion")


def small(root, names):
    """Files that are never opened."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return root


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.mp4", "a/2.mp4"], "two classes"),
        (["a/1.mp4", "a/2.mp4", "b/1.mp4"], "one video only of 'b'"),
        (["Wave/1.mp4", "wave/2.mp4", "b/1.mp4"], "differ only in case or spaces: 'Wave', 'wave'"),
    ],
)
def test_folders_that_cannot_be_learned_are_named(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        open_teaching_data(small(tmp_path, names))


def test_one_video_under_two_labels_is_named_and_copies_stay_together(tmp_path):
    root = small(tmp_path, ["a/1.mp4", "a/2.mp4", "a/3.mp4", "b/1.mp4", "b/2.mp4"])
    shutil.copy(root / "a/1.mp4", root / "a/copy.mp4")
    data = open_teaching_data(root)
    names = [sample.path.name for sample in data.index.samples]
    assert data.groups[names.index("copy.mp4")] == data.groups[0]
    assert len(set(data.groups)) == 5
    assert "copies of one another" in data.notes[0]

    shutil.copy(root / "a/1.mp4", root / "b/3.mp4")
    with pytest.raises(UserError, match="same video under the labels 'a' and 'b'"):
        open_teaching_data(root)


def test_shots_are_drawn_per_class(tmp_path):
    names = [f"{label}/{number}.mp4" for label in "ab" for number in range(5)]
    data = open_teaching_data(small(tmp_path, names))
    chosen = few_shots(data, 3, seed=0)
    assert (chosen.labels.count("a"), chosen.labels.count("b")) == (3, 3)
    with pytest.raises(UserError, match="from 2 to 5"):
        few_shots(data, 6, seed=0)
    assert len(read_folders(tmp_path)) == 10


def test_a_class_that_leaks_by_size_is_seen_by_the_control():
    labels = torch.tensor([0, 1] * 20)
    facts = torch.ones(40, 6)
    facts[:, 0] = 320 + 320.0 * labels
    folds = torch.arange(40) % 4
    for predicted in metadata_predictions(facts, labels, folds).values():
        assert bool((predicted == labels).all())
    blind = metadata_predictions(torch.ones(40, 6), labels, folds)
    assert all(float((answers == labels).double().mean()) <= 0.6 for answers in blind.values())
