"""Each alarm fires on a model built to hide its gradients, and is silent on a plain one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from marey.attacks.masking import alarms_of, masking_evidence, reliability
from marey.attacks.pixel_model import PixelModel

EPS = 6 / 255


class Stripes(nn.Module):
    """Three classes: how far the clip's frames resemble one of three fixed patterns."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("patterns", torch.randn(3, 3, 8, 8, generator=generator))

    def forward(self, clip: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", clip.mean(1), self.patterns) / 2


class Scaled(Stripes):
    """The same decisions with logits so large that the softmax saturates."""

    def forward(self, clip: Tensor) -> Tensor:
        return 5000 * super().forward(clip)


class Shattered(Stripes):
    """Rounds its input, which has no gradient; more and larger steps along nothing do not help."""

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(((clip * 40).round() / 40).detach() + 0 * clip)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return -gradient


class Misleading(Stripes):
    """Its gradient points the wrong way, so that steps lead away from the border."""

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(_Reversed.apply(clip))


class Rippled(Stripes):
    """Its gradient is right on the clean clips, whose values are multiples of eight grey levels,
    and points the wrong way elsewhere: only the first step from a clean clip helps."""

    def forward(self, clip: Tensor) -> Tensor:
        eighths = (clip.detach() * 0.25 + 0.5) * 255 / 8
        slope = torch.where((eighths - eighths.round()).abs() < 0.01, 1.0, -1.0)
        return super().forward(clip.detach() + slope * (clip - clip.detach()))


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """Grey clips with a faint pattern, on values that are multiples of eight grey levels."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randint(-3, 4, (24, 2, 3, 8, 8), generator=generator) * 8
    return (noise + 128).to(torch.uint8)


def fired(model: nn.Module, clips: Tensor, **options: object) -> dict[str, bool]:
    pixels = PixelModel(model, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    with torch.no_grad():
        labels = pixels(clips.float() / 255).argmax(1)
    evidence = masking_evidence(pixels, clips, labels, eps=EPS, max_queries=60, **options)
    return {alarm.name: alarm.fired for alarm in alarms_of(evidence)}


def test_a_plain_model_sets_off_no_alarm(clips: Tensor) -> None:
    assert not any(fired(Stripes(), clips).values())


def test_scaled_logits_set_off_the_scale_alarm(clips: Tensor) -> None:
    found = fired(Scaled(), clips)
    assert found["logit scale"]
    assert found["no gradient"]


def test_rounded_inputs_set_off_the_alarms_of_gradients_that_say_nothing(clips: Tensor) -> None:
    found = fired(Shattered(), clips)
    assert found["no gradient"]
    assert found["black box beats white box"]
    assert found["a larger budget does not help"]


def test_a_reversed_gradient_loses_against_random_noise(clips: Tensor) -> None:
    found = fired(Misleading(), clips)
    assert found["random beats gradient"]
    assert found["black box beats white box"]
    assert not found["logit scale"]


def test_a_gradient_that_turns_after_the_first_step_sets_off_the_alarm_of_steps(
    clips: Tensor,
) -> None:
    assert fired(Rippled(), clips)["more steps do not help"]


def test_alarms_by_hand() -> None:
    right = torch.ones(20, dtype=torch.bool)
    none = torch.zeros(20, dtype=torch.bool)
    two = none.clone()
    two[:2] = True
    names = ("no_gradient", "fgsm", "pgd", "long_pgd", "square", "random", "rescaled_pgd")
    evidence = {"right": right, "large_pgd": right, **dict.fromkeys(names, none)}
    assert reliability(alarms_of(evidence))["reliable"]

    found = reliability(alarms_of({**evidence, "random": two}))
    assert not found["reliable"]
    (alarm,) = [entry for entry in found["alarms"] if entry["fired"]]
    assert alarm["name"] == "random beats gradient"
    assert (alarm["clips"], alarm["weaker"], alarm["stronger"]) == (20, 0.1, 0.0)

    # One clip of twenty is chance.
    one = none.clone()
    one[0] = True
    assert reliability(alarms_of({**evidence, "random": one}))["reliable"]
    # Clips that were wrong before the attack say nothing.
    assert reliability(alarms_of({**evidence, "random": two, "right": ~two}))["reliable"]
