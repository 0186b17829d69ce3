"""Original TimeSformer and released DirecFormer files: sizes from shapes, heads from the config or
the caller."""

from __future__ import annotations

import pytest
import torch

from marey.checkpoints.timesformer import load_released
from marey.errors import UserError
from marey.models import create_model

TINY = {
    "num_classes": 5,
    "num_frames": 3,
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 2.0,
}
CONFIG = """
MODEL: {MODEL_NAME: vit_base_patch16_224, NUM_CLASSES: 5, DROPOUT_RATE: 0.5}
DATA: {NUM_FRAMES: 3, SAMPLING_RATE: 32, TARGET_FPS: 30,
       MEAN: [0.45, 0.45, 0.45], STD: [0.225, 0.225, 0.225]}
TIMESFORMER: {ATTENTION_TYPE: divided_space_time, NUM_HEADS: 3}
TRAIN: {DATASET: kinetics}
"""


def strong(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.25, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return model.eval()


def clip() -> torch.Tensor:
    return torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("container", ["model_state", "state_dict", "model", None])
@pytest.mark.parametrize("attention", ["divided", "joint"])
def test_every_container_and_prefix_gives_the_logits(tmp_path, container, attention):
    model = strong(create_model("timesformer", **TINY, attention=attention))
    prefix = {"model_state": "model.", "state_dict": "module.", "model": "module.model.", None: ""}[
        container
    ]
    state = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save(
        {container: state, "epoch": 3, "cfg": CONFIG} if container else state, tmp_path / "x.pyth"
    )
    checkpoint = load_released(tmp_path / "x.pyth", num_heads=None if container else 3)
    assert {key: checkpoint.arguments[key] for key in TINY} == TINY
    assert checkpoint.arguments["attention"] == attention
    torch.testing.assert_close(
        checkpoint.model(clip())["logits"], model(clip())["logits"], atol=1e-5, rtol=0
    )
    assert (model(clip().flip(1))["logits"] - model(clip())["logits"]).abs().max() > 0.05
    assert checkpoint.preprocess.mean == (0.45, 0.45, 0.45)
    assert checkpoint.preprocess.image_size == 32
    assert checkpoint.preprocess.sampling.spacing == "linspace"  # as the released code decodes


def test_a_released_direcformer_gives_both_heads(tmp_path):
    model = strong(
        create_model(
            "direcformer",
            **TINY,
            num_orders=7,
            space_attention="softmax",
            cls_in_time=False,
            shared_norm=True,
        )
    )
    state = {"model." + name: value for name, value in model.state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "x.pyth")
    checkpoint = load_released(tmp_path / "x.pyth", directed=True, num_heads=3)
    for key in ("logits", "order_logits"):
        torch.testing.assert_close(
            checkpoint.model(clip())[key], model(clip())[key], atol=1e-5, rtol=0
        )
    with pytest.raises(UserError, match="has an order head .* --from direcformer"):
        load_released(tmp_path / "x.pyth", num_heads=3)


def test_heads_are_never_guessed(tmp_path):
    torch.save(create_model("timesformer", **TINY).state_dict(), tmp_path / "x.pyth")
    with pytest.raises(
        UserError, match=r"the number of heads is in no tensor's shape .* --num-heads 12"
    ):
        load_released(tmp_path / "x.pyth")


def test_something_something_is_sampled_by_segments_and_stays_bgr(tmp_path):
    content = {
        "model_state": create_model("timesformer", **TINY).state_dict(),
        "cfg": CONFIG.replace("kinetics", "ssv2"),
    }
    torch.save(content, tmp_path / "x.pyth")
    preprocess = load_released(tmp_path / "x.pyth").preprocess
    assert (preprocess.sampling.kind, preprocess.channel_order) == ("segments", "bgr")


def test_files_that_are_something_else(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pyth")
    with pytest.raises(UserError, match="not a TimeSformer: 'cls_token' is missing"):
        load_released(tmp_path / "other.pyth", num_heads=1)
    state = create_model("timesformer", **TINY).state_dict()
    del state["blocks.1.temporal_fc.bias"]
    torch.save(state | {"surprise": torch.zeros(1)}, tmp_path / "part.pyth")
    with pytest.raises(
        UserError, match=r"1 missing \(blocks.1.temporal_fc.bias\), 1 unexpected \(surprise\)"
    ):
        load_released(tmp_path / "part.pyth", num_heads=3)
    (tmp_path / "noise.pyth").write_bytes(b"noise" * 100)
    with pytest.raises(UserError, match="noise.pyth: not readable as weights only"):
        load_released(tmp_path / "noise.pyth")
    with pytest.raises(UserError, match=r"absent.pyth: no such file"):
        load_released(tmp_path / "absent.pyth")


class Hostile:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_code_in_a_file_is_never_run(tmp_path, capsys):
    torch.save(
        {"model_state": create_model("timesformer", **TINY).state_dict(), "x": Hostile()},
        tmp_path / "x.pyth",
    )
    with pytest.raises(UserError, match="holds Python objects, which are never run"):
        load_released(tmp_path / "x.pyth", num_heads=3)
    assert "must never run" not in capsys.readouterr().out
