from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.checkpoints.load import load_checkpoint
from marey.datasets.youtube8m import FrameExample, read_examples, write_examples
from marey.errors import UserError
from marey.recipes.gat import gat_youtube8m_mini, variant_of
from marey.synthetic.youtube8m import render_youtube8m_mini
from marey.training.config import override
from marey.training.data_config import FeaturesData
from marey.training.loop import train
from marey.training.tasks import build_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return render_youtube8m_mini(
        tmp_path_factory.mktemp("mini") / "data",
        shards=2,
        videos={"train": 24, "validate": 8, "test": 4},
    )


def config(folder, steps=3, **data):
    base = gat_youtube8m_mini()
    return replace(
        base,
        data=replace(base.data, path=str(folder), features=FeaturesData(**data)),
        train=replace(
            base.train, max_steps=steps, batch_size=8, eval_every=None, log_every=1, device="cpu"
        ),
    )


@pytest.mark.parametrize("name", ["SA-CE", "GMSA-CE", "GMSA-Adv", "GAT-AdvJS", "GAT-AdvFr"])
def test_every_column_of_table_1_takes_steps(name, folder, tmp_path):
    result = train(variant_of(config(folder), name), tmp_path / "run", quiet=True)
    assert set(result.metrics) >= {"gap", "map", "perr", "hit_at_1"}
    checkpoint = load_checkpoint(tmp_path / "run" / "best")
    assert checkpoint.name == "gat"
    assert len(checkpoint.class_names) == 24
    logged = [
        json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    ]
    terms = (
        {"class"}
        | ({"adversarial"} if "Adv" in name else set())
        | ({"attention"} if "GAT" in name else set())
    )
    assert terms <= set(logged[0].get("metrics", logged[0]))


def test_records_that_were_trained_on_are_known_whatever_their_id(folder, tmp_path):
    from marey.evaluation.classification import EvaluateOptions
    from marey.evaluation.evaluate import evaluate

    train(config(folder), tmp_path / "run", quiet=True)
    clean, _ = evaluate(tmp_path / "run", folder, EvaluateOptions())
    assert "seen_in_training" not in clean
    widths = {"rgb": 32, "audio": 16}
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    known = [
        replace(example, id=f"renamed{number}")
        for number, example in enumerate(read_examples(folder / "train0000.tfrecord", widths))
    ]
    shards = sorted(folder.glob("validate*.tfrecord"))
    own = [example for path in shards for example in read_examples(path, widths)]
    for path in copy.glob("validate*.tfrecord"):
        path.unlink()
    write_examples(copy / "validate0000.tfrecord", [*own, *known[:3]])
    report, _ = evaluate(tmp_path / "run", copy, EvaluateOptions())
    seen = report["seen_in_training"]
    assert (seen["num_items"], seen["clean"]["num_samples"]) == (3, len(own))
    assert seen["clean"]["gap"] == pytest.approx(clean["gap"])


def test_streamed_shards_train_and_resume_bit_for_bit(folder, tmp_path):
    whole = config(folder, steps=6, stream=True, shuffle_buffer=5)
    train(whole, tmp_path / "whole", quiet=True)
    halves = replace(whole, train=replace(whole.train, save_every=2))
    task = build_task(halves)
    stopped = {"left": 3}
    real = task.objective.forward

    def stop(model, batch):
        if model.training:
            stopped["left"] -= 1
            if stopped["left"] < 0:
                raise KeyboardInterrupt
        return real(model, batch)

    task.objective.forward = stop
    with pytest.raises(KeyboardInterrupt):
        train(halves, tmp_path / "halves", quiet=True, task=task)
    train(halves, tmp_path / "halves", quiet=True, resume=True)
    one, other = (
        load_checkpoint(tmp_path / name / "last").model.state_dict() for name in ("whole", "halves")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_single_file_is_split_by_seed(folder):
    task = build_task(
        replace(
            config(folder / "train0000.tfrecord"),
            data=replace(
                config(folder / "train0000.tfrecord").data,
                val_fraction=0.25,
                features=FeaturesData(widths={"rgb": 32, "audio": 16}),
            ),
        )
    )
    assert (len(task.train_data), len(task.val_data)) == (9, 3)


def test_one_modality_alone_can_be_trained(folder):
    task = build_task(config(folder, widths={"audio": 16}))
    assert set(task.train_data[(0, 0)]["features"]) == {"audio"}
    assert task.model_arguments["features"] == {"audio": 16}


def test_nan_features_never_reach_the_optimiser(folder):
    task = build_task(config(folder))
    batch = task.collate([task.train_data[(0, i)] for i in range(2)])
    batch["features"]["rgb"][1, 3, 2] = float("nan")
    with pytest.raises(
        UserError,
        match=f"video '{batch['ids'][1]}': feature 'rgb' holds a value that is not a finite",
    ):
        task.objective(torch.nn.Identity(), batch)


def test_wrong_settings_are_named(folder):
    with pytest.raises(UserError, match="unknown setting of 'data.features': 'windows'"):
        override(config(folder), ["data.features.windows=3"])
    with pytest.raises(UserError, match="expected one string of 31 bytes"):
        build_task(config(folder, widths={"rgb": 31})).train_data[(0, 0)]
    with pytest.raises(
        UserError, match="no frozen stem to store features of; set data.feature_cache=null"
    ):
        build_task(override(config(folder), ["data.feature_cache.variants=1"]))


def test_no_data_says_where_to_get_some():
    with pytest.raises(UserError, match="render youtube8m-mini"):
        build_task(gat_youtube8m_mini())


def test_unlabelled_validation_shards_are_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for path in copy.glob("validate*"):
        videos = list(read_examples(path, {"rgb": 32, "audio": 16}))
        unlabelled = (FrameExample(id=one.id, labels=(), features=one.features) for one in videos)
        write_examples(path, unlabelled)
    with pytest.raises(UserError, match="has a label of the vocabulary, so nothing can be scored"):
        build_task(config(copy))
