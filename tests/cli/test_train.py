"""`marey train`, `evaluate` and `compare` as a user runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from marey.cli import build_app
from marey.cli.train import parse_views
from marey.errors import UserError
from marey.training.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from marey.transforms.preprocess import Preprocess
from marey.video.encode import write_video
from marey.video.sampling import ClipSampling

PREPROCESS = Preprocess(
    sampling=ClipSampling(kind="equidistant", num_frames=2), short_side=16, image_size=16
)
SMALL = TrainConfig(
    recipe="small",
    model=ModelConfig(
        name="timesformer", arguments={"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    ),
    data=DataConfig(preprocess=PREPROCESS, val_fraction=0.34),
    train=RunConfig(batch_size=4, epochs=2, tensorboard=False, device="cpu"),
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for label, level in (("bright", 200), ("dark", 30)):
        (root / label).mkdir()
        for number in range(3):
            write_video(
                root / label / f"{number}.mp4",
                torch.full((4, 3, 32, 32), level + 5 * number, dtype=torch.uint8),
                10,
            )
    return root


def run(*words: str) -> tuple[int, str, str]:
    """Run the command; returns exit status, standard output, standard error and the message of a
    UserError."""
    result = CliRunner().invoke(build_app(), list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        assert isinstance(result.exception, UserError), result.exception
        return 2, result.stdout, str(result.exception)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "small.json"
    path.write_text(json.dumps(SMALL.to_dict()))
    return str(path)


@pytest.fixture(scope="module")
def trained(videos: Path, recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    status, stdout, stderr = run(
        "train", recipe, "--data", str(videos), "--out", str(out), "--json"
    )
    assert status == 0, stderr
    assert json.loads(stdout)["steps"] == 2
    return out


def test_what_is_read_from_file_names_is_said(videos: Path, recipe: str, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    people = ("ann", "bob", "cat")
    for label, action in (("bright", "walk"), ("dark", "run")):
        for number, person in enumerate(people):
            name = f"{person}_{action}.mp4"
            shutil.copy(videos / label / f"{number}.mp4", tmp_path / "flat" / name)
    words = ["train", recipe, "--data", str(tmp_path / "flat"), "--out", str(tmp_path / "run")]
    status, _, stderr = run(*words)
    assert status == 0, stderr
    assert "labels: read from file names, such as 'run' of ann_run.mp4" in stderr
    assert "groups: 3 names (ann, bob, cat)" in stderr


def test_controls_stand_beside_the_score(trained: Path, videos: Path) -> None:
    words = ["evaluate", str(trained), "--data", str(videos), "--out", str(trained / "controls")]
    status, stdout, stderr = run(*words, "--json")
    assert status == 0, stderr
    controls = json.loads(stdout)["controls"]
    # nothing moves in these videos, so one picture says as much as all
    assert controls["one_picture"]["accuracy"] == json.loads(stdout)["top1"]
    # all have one size, length and rate
    assert controls["metadata"]["accuracy"] <= 0.5
    assert "Beside it: size, length and rate of the file alone" in stderr
    assert "the same model on one picture, held still" in stderr
    assert "Beside it: size, length" in (trained / "controls" / "report.html").read_text()


def test_train_then_evaluate_then_compare(trained: Path, videos: Path) -> None:
    status, stdout, stderr = run(
        "evaluate", str(trained), "--data", str(videos), "--views", "1x3", "--json"
    )
    assert status == 0, stderr
    report = json.loads(stdout)
    assert {
        "top1",
        "top5",
        "mean_class_accuracy",
        "num_videos",
        "unreadable",
        "top1_interval",
        "config",
    } <= {*report}
    assert report["config"]["recipe"] == "small"
    assert (trained / "evaluation" / "predictions.jsonl").is_file()
    status, stdout, _ = run("compare", str(trained), str(trained), "--json")
    assert (status, json.loads(stdout)["mcnemar_p"]) == (0, 1.0)
    status, stdout, _ = run("compare", str(trained), str(trained))
    assert "McNemar p = 1.0000" in stdout
    status, stdout, _ = run("evaluate", str(trained), "--predictions", "--json")
    assert json.loads(stdout)["top1"] == report["top1"]


def test_scores_on_training_videos_are_shouted_with_the_clean_number_beside(
    trained: Path, videos: Path, tmp_path: Path
) -> None:
    _, stdout, stderr = run("evaluate", str(trained), "--data", str(videos), "--json")
    report = json.loads(stdout)
    seen = report["seen_in_training"]
    assert (report["num_videos"], seen["num_videos"]) == (6, 4)
    assert seen["clean"]["num_videos"] == 2
    assert "LEAKED: 4 of these 6 videos are training videos of this model" in stderr
    assert "on the 2 others: top-1" in stderr

    _, stdout, _ = run("compare", str(trained), str(trained), "--json")
    assert json.loads(stdout)["seen_in_training"]["clean"]["num_videos"] == 2
    _, stdout, _ = run("compare", str(trained), str(trained))
    assert "LEAKED: A was trained on 4 of them" in stdout

    lines = (trained / "evaluation" / "predictions.jsonl").read_text().splitlines()[1:]
    rows = [json.loads(line) for line in lines]
    only = tmp_path / "only"
    for row in rows:
        if row["seen_in_training"]:
            target = only / row["video"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((videos / row["video"]).read_bytes())
    _, stdout, stderr = run("evaluate", str(trained), "--data", str(only), "--json")
    assert json.loads(stdout)["seen_in_training"]["clean"] is None
    assert "no measure of accuracy" in stderr


def test_robustness_shouts_too_and_takes_the_folder_of_a_run(
    trained: Path, videos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    status, stdout, stderr = run(
        "robustness",
        str(trained),
        "--data",
        str(videos),
        "--corruptions",
        "contrast",
        "--severities",
        "1",
        "--at",
        "32",
        "--out",
        str(out),
    )
    assert status == 0, stderr
    assert "was trained on 4 of these 6 videos; on the 2 others" in stdout
    page = (out / "report.html").read_text()
    assert "LEAKED" in page
    assert "What breaks it most is contrast" in page


def test_an_existing_run_is_not_overwritten(trained: Path, videos: Path, recipe: str) -> None:
    status, _, message = run("train", recipe, "--data", str(videos), "--out", str(trained))
    assert status == 2
    assert "already holds a run; go on with it by --resume, or choose another --out" in message


def test_a_saved_configuration_is_a_recipe(trained: Path) -> None:
    status, stdout, _ = run(
        "train", str(trained / "config.json"), "--show", "--set", "train.seed=5"
    )
    assert status == 0
    config = json.loads(stdout)
    assert (config["train"]["seed"], config["train"]["epochs"]) == (5, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "mini_mocapp"], "unknown recipe 'mini_mocapp'; did you mean 'mini_mocap'"),
        (["train", "mini_mocap", "--set", "optim.lrr=1"], "did you mean 'lr'"),
        (["train", "mini_mocap"], "no data: give --data"),
        (["train", "mini_mocap", "--data", "nowhere"], "nowhere: no such file or folder"),
        (["evaluate", "nowhere", "--data", "x", "--views", "3"], "--views takes TEMPORALxSPATIAL"),
        (["evaluate", "nowhere"], "no data: give --data"),
        (["compare", "nowhere", "nowhere"], "run 'marey evaluate nowhere --data DATA' first"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    status, stdout, said = run(
        *words, *(["--out", str(tmp_path / "out")] if words[0] == "train" else [])
    )
    assert status == 2
    assert message in said
    assert "\n" not in said.strip()
    assert stdout == ""


def test_one_class_is_clear(videos: Path, recipe: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "dark").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "data" / "dark" / f"{number}.mp4").write_bytes(
            (videos / "dark" / f"{number}.mp4").read_bytes()
        )
    words = ["train", recipe, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert "a classifier needs at least two classes" in run(*words)[2]


def test_views_are_read_or_refused() -> None:
    assert parse_views("10x3") == (10, 3)
    with pytest.raises(UserError, match="with 1 or 3 spatial views"):
        parse_views("1x2")


def test_evaluate_stores_a_threshold_below_which_nothing_is_answered(
    trained: Path, videos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained / "best", folder)
    config = json.loads((folder / "config.json").read_text())
    arguments = ("evaluate", str(folder), "--data", str(videos), "--json")
    status, stdout, stderr = run(*arguments, "--min-coverage", "0.5")
    assert status == 0, stderr
    stored = json.loads((folder / "config.json").read_text())["calibration"]
    assert stored["rejection"] == json.loads(stdout)["rejection"]
    assert stored["rejection"]["coverage"] >= 0.5
    assert {k: v for k, v in stored.items() if k != "rejection"} == (config["calibration"] or {})
