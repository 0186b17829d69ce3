from __future__ import annotations

import math

import pytest
import torch

from marey.errors import UserError
from marey.losses.attention_regularisation import (
    attention_regularisation,
    frobenius_distance,
    jensen_shannon_distance,
)


def distributions(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def outputs(seed, frames=6, layers=1):
    return {
        "attention": {
            name: [
                {
                    "global_map": distributions(2, 3, frames, frames, seed=seed + n + 10 * layer),
                    "local_maps": {
                        4: distributions(2, 3, 2, 4, 4, seed=seed + n + 50 + 10 * layer)
                    },
                }
                for layer in range(layers)
            ]
            for n, name in enumerate(("rgb", "audio"))
        }
    }


def test_frobenius_is_the_mean_norm_over_videos():
    a, b = distributions(2, 3, 3), distributions(2, 3, 3, seed=1)
    expected = sum(math.sqrt(((a[i] - b[i]) ** 2).sum().item()) for i in range(2)) / 2
    assert frobenius_distance(a, b).item() == pytest.approx(expected, abs=1e-6)


def test_js_is_symmetric_and_worked_by_hand():
    one, other = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    assert jensen_shannon_distance(one, other).item() == pytest.approx(math.log(2))
    half = torch.tensor([[[0.5, 0.5]]])
    by_hand = 0.5 * math.log(1 / 0.75) + 0.5 * (
        0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    )
    assert jensen_shannon_distance(one, half).item() == pytest.approx(by_hand)
    assert jensen_shannon_distance(half, one).item() == pytest.approx(by_hand)


def test_js_averages_over_real_rows_only():
    a, b = distributions(2, 4, 4), distributions(2, 4, 4, seed=1)
    rows = torch.tensor([[True, True, False, False], [True, True, True, True]])
    expected = (
        jensen_shannon_distance(a[:1, :2], b[:1, :2]) + jensen_shannon_distance(a[1:], b[1:])
    ) / 2
    assert jensen_shannon_distance(a, b, rows).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("distance", [frobenius_distance, jensen_shannon_distance])
def test_equal_maps_have_distance_zero_and_a_finite_gradient(distance):
    maps = torch.eye(3).expand(2, 3, 3).clone().requires_grad_()
    value = distance(maps, maps.detach())
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-7)
    assert torch.isfinite(maps.grad).all()


def test_modalities_and_layers_are_summed_and_layers_weighed():
    clean, moved = outputs(0, layers=2), outputs(5, layers=2)

    def one(name, layer):
        a, b = (side["attention"][name][layer]["global_map"].mean(1) for side in (clean, moved))
        return frobenius_distance(a, b).item()

    found = attention_regularisation(clean, moved, layer_weights=[1.0, 0.5]).item()
    assert found == pytest.approx(
        one("rgb", 0) + one("audio", 0) + 0.5 * (one("rgb", 1) + one("audio", 1)), abs=1e-5
    )


def test_local_maps_are_added_on_request():
    clean, moved = outputs(0), outputs(5)
    only = attention_regularisation(clean, moved)
    both = attention_regularisation(clean, moved, levels="global+local")
    local = sum(
        frobenius_distance(
            *(
                side["attention"][name][0]["local_maps"][4].mean(1).flatten(1, 2)
                for side in (clean, moved)
            )
        )
        for name in ("rgb", "audio")
    )
    assert both.item() == pytest.approx((only + local).item(), abs=1e-5)
    mask = torch.tensor([[True] * 5 + [False], [True] * 6])
    assert torch.isfinite(
        attention_regularisation(clean, moved, mask, kind="js", levels="global+local")
    )


def test_maps_of_clip_models_are_read_too():
    clean = {
        "attention_time": [distributions(2, 9, 3, 4, 4)],
        "attention_space": [distributions(2, 4, 3, 10, 10)],
    }
    moved = {
        "attention_time": [distributions(2, 9, 3, 4, 4, seed=1)],
        "attention_space": clean["attention_space"],
    }
    found = attention_regularisation(clean, moved)
    time = frobenius_distance(
        *(side["attention_time"][0].mean(2).flatten(0, 1) for side in (clean, moved))
    )
    assert found.item() == pytest.approx(time.item())


def test_signed_attention_has_no_js_distance():
    signed = {"attention_time": [torch.randn(1, 2, 2, 4, 4)]}
    with pytest.raises(UserError, match="choose attention='frobenius'"):
        attention_regularisation(signed, signed, kind="js")


def test_a_model_without_maps_is_refused():
    with pytest.raises(UserError, match="returns no attention maps"):
        attention_regularisation({}, {})
