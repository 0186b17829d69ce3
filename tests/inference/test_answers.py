"""The one pass over videos: what is answered, kept, and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from marey.checkpoints.load import load_checkpoint
from marey.datasets import open_dataset
from marey.errors import UserError
from marey.inference.answers import (
    AnswerOptions,
    Answers,
    answer_clips,
    answer_shuffled,
    answer_videos,
)
from marey.models.outputs import outputs_of


class Weights(nn.Module):
    """Logits that depend on the order: frame t counts t + 1 times; the embedding is the mean of
    each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, clip: Tensor) -> dict[str, Tensor | None]:
        self.batches.append(len(clip))
        light = clip.mean((2, 3, 4))
        total = (light * torch.arange(1, clip.shape[1] + 1)).sum(1)
        return {
            "logits": torch.stack([total, -total], 1),
            "embedding": light,
            "label_embedding": None,
        }


def items(num_videos: int, views: int = 2, T: int = 3) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "views": torch.rand(views, T, 3, 4, 4, generator=generator),
            "video": f"{n}.mp4",
            "label": "up",
            "group": f"g{n}",
        }
        for n in range(num_videos)
    ]


def test_every_view_is_answered_as_if_it_stood_alone() -> None:
    given = items(5)
    answers = answer_clips(Weights(), given, AnswerOptions(batch_size=4))
    assert answers.logits.shape == (5, 2, 2)
    assert answers.embedding is not None
    assert answers.embedding.shape == (5, 2, 3)
    assert answers.label_embedding is None
    alone = torch.stack([Weights()(item["views"])["logits"] for item in given])  # type: ignore[arg-type]
    torch.testing.assert_close(answers.logits, alone)
    assert (answers.videos[3], answers.labels[3], answers.groups[3]) == ("3.mp4", "up", "g3")


def test_no_forward_pass_is_larger_than_the_batch() -> None:
    model = Weights()
    answer_clips(model, items(5, views=3), AnswerOptions(batch_size=4))
    assert max(model.batches) == 4


def test_unreadable_videos_are_named_and_the_others_keep_their_places() -> None:
    given = items(4)
    given[1] = {"error": "1.mp4: cannot be read", "video": "1.mp4"}
    ticks: list[tuple[int, int]] = []
    answers = answer_clips(
        Weights(), given, AnswerOptions(), tick=lambda *done: ticks.append(done), total=4
    )
    assert answers.videos == ["0.mp4", "2.mp4", "3.mp4"]
    assert answers.unreadable == [{"video": "1.mp4", "error": "1.mp4: cannot be read"}]
    torch.testing.assert_close(answers.logits[1], Weights()(given[2]["views"])["logits"])
    assert ticks == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_stored_answers_are_read_back_equal(tmp_path: Path) -> None:
    answers = answer_clips(
        Weights(), items(3), AnswerOptions(shuffles=2, seed=7), class_names=("up", "down")
    )
    answers.save(tmp_path / "answers")
    again = Answers.load(tmp_path / "answers")
    assert again.outputs.keys() == answers.outputs.keys()
    assert all(torch.equal(again.outputs[name], value) for name, value in answers.outputs.items())
    assert (again.videos, again.class_names, again.options["seed"]) == (
        answers.videos,
        ["up", "down"],
        7,
    )


def test_damaged_or_mixed_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no stored answers that can be read"):
        Answers.load(tmp_path)
    for count in (3, 2):
        answer_clips(Weights(), items(count), AnswerOptions()).save(tmp_path / str(count))
    (tmp_path / "2" / "answers.json").write_bytes((tmp_path / "3" / "answers.json").read_bytes())
    with pytest.raises(UserError, match="are not of one pass"):
        Answers.load(tmp_path / "2")
    (tmp_path / "3" / "answers.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="no stored answers that can be read"):
        Answers.load(tmp_path / "3")


def test_shuffled_clips_are_the_frames_in_the_order_that_is_stored() -> None:
    given = items(2, views=1)
    answers = answer_clips(Weights(), given, AnswerOptions(shuffles=3))
    for n, item in enumerate(given):
        for s, order in enumerate(answers.outputs["order"][n]):
            wanted = Weights()(item["views"][:, order])["logits"]
            torch.testing.assert_close(answers.outputs["shuffled_logits"][n, s][None], wanted)
    assert "corrected_logits" not in answers.outputs


def test_recordings_played_backwards_are_turned_round_before_they_are_shuffled() -> None:
    given = items(2, views=1)
    turned = answer_clips(Weights(), given, AnswerOptions(shuffles=2, backwards=("up",)))
    flipped = [{**item, "views": item["views"].flip(1)} for item in given]
    plain = answer_clips(Weights(), flipped, AnswerOptions(shuffles=2))
    torch.testing.assert_close(turned.outputs["shuffled_logits"], plain.outputs["shuffled_logits"])
    torch.testing.assert_close(
        turned.logits, answer_clips(Weights(), given, AnswerOptions()).logits
    )


def test_paths_of_another_model_put_the_frames_back() -> None:
    clips = torch.stack([item["views"][0] for item in items(2, views=1)])
    orders = torch.tensor([[[2, 0, 1]], [[1, 2, 0]]])
    found = answer_shuffled(Weights(), clips, orders, corrected=True, paths=orders.argsort(-1))
    torch.testing.assert_close(found["corrected_logits"][:, 0], Weights()(clips)["logits"])


def test_the_readable_videos_of_a_data_set_are_answered(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path
) -> None:
    for label in ("bright", "dark"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.mp4").write_bytes(day_and_night.read_bytes())
    (tmp_path / "dark" / "b.mp4").write_bytes(b"no video")
    checkpoint = load_checkpoint(tiny_checkpoint)
    answers = answer_videos(checkpoint, open_dataset(tmp_path), AnswerOptions(views=(2, 3)))
    assert answers.videos == ["bright/a.mp4", "dark/a.mp4"]
    assert answers.logits.shape[:2] == (2, 6)
    assert [entry["video"] for entry in answers.unreadable] == ["dark/b.mp4"]
    (tmp_path / "dark" / "a.mp4").write_bytes(b"no")
    (tmp_path / "bright" / "a.mp4").write_bytes(b"no")
    with pytest.raises(UserError, match="none of its 3 videos can be read"):
        answer_videos(checkpoint, open_dataset(tmp_path))


def test_outputs_without_a_row_per_clip_are_left_out() -> None:
    class Lists(nn.Module):
        def forward(self, clip: Tensor) -> dict:
            return {"logits": clip.mean((1, 2, 3)), "attention_time": [clip], "embedding": None}

    found = outputs_of(Lists(), torch.rand(5, 2, 3, 4, 4, dtype=torch.float64), batch_size=2)
    assert list(found) == ["logits"]
    assert (found["logits"].shape[0], found["logits"].dtype) == (5, torch.float32)
