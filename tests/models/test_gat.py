from __future__ import annotations

import json

import pytest
import torch

from marey.errors import UserError
from marey.models import create_model
from marey.models.gat import GAT, masked_mean, sinusoidal_positions

SMALL = {
    "num_classes": 5,
    "features": {"rgb": 16, "audio": 8},
    "windows": [None, 4],
    "num_heads": 2,
    "hidden_dim": 12,
}


def model(**changes):
    torch.manual_seed(0)
    return create_model("gat", **{**SMALL, **changes}).eval()


def batch(frames=9, videos=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "rgb": torch.randn(videos, frames, 16, generator=generator),
        "audio": torch.randn(videos, frames, 8, generator=generator),
    }


def test_the_defaults_are_the_papers_sizes():
    net = GAT(num_classes=431)
    assert net.arguments["features"] == {"rgb": 1024, "audio": 128}
    assert net.arguments["windows"] == [None, 20]
    assert net.encoders["rgb"].layers[0].attention.num_heads == 8
    assert len(net.encoders["rgb"].layers) == 1


def test_arguments_rebuild_the_model():
    net = model()
    again = create_model("gat", **json.loads(json.dumps(net.arguments)))
    again.load_state_dict(net.state_dict())
    assert torch.equal(net(batch())["logits"], again.eval()(batch())["logits"])


def test_outputs_have_the_documented_shapes():
    outputs = model()(batch(), return_attention=True)
    assert outputs["logits"].shape == (3, 5)
    assert outputs["embedding"].shape == (3, 12)
    assert outputs["attention"]["rgb"][0]["global_map"].shape == (3, 2, 9, 9)
    assert outputs["attention"]["audio"][0]["local_maps"][4].shape == (3, 2, 3, 4, 4)
    assert "attention" not in model()(batch())


@pytest.mark.parametrize("windows", [[None], [None, 4], [None, 4, 3]])
def test_padding_never_changes_the_logits(windows):
    net, features = model(windows=windows), batch()
    plain = net(features)["logits"]
    padded = {
        name: torch.cat([x, torch.full((3, 6, x.shape[2]), float("inf"))], 1)
        for name, x in features.items()
    }
    mask = (torch.arange(15) < 9).expand(3, 15)
    assert torch.allclose(net(padded, mask)["logits"], plain, atol=1e-5)


def test_a_video_without_frames_gives_finite_logits_and_gradients():
    net, features = model().train(), batch()
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1] = False
    net(features, mask)["logits"].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_the_order_of_frames_matters_and_that_of_videos_does_not():
    net, features = model(), batch()
    plain = net(features)["logits"]
    assert not torch.allclose(
        net({name: x.flip(1) for name, x in features.items()})["logits"], plain, atol=1e-3
    )
    assert torch.allclose(
        net({name: x.flip(0) for name, x in features.items()})["logits"].flip(0), plain, atol=1e-6
    )


@pytest.mark.parametrize("name", ["rgb", "audio"])
def test_one_modality_alone_works(name):
    net = model(features={name: SMALL["features"][name]})
    assert net(batch())["logits"].shape == (3, 5)


def test_a_narrower_encoder_projects_its_features():
    net = model(dim={"rgb": 4})
    assert net.encoders["rgb"].projection.weight.shape == (4, 16)
    assert net(batch())["logits"].shape == (3, 5)


@pytest.mark.parametrize(
    "options",
    [
        {"position": "learned"},
        {"position": "none"},
        {"depth": 2},
        {"gating": "tree", "windows": [None, 8, 4]},
    ],
)
def test_options_build_and_predict(options):
    assert torch.isfinite(model(**options)(batch())["logits"]).all()


def test_the_position_encoding_is_vaswanis():
    table = sinusoidal_positions(4, 6)
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    assert table[3, 2] == pytest.approx(
        torch.sin(torch.tensor(3 / 10000 ** (2 / 6))).item(), abs=1e-6
    )


def test_the_masked_mean_ignores_padding():
    tokens = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert masked_mean(tokens, torch.tensor([[True, True, False]])).item() == 2


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"rgb": torch.zeros(1, 4, 16)}, "reads rgb, audio, but audio is not given"),
        (
            {"rgb": torch.zeros(1, 4, 15), "audio": torch.zeros(1, 4, 8)},
            r"'rgb' has shape \(1, 4, 15\), expected",
        ),
        (
            {"rgb": torch.zeros(1, 301, 16), "audio": torch.zeros(1, 301, 8)},
            "301 seconds, but this model reads 300",
        ),
    ],
)
def test_features_that_do_not_fit_are_named(features, message):
    with pytest.raises(UserError, match=message):
        model()(features)


def test_post_norm_leaves_tokens_normalised():
    net = model()
    tokens, _ = net.encoders["rgb"].layers[0](batch()["rgb"], None, False)
    assert tokens.mean(-1).abs().max() < 1e-5
    assert tokens.std(-1, unbiased=False).sub(1).abs().max() < 1e-2
