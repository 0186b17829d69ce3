from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.cli import build_app
from marey.datasets import open_dataset
from marey.errors import UserError, VideoError
from marey.evaluation.order import answer_reliance, measure_order, measure_reliance
from marey.inference.answers import AnswerOptions, answer_clips, answer_videos
from marey.inference.order import order_many, order_video
from marey.metrics.order import chance_order_accuracy
from marey.models import create_model
from marey.transforms.preprocess import Preprocess
from marey.video.encode import write_video
from marey.video.sampling import ClipSampling


def moving_square(num_frames, *, frozen=False, size=32):
    """A bright square that moves by one pixel a frame over a dim gradient."""
    frames = (
        torch.arange(size)
        .view(1, 1, 1, size)
        .expand(num_frames, 3, size, size)
        .clone()
        .to(torch.uint8)
    )
    for t in range(num_frames):
        x = 0 if frozen else t % (size - 8)
        frames[t, :, 12:20, x : x + 8] = 230
    return frames


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / "moving.mp4", moving_square(24), 12.0)
    return tmp_path / "moving.mp4"


@pytest.fixture
def checkpoint_folder(tmp_path):
    torch.manual_seed(0)
    model = create_model(
        "direcformer",
        num_classes=2,
        num_orders=5,
        num_frames=4,
        image_size=16,
        patch_size=8,
        embed_dim=16,
        depth=1,
        num_heads=2,
    )
    preprocess = Preprocess(
        sampling=ClipSampling(kind="uniform", num_frames=4, stride_frames=2),
        short_side=16,
        image_size=16,
    )
    save_checkpoint(tmp_path / "model", model, class_names=["left", "right"], preprocess=preprocess)
    return tmp_path / "model"


def invoke(*arguments):
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def test_the_order_can_also_be_sorted_by_net_weight(video, checkpoint_folder):
    found = order_video(load_checkpoint(checkpoint_folder), video, shuffle=3, method="sort")
    assert (
        found.path.tolist()
        == (found.weights.sum(1) - found.weights.sum(0)).argsort(descending=True).tolist()
    )
    asked = invoke(
        "order", video, "--model", checkpoint_folder, "--shuffle", 3, "--method", "sort", "--json"
    )
    assert json.loads(asked.stdout)["results"][0]["order"] == found.path.tolist()
    wrong = invoke("order", video, "--model", checkpoint_folder, "--method", "sorted")
    assert "unknown method of order correction 'sorted'; did you mean 'sort'" in str(
        wrong.exception
    )


def test_the_frames_of_the_models_own_clip_are_shuffled_by_the_seed(video, checkpoint_folder):
    checkpoint = load_checkpoint(checkpoint_folder)
    found = order_video(checkpoint, video, shuffle=3)
    again = order_video(checkpoint, video, shuffle=3)
    assert torch.equal(found.order, again.order)
    assert torch.equal(found.path, again.path)
    assert sorted(found.path.tolist()) == [0, 1, 2, 3]
    assert found.frame_seconds == pytest.approx([2 * time / 12 for time in found.order.tolist()])
    assert 0.25 <= found.order_accuracy <= 1


def test_without_a_shuffle_the_truth_is_not_known(video, checkpoint_folder):
    entry = order_video(load_checkpoint(checkpoint_folder), video).to_dict()
    assert entry["order_accuracy"] is None
    assert entry["chance"] == pytest.approx(chance_order_accuracy(4), abs=1e-6)
    assert (len(entry["order"]), entry["shuffle"], entry["error"]) == (4, None, None)


def test_a_window_is_sampled_in_equal_parts_and_too_short_ones_are_refused(
    video, checkpoint_folder
):
    checkpoint = load_checkpoint(checkpoint_folder)
    found = order_video(checkpoint, video, window_seconds=(0.0, 8 / 12))
    assert found.frame_seconds == pytest.approx([1 / 12, 3 / 12, 5 / 12, 7 / 12])
    with pytest.raises(UserError, match=r"3 frames in the window, the model takes 4 distinct ones"):
        order_video(checkpoint, video, window_seconds=(0.0, 0.25))
    with pytest.raises(VideoError, match="outside its 2.000 s"):
        order_video(checkpoint, video, window_seconds=(5.0, 6.0))


def test_repeated_pictures_are_refused(tmp_path, checkpoint_folder):
    folder = tmp_path / "frozen"
    folder.mkdir()
    from torchvision.io import write_png

    for number, frame in enumerate(moving_square(12, frozen=True)):
        write_png(frame, str(folder / f"{number:03d}.png"))
    with pytest.raises(UserError, match="frames 0 and 1 of 4 are equal"):
        order_video(load_checkpoint(checkpoint_folder), folder)


def test_in_a_batch_bad_videos_are_named_and_the_others_answered(
    video, tmp_path, checkpoint_folder
):
    checkpoint = load_checkpoint(checkpoint_folder)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    entries = [entry for _, entry in order_many(checkpoint, [video, tmp_path / "broken.mp4"])]
    assert entries[0]["error"] is None
    assert str(tmp_path / "broken.mp4") in entries[1]["error"]


def test_the_command_prints_one_json_document_and_draws_the_figure(
    video, tmp_path, checkpoint_folder
):
    pytest.importorskip("matplotlib")
    answer = invoke(
        "order",
        video,
        "--model",
        checkpoint_folder,
        "--shuffle",
        1,
        "--json",
        "--out",
        tmp_path / "out",
    )
    assert answer.exit_code == 0
    document = json.loads(answer.stdout)
    assert list(document["results"][0]) == [
        "video",
        "order",
        "order_accuracy",
        "chance",
        "shuffle",
        "frame_seconds",
        "method",
        "direction",
        "note",
        "error",
    ]
    assert document["results"][0]["method"] == "oriented"
    assert (tmp_path / "out" / "moving-order.png").stat().st_size > 5000


def test_the_command_prints_the_accuracy_beside_chance(video, checkpoint_folder):
    answer = invoke("order", video, "--model", checkpoint_folder, "--shuffle", 1)
    assert "OrderAcc" in answer.stdout
    assert "(chance 60.4%)" in answer.stdout


def test_a_missing_video_is_answered_with_status_one(tmp_path, checkpoint_folder):
    answer = invoke("order", tmp_path / "none.mp4", "--model", checkpoint_folder, "--json")
    assert answer.exit_code == 1
    assert "there is no such file" in json.loads(answer.stdout)["results"][0]["error"]


def make_data(tmp_path):
    for label, flip in (("right", False), ("left", True)):
        for number in range(2):
            frames = moving_square(16 + number)
            folder = tmp_path / "data" / label
            folder.mkdir(parents=True, exist_ok=True)
            write_video(folder / f"{number}.mp4", frames.flip(0) if flip else frames, 12.0)
    return tmp_path / "data"


def test_order_accuracy_and_reliance_are_measured_on_a_folder(tmp_path, checkpoint_folder):
    data, checkpoint = make_data(tmp_path), load_checkpoint(checkpoint_folder)
    index = open_dataset(data)
    answers = answer_videos(checkpoint, index, AnswerOptions(shuffles=4, backwards=("left",)))
    assert (measure_order(answers)["clips"], answers.unreadable) == (4, [])
    corrector = load_checkpoint(checkpoint_folder)
    answers = answer_reliance(checkpoint, index, AnswerOptions(shuffles=2), corrector=corrector)
    found = measure_reliance(answers)
    assert (found["clips"], found["labelled"]) == (4, 4)
    assert found["corrected_accuracy"] is not None
    answer = invoke("reliance", checkpoint_folder, "--data", data, "--limit", 2, "--json")
    assert json.loads(answer.stdout)["results"][0]["clips"] == 2


def test_the_bundled_model_puts_rendered_frames_in_better_order_than_chance():
    pytest.importorskip("pybullet", reason="renders captured motion")
    from marey.synthetic.clip import render_clip

    checkpoint = load_checkpoint("marey-mini-order")
    actions = ("get up from the back", "get up from the front", "roll", "jump")
    frames = [
        render_clip(action, seed=seed, split="test", size=112, fps=8.0).clip.frames
        for seed in range(8)
        for action in actions
    ]
    items = ({"views": checkpoint.clip_preprocess.clip(clip, num_spatial=1)} for clip in frames)
    found = measure_order(
        answer_clips(checkpoint.model.eval(), items, AnswerOptions(shuffles=4)), method="sort"
    )
    assert found["interval"][0] > found["chance"] + 0.02


def test_the_bundled_model_of_pictures_orders_a_video_after_install(video):
    result = invoke("order", video, "--model", "marey-mini-order", "--shuffle", 0, "--json")
    assert result.exit_code == 0, result.output
    assert sorted(json.loads(result.stdout)["results"][0]["order"]) == list(range(8))
