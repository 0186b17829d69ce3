from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.io import write_jpeg

from marey.errors import UserError
from marey.recipes import get_recipe
from marey.training.config import override
from marey.training.loop import train
from marey.training.tasks import build_task, detection, scene_features

TINY = {
    "width": 0.125,
    "head": "tx",
    "query": "highres",
    "num_proposals": 8,
    "rpn_channels": 16,
    "dim": 16,
    "ffn": 32,
    "query_channels": 8,
    "location_channels": 8,
    "anchor_sizes": [8, 16],
    "samples_per_clip": 8,
    "roi_operator": "align",
}


@pytest.fixture
def scenes(tmp_path):
    """Six scenes of a bright box on black, split train and val, one of them empty."""
    root = tmp_path / "scenes"
    listing, rows = ["video,split,fps,key_frame,num_frames"], {"train": [], "val": []}
    for i in range(6):
        split, video = ("train" if i < 4 else "val"), f"s{i}"
        folder = root / "frames" / video
        folder.mkdir(parents=True)
        frame = torch.zeros(3, 32, 32, dtype=torch.uint8)
        if i != 3:
            frame[:, 8:24, 4 + 2 * i : 12 + 2 * i] = 255
            rows[split].append(
                f"{video},0902,{(4 + 2 * i) / 32},0.25,{(12 + 2 * i) / 32},0.75,{i % 2 + 1},0"
            )
        for t in range(8):
            write_jpeg(frame, str(folder / f"{video}_{t + 1:06d}.jpg"), quality=95)
        listing.append(f"{video},{split},4.0,4,8")
    (root / "scenes.csv").write_text("\n".join(listing) + "\n")
    (root / "ava_action_list.pbtxt").write_text(
        'item {\n  name: "a"\n  id: 1\n}\nitem {\n  name: "b"\n  id: 2\n}\n'
    )
    for split, lines in rows.items():
        (root / f"ava_{split}.csv").write_text("\n".join(lines) + "\n")
    return root


def config(scenes, *settings):
    recipe = get_recipe("action_transformer_mini")
    recipe = replace(
        recipe,
        model=replace(recipe.model, arguments=TINY),
        data=replace(recipe.data, path=str(scenes), feature_cache=None),
    )
    return override(
        recipe,
        [
            "data.preprocess.image_size=32",
            "train.batch_size=2",
            "train.max_steps=2",
            "train.tensorboard=false",
            *settings,
        ],
    )


@pytest.mark.parametrize("boxes", ["own", "truth"])
def test_the_mini_recipe_trains_evaluates_and_saves(scenes, tmp_path, boxes):
    result = train(
        config(scenes, f"objective.detection.boxes={boxes}"), tmp_path / "run", quiet=True
    )
    assert set(result.metrics) >= {
        "map",
        "localisation_50",
        "localisation_75",
        "persons_50",
        "persons_75",
    }
    if boxes == "truth":
        assert result.metrics["localisation_75"] == 1
    from marey.checkpoints.load import load_checkpoint

    checkpoint = load_checkpoint(tmp_path / "run" / "best")
    assert checkpoint.class_names == ["a", "b"]
    assert checkpoint.extra["data"]["class_counts"] == {"1": 2, "2": 1}


def test_a_detector_scored_on_its_training_videos_says_so(scenes, tmp_path):
    from marey.evaluation.classification import EvaluateOptions
    from marey.evaluation.evaluate import evaluate

    train(config(scenes, "objective.detection.boxes=truth"), tmp_path / "run", quiet=True)
    clean, _ = evaluate(tmp_path / "run", scenes, EvaluateOptions(split="val"))
    assert "seen_in_training" not in clean
    report, _ = evaluate(tmp_path / "run", scenes, EvaluateOptions(split="train"))
    assert "LEAKED: 4 of these 4 items" in report["seen_in_training"]["text"]
    assert "there are no others" in report["seen_in_training"]["text"]

    copied = (scenes / "ava_val.csv").read_text()
    one = (scenes / "ava_train.csv").read_text().splitlines()[0]
    (scenes / "ava_val.csv").write_text(f"{copied}{one}\n")
    report, _ = evaluate(tmp_path / "run", scenes, EvaluateOptions(split="val"))
    seen = report["seen_in_training"]
    assert seen["num_items"] == 1
    assert seen["clean"]["num_samples"] == 2
    assert seen["clean"][report["main"]] == pytest.approx(clean[report["main"]])


def test_stored_stem_features_train_what_clips_train(scenes, tmp_path, monkeypatch):
    def fill(stem):
        torch.manual_seed(7)
        for parameter in stem.parameters():
            torch.nn.init.normal_(parameter, std=0.05)

    for module in (detection, scene_features):
        monkeypatch.setattr(module, "load_imagenet_stem", fill)
    image = [
        "model.arguments.trunk=efficientnet_lite0",
        'model.arguments.trunk_arguments={"channels": 16}',
        "train.average=none",
    ]
    augment = ["augment.crop=none", "augment.flip=0", "augment.brightness=0", "augment.contrast=0"]
    stored = [f"data.feature_cache.folder={tmp_path / 'stems'}", "data.feature_cache.variants=1"]
    assert (
        "localisation_50"
        in train(config(scenes, *image, *augment, *stored), tmp_path / "run", quiet=True).metrics
    )
    clips, features = (build_task(config(scenes, *image, *augment, *more)) for more in ([], stored))
    model = load(tmp_path / "run")
    for place in range(2):
        (seen, size), (kept, kept_size) = (
            task.objective.features(model, task.collate([task.val_data[(0, place)]]))
            for task in (clips, features)
        )
        assert size == kept_size == (32, 32)
        torch.testing.assert_close(kept, seen, rtol=1e-2, atol=1e-2)  # kept in half precision
    assert (
        len(list((tmp_path / "stems").glob("*/*.safetensors"))) == 6
    )  # four clips to train on, two to validate
    with pytest.raises(
        UserError, match="stores the features of model.arguments.trunk=efficientnet_lite0"
    ):
        build_task(config(scenes, "data.feature_cache.variants=1"))
    learning = 'model.arguments.trunk_arguments={"channels": 16, "trained_stages": 1}'
    with pytest.raises(UserError, match="stores the features of a stem that does not learn"):
        build_task(config(scenes, *image, learning, *stored))


def load(run):
    from marey.checkpoints.load import load_model

    return load_model(run / "last")


def test_mistakes_are_named(scenes, tmp_path):
    with pytest.raises(UserError, match="detection needs --data with a folder in AVA's layout"):
        build_task(config(tmp_path))
    with pytest.raises(
        UserError, match=r"unknown setting of 'data.detection': 'mosaik'; did you mean 'mosaic'"
    ):
        build_task(config(scenes, "data.detection.mosaik=x"))
    with pytest.raises(
        UserError, match="boxes should be 'own', 'truth' or 'predicted', got 'trut'"
    ):
        build_task(config(scenes, "objective.detection.boxes=trut"))
    with pytest.raises(
        UserError, match="unknown loss term in objective.weights 'boxes'; did you mean 'box'"
    ):
        build_task(config(scenes, "objective.weights.boxes=1.0"))
    with pytest.raises(UserError, match="resize_mode=stretch"):
        build_task(
            config(
                scenes, "data.preprocess.resize_mode=short_side", "data.preprocess.short_side=64"
            )
        )


def test_proposals_alone_then_heads_on_a_trunk_that_stays(scenes, tmp_path):
    alone = 'objective.weights={"rpn_objectness": 1.0, "rpn_box": 4.0}'
    train(config(scenes, alone, "model.freeze=[]"), tmp_path / "first", quiet=True)
    train(
        config(scenes, f"model.init_from={tmp_path / 'first' / 'last'}"),
        tmp_path / "second",
        quiet=True,
    )
    first, second = load(tmp_path / "first").state_dict(), load(tmp_path / "second").state_dict()
    for name in first:
        if name.startswith(("trunk", "rpn")):
            torch.testing.assert_close(first[name], second[name])
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])


@pytest.mark.parametrize(
    "name",
    [
        "action_transformer_ava",
        "action_transformer_mini",
        "i3d_mini_mocap",
        "action_transformer_mini_proposals",
    ],
)
def test_recipes_are_whole_and_travel_as_json(name):
    from marey.training.config import TrainConfig

    recipe = get_recipe(name)
    assert recipe.recipe == name
    assert TrainConfig.from_dict(recipe.to_dict()).to_dict() == recipe.to_dict()


def test_batch_statistics_are_measured_anew_before_an_evaluation(scenes, tmp_path):
    learning = ["model.arguments.head=i3d", "model.arguments.frozen_norm=false"]
    settings = [*learning, "objective.detection.boxes=truth", "train.average=none"]
    settings += ["train.eval_batch_size=2"]
    train(config(scenes, *settings), tmp_path / "run", quiet=True)
    model = load(tmp_path / "run")
    norms = [part for part in model.i3d.modules() if hasattr(part, "running_var")]
    # After two steps of momentum .01 a running variance would still be 98 % its initial 1.
    assert any(float(norm.running_var.max()) < 0.5 for norm in norms)
    assert all(norm.momentum == 0.01 for norm in norms)
    assert {int(norm.num_batches_tracked) for norm in norms} == {2}


def test_key_frames_without_labels_are_refused(scenes):
    (scenes / "ava_val.csv").write_text("s4,0902\ns5,0902\n")
    with pytest.raises(UserError, match="none of its 0 key frames has a person with an action"):
        build_task(config(scenes))
