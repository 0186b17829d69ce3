"""Settings: types are checked, unknown keys name the nearest, JSON round trips."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from marey.errors import UserError
from marey.recipes.direcformer import direcformer_jester
from marey.training.config import OptimConfig, RunConfig, TrainConfig, override
from marey.training.data_config import DataConfig
from marey.transforms.augment import Augment
from marey.transforms.preprocess import Preprocess


def test_an_assignment_changes_one_value_and_keeps_its_type() -> None:
    config = override(
        TrainConfig(),
        [
            "optim.lr=1",
            "train.average=ema",
            'model.freeze=["a","b"]',
            "model.arguments.depth=3",
            "objective.weights.order=0.5",
            "data.path=../x",
        ],
    )
    assert config.optim.lr == 1.0
    assert isinstance(config.optim.lr, float)
    assert config.train.average == "ema"
    assert config.model.freeze == ("a", "b")
    assert config.model.arguments == {"depth": 3}
    assert config.objective.weights == {"class": 1.0, "order": 0.5}
    assert config.data.path == "../x"


def test_null_and_a_single_value_for_a_list_are_understood() -> None:
    config = override(
        TrainConfig(), ["optim.lr=null", "model.freeze=patch_embed", "optim.milestones=3"]
    )
    assert config.optim.lr is None
    assert config.model.freeze == ("patch_embed",)
    assert config.optim.milestones == (3.0,)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.learning_rate=1", "unknown setting of 'optim': 'learning_rate'; did you mean"),
        ("optim.lrr=1", "did you mean 'lr'"),
        ("optimm.lr=1", "unknown setting 'optimm'; did you mean 'optim'"),
        (
            "data.preprocess.sampling.num_framez=3",
            "unknown setting of 'data.preprocess.sampling': 'num_framez'; "
            "did you mean 'num_frames'",
        ),
        ("optim.lr=fast", "optim.lr should be a valid number, got 'fast'"),
        ("train.batch_size=2.5", "train.batch_size should be a valid integer, got 2.5"),
        ("train.balanced_sampler=1", "train.balanced_sampler should be a valid boolean, got 1"),
        ("train.average=mean", "train.average should be 'none', 'ema' or 'swa', got 'mean'"),
        ("optim.lr", "--set takes key=value, got 'optim.lr'"),
        ("optim.lr.x=1", "optim.lr should be a valid number, got {'x': 1}"),
        ("optim.gamma.x=1", "optim.gamma is a single value, it has no 'x'"),
        ("model.activation_checkpointing=some", "should be False, True or 'cheap', got 'some'"),
        ("optim.lr=-1", "optim.lr should be greater than 0, got -1"),
        ("train.epochs=0", "train.epochs should be greater than 0, got 0"),
        (
            "objective.classification.label_smoothing=2",
            "objective.classification.label_smoothing should be less than or equal to 1, got 2",
        ),
        ("optim.schedule=step", "optim.schedule=step needs optim.milestones"),
        ("train.accumulate=3", "train.batch_size=16 does not divide into train.accumulate=3"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_expected(assignment: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        override(TrainConfig(), [assignment])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_that_fit_only_together_can_change_together() -> None:
    config = override(
        TrainConfig(), ["data.preprocess.image_size=320", "data.preprocess.short_side=320"]
    )
    assert config.data.preprocess is not None
    assert (config.data.preprocess.image_size, config.data.preprocess.short_side) == (320, 320)


def test_construction_checks_types_and_ranges() -> None:
    with pytest.raises(ValidationError, match=r"lr\n  Input should be a valid number"):
        OptimConfig(lr="fast")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"patience\n  Input should be greater than 0"):
        RunConfig(patience=0)
    with pytest.raises(ValidationError, match="epoch\n  Unexpected keyword argument"):
        RunConfig(epoch=3)  # type: ignore[call-arg]


def test_the_json_form_round_trips() -> None:
    preprocess = Preprocess(image_size=64, short_side=72)
    config = TrainConfig(
        data=DataConfig(preprocess=preprocess), augment=Augment(flip_pairs={0: 1, 1: 0})
    )
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_augmentation_ends_in_the_preprocessing_of_the_data() -> None:
    preprocess = Preprocess(image_size=64, short_side=72)
    config = TrainConfig(data=DataConfig(preprocess=preprocess), augment=Augment())
    assert config.augment is not None
    assert config.augment.preprocess == preprocess


def test_an_unknown_key_in_a_saved_configuration_is_an_error() -> None:
    with pytest.raises(
        UserError, match=r"unknown setting of 'train': 'epoch'; did you mean 'epochs'"
    ):
        TrainConfig.from_dict({"train": {"epoch": 3}})


def test_a_configuration_of_an_older_version_is_migrated_with_one_notice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "marey.training.migrate.GONE", {"train.passes": "train.epochs", "optim.lambda": None}
    )
    with pytest.warns(UserWarning, match="older version") as caught:
        config = TrainConfig.from_dict({"train": {"passes": 3}, "optim": {"lambda": 2, "lr": 0.5}})
    assert [str(warning.message) for warning in caught] == [
        "configuration of an older version: train.passes is now train.epochs, optim.lambda is "
        "left out"
    ]
    assert config == TrainConfig(train=RunConfig(epochs=3), optim=OptimConfig(lr=0.5))
    with pytest.raises(UserError, match="unknown setting of 'optim': 'lambda'"):
        override(TrainConfig(), ["optim.lambda=2"])


def test_the_rate_in_force_is_the_optimisers_own_where_none_is_given() -> None:
    assert OptimConfig(name="sgd").peak_lr == 0.005
    assert OptimConfig(name="adam").peak_lr == 1e-4
    assert OptimConfig(lr=0.5).peak_lr == 0.5


def test_a_smaller_clip_and_its_augmentation_change_together():
    small = override(
        direcformer_jester(),
        ["data.preprocess.image_size=32", "augment.short_side_range=[32,40]"],
    )
    assert small.augment.preprocess.image_size == 32
    with pytest.raises(UserError, match="short_side_range starts at 32, below the crop of 224"):
        override(direcformer_jester(), ["augment.short_side_range=[32,40]"])
