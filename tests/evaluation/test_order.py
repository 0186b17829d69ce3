from __future__ import annotations

import pytest
import torch
from torch import nn

from marey.errors import UserError
from marey.evaluation.order import describe_reliance, order_reliance
from marey.losses.order import order_signs


class Direction(nn.Module):
    """Class 0 where the second frame is brighter than the first, else 1; attention is the truth if `knows`."""

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


def batches():
    clips = torch.arange(8 * 5).view(8, 5, 1, 1, 1).float() + torch.zeros(1, 1, 3, 2, 2)
    return [(part, torch.zeros(4, dtype=torch.int64)) for part in clips.split(4)]


def test_a_model_that_looks_at_the_order_loses_by_shuffling_and_gains_by_correction():
    found = order_reliance(Direction(knows=True), batches(), shuffles=8)
    assert found["ordered_accuracy"] == 1.0
    assert 0.3 < found["shuffled_accuracy"] < 0.7
    assert found["corrected_accuracy"] == 1.0
    assert found["order_reliance"] == pytest.approx(1.0 - found["shuffled_accuracy"])
    low, high = found["order_reliance_interval"]
    assert low < found["order_reliance"] < high


def test_a_model_without_attention_is_corrected_by_another_on_its_own_pixels():
    found = order_reliance(Direction(knows=False), batches(), shuffles=8)
    assert (found["corrected_accuracy"], found["corrected_agreement"]) == (None, None)
    inverted = (-clip for clip, _ in batches())                        # the corrector sees other pixels: reversed order
    found = order_reliance(Direction(knows=False), batches(), corrector=Direction(knows=True), corrector_clips=inverted)
    assert found["corrected_accuracy"] == 0.0
    with pytest.raises(UserError, match="gives no temporal attention"):
        order_reliance(Direction(knows=True), batches(), corrector=Sum())


def test_a_model_blind_to_the_order_has_reliance_zero():
    found = order_reliance(Sum(), batches())
    assert (found["order_reliance"], found["agreement"]) == (0.0, 1.0)


def test_clips_without_a_label_of_the_model_count_for_the_agreement_only():
    unlabelled = [(clips, labels - 1) for clips, labels in batches()]
    found = order_reliance(Sum(), unlabelled)
    assert found["ordered_accuracy"] is None
    assert found["order_reliance"] is None
    assert (found["agreement"], found["clips"], found["labelled"]) == (1.0, 8, 0)
    assert "order reliance -; same answer after shuffling 100.0%" in describe_reliance(found)


def test_no_clip_is_an_error():
    with pytest.raises(UserError, match="no clip to measure order reliance on"):
        order_reliance(Sum(), [])


@pytest.mark.parametrize("library", ["torchvision", "transformers"])
def test_models_of_other_libraries_are_measured_and_corrected_by_ours(library):
    from marey.models import create_model
    from marey.models.external import ExternalClassifier

    if library == "torchvision":
        model = ExternalClassifier("torchvision", {"name": "r3d_18"}, num_classes=2, num_frames=4, image_size=16).eval()
    else:
        pytest.importorskip("transformers")
        config = {"model_type": "timesformer", "image_size": 16, "patch_size": 8, "num_frames": 4, "hidden_size": 16,
                  "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "num_channels": 3}
        model = ExternalClassifier("transformers", config, num_classes=2).eval()
    corrector = create_model("direcformer", num_classes=3, num_orders=3, num_frames=4, image_size=16, patch_size=8,
                             embed_dim=16, depth=1, num_heads=2).eval()
    clips = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    alone = order_reliance(model, [(clips, torch.tensor([0, 1]))], shuffles=2)
    assert alone["corrected_accuracy"] is None
    helped = order_reliance(model, [(clips, torch.tensor([0, 1]))], shuffles=2, corrector=corrector)
    assert helped["corrected_accuracy"] is not None
    assert helped["shuffled_accuracy"] == alone["shuffled_accuracy"]
