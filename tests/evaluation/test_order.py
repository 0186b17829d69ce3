from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from marey.errors import UserError
from marey.evaluation.order import (
    describe_order_accuracy,
    describe_reliance,
    measure_order,
    measure_reliance,
    recovered_paths,
)
from marey.inference.answers import AnswerOptions, answer_clips
from marey.losses.order import order_signs
from marey.metrics.order import chance_order_accuracy
from marey.models import create_model


class Direction(nn.Module):
    """Class 0 where the second frame is brighter than the first, else 1; attention is the truth if
    `knows`."""

    def __init__(self, knows):
        super().__init__()
        self.knows = knows

    def forward(self, clip, return_attention=False):
        light = clip.mean(dim=(2, 3, 4))
        rising = (light[:, 1] > light[:, 0]).float()
        answer = {"logits": torch.stack([rising, 1 - rising], dim=1)}
        if return_attention and self.knows:
            answer["attention_time"] = [order_signs(light.argsort(1).argsort(1))[:, None, None]]
        return answer


class Sum(nn.Module):
    """Looks at the frames without their order."""

    def forward(self, clip):
        total = clip.sum(dim=(1, 2, 3, 4))
        return {"logits": torch.stack([total - 60, 60 - total], dim=1)}


def brightening(num_clips, T=5):
    """Clips (B, T, 3, 2, 2) whose frames grow brighter."""
    return (
        torch.arange(num_clips * T).view(num_clips, T, 1, 1, 1) + torch.zeros(1, 1, 3, 2, 2)
    ).float()


def answers_of(model, clips, *, label="rising", paths=None, **options):
    options = AnswerOptions(**{"shuffles": 8, "corrected": True, **options})
    items = ({"views": clip[None], "label": label} for clip in clips)
    return answer_clips(model, items, options, class_names=("rising", "falling"), paths=paths)


def order_accuracy_of(model, clips, **options):
    return measure_order(answers_of(model, clips, shuffles=4, **options))


def tiny_model():
    torch.manual_seed(0)
    model = create_model(
        "direcformer",
        num_classes=3,
        num_orders=5,
        num_frames=4,
        image_size=16,
        patch_size=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
    ).eval()
    for parameter in model.parameters():  # strong weights: nothing is near zero
        nn.init.normal_(parameter, std=0.5)
    return model


def test_order_accuracy_is_one_for_a_model_that_knows_the_time_and_near_chance_for_random_weights():
    result = order_accuracy_of(Direction(knows=True), brightening(5))
    assert (result["order_accuracy"], result["clips"], result["shuffles"]) == (1.0, 5, 4)
    clips = torch.rand(60, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    result = order_accuracy_of(tiny_model(), clips)
    assert result["interval"][0] - 0.03 < chance_order_accuracy(4) < result["interval"][1] + 0.03
    assert "against 66.67% by chance" in describe_order_accuracy({**result, "chance": 2 / 3})


def test_the_shuffles_do_not_depend_on_the_batch_size():
    clips = torch.rand(6, 4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    model = tiny_model()
    assert order_accuracy_of(model, clips) == order_accuracy_of(model, clips, batch_size=2)


def test_few_clips_are_called_a_rough_number():
    result = order_accuracy_of(Direction(knows=True), brightening(3))
    assert "fewer than 50 clips: a rough number" in describe_order_accuracy(result)


def test_both_methods_are_read_from_the_same_answers():
    answers = answers_of(
        tiny_model(), torch.rand(8, 4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    )
    weights = answers.outputs["order_weights"]
    net = (weights.sum(-1) - weights.sum(-2)).argsort(-1, descending=True)
    assert torch.equal(recovered_paths(answers, "sort"), net)
    assert measure_order(answers)["method"] == "path"
    with pytest.raises(
        UserError, match="unknown method of order correction 'sorted'; did you mean 'sort'"
    ):
        measure_order(answers, method="sorted")


def test_the_untrained_baseline_and_the_direction_stand_beside_the_order_accuracy():
    result = order_accuracy_of(Direction(knows=True), brightening(6))
    assert result["direction_right"] == 1.0
    assert result["up_to_direction"] == 1.0
    # brightening frames are neighbours where they look alike; the coin decides the direction
    T = brightening(1).shape[1]
    assert result["appearance"]["up_to_direction"] == 1.0
    assert result["appearance"]["order_accuracy"] == pytest.approx((1 + 1 / T) / 2)
    assert "by appearance alone, untrained" in describe_order_accuracy(result)


def test_neighbours_by_appearance_are_read_from_the_same_answers():
    clips = brightening(4)
    answers = answers_of(Direction(knows=True), clips, shuffles=2)
    paths = recovered_paths(answers, "oriented")
    assert torch.equal(paths, answers.outputs["order"].argsort(-1))
    del answers.outputs["frame_distances"]
    with pytest.raises(UserError, match="answer the clips again"):
        recovered_paths(answers, "oriented")
    assert measure_order(answers)["appearance"] is None


def test_clips_with_repeated_frames_are_left_out_and_counted():
    clips = brightening(2)
    clips[0, 4] = clips[0, 1]
    result = order_accuracy_of(Direction(knows=True), clips)
    assert (result["clips"], result["left_out"]) == (1, 1)
    with pytest.raises(
        UserError, match=r"no clip to measure the order on \(1 left out for repeated frames\)"
    ):
        order_accuracy_of(Direction(knows=True), clips[:1])


def test_a_model_without_temporal_attention_recovers_no_order():
    with pytest.raises(UserError, match="gives no temporal attention"):
        order_accuracy_of(Sum(), brightening(2))


def test_a_model_that_uses_the_order_loses_by_shuffling_and_gains_by_correction():
    found = measure_reliance(answers_of(Direction(knows=True), brightening(8)))
    assert found["ordered_accuracy"] == 1.0
    assert 0.3 < found["shuffled_accuracy"] < 0.7
    assert found["corrected_accuracy"] == 1.0
    assert found["order_reliance"] == pytest.approx(1.0 - found["shuffled_accuracy"])
    low, high = found["order_reliance_interval"]
    assert low < found["order_reliance"] < high


def test_a_model_without_attention_is_corrected_by_another_on_its_own_pixels():
    clips = brightening(8)
    found = measure_reliance(answers_of(Direction(knows=False), clips))
    assert (found["corrected_accuracy"], found["corrected_agreement"]) == (None, None)
    paths = recovered_paths(
        answers_of(Direction(knows=True), -clips)
    )  # it sees other pixels: the order reversed
    found = measure_reliance(answers_of(Direction(knows=False), clips, paths=paths))
    assert found["corrected_accuracy"] == 0.0


def test_a_model_that_ignores_the_order_has_reliance_zero():
    found = measure_reliance(answers_of(Sum(), brightening(8)))
    assert (found["order_reliance"], found["agreement"]) == (0.0, 1.0)


def test_clips_without_a_label_of_the_model_count_for_the_agreement_only():
    found = measure_reliance(answers_of(Sum(), brightening(8), label=None))
    assert found["ordered_accuracy"] is None
    assert found["order_reliance"] is None
    assert (found["agreement"], found["clips"], found["labelled"]) == (1.0, 8, 0)
    assert "order reliance -; same answer after shuffling 100.0%" in describe_reliance(found)


def test_no_clip_is_an_error():
    answers = replace(answers_of(Sum(), brightening(1)), videos=[])
    with pytest.raises(UserError, match="no clip to measure order reliance on"):
        measure_reliance(answers)


@pytest.mark.parametrize("library", ["torchvision", "transformers"])
def test_models_of_other_libraries_are_measured_and_corrected_by_ours(library):
    from marey.models.external import ExternalClassifier

    if library == "torchvision":
        model = ExternalClassifier(
            "torchvision", {"name": "r3d_18"}, num_classes=2, num_frames=4, image_size=16
        ).eval()
    else:
        pytest.importorskip("transformers")
        config = {
            "model_type": "timesformer",
            "image_size": 16,
            "patch_size": 8,
            "num_frames": 4,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "num_channels": 3,
        }
        model = ExternalClassifier("transformers", config, num_classes=2).eval()
    corrector = create_model(
        "direcformer",
        num_classes=3,
        num_orders=3,
        num_frames=4,
        image_size=16,
        patch_size=8,
        embed_dim=16,
        depth=1,
        num_heads=2,
    ).eval()
    clips = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    alone = measure_reliance(answers_of(model, clips, shuffles=2))
    assert alone["corrected_accuracy"] is None
    paths = recovered_paths(answers_of(corrector, clips, shuffles=2))
    helped = measure_reliance(answers_of(model, clips, shuffles=2, paths=paths))
    assert helped["corrected_accuracy"] is not None
    assert helped["shuffled_accuracy"] == alone["shuffled_accuracy"]
