from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from marey.errors import UserError
from marey.papers import sevitar_decided as study
from marey.papers import sevitar_sets
from marey.papers.cells import ReproduceOptions
from marey.papers.run import reproduce
from marey.papers.sevitar_sets import HeadSet, Split

NAMES = ("crawl", "crawl backwards", "kick", "punch")


def toy_set(N=96, noise=0.6):
    """Four classes around four corners: a third to train on, a third to tune on, a third to
    test on."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 4
    features = torch.eye(4, 16)[labels] + noise * torch.randn(N, 16, generator=generator)
    train, val, test = torch.arange(N).chunk(3)
    return HeadSet(
        name="mocap",
        class_names=NAMES,
        features=features,
        labels=labels,
        groups=tuple(str(i // 4) for i in range(N)),
        outer=(Split(train, test),),
        inner=((Split(train, val),),),
        block_of=(0,),
        width=None,
        about={"backbone": "none"},
    )


@pytest.fixture
def toy(monkeypatch):
    """The study on the toy set."""
    heads = toy_set()
    monkeypatch.setattr(study, "open_head_set", lambda *_: heads)
    monkeypatch.setattr(study, "STEPS", {"mocap": 8})
    study.run_seeds.cache_clear()
    monkeypatch.setattr(study, "convolution_means", lambda cache: heads.features)
    monkeypatch.setattr(
        study, "label_vectors", lambda names, cache: F.normalize(torch.eye(4, 12), dim=1)
    )


def test_every_contrast_is_between_rows_that_are_run():
    for contrast in study.TABLES["contrasts"]:
        assert set(contrast["pair"]) <= set(study.ROWS)
    primary = [contrast for contrast in study.TABLES["contrasts"] if contrast.get("primary")]
    count = len(primary) * len(study.SET_NAMES)
    assert study.PLAN["primary_level"] == pytest.approx(1 - 0.05 / count, abs=1e-6)


def test_the_study_runs_from_the_command_to_the_verdicts(toy, tmp_path):
    out = tmp_path / "decided"
    options = ReproduceOptions(cache=tmp_path / "cache", seeds=2)
    results = reproduce("sevitar-decided", options, out, command="marey reproduce sevitar-decided")
    assert not [error for result in results for error in result.errors]
    report = json.loads((tmp_path / "decided.json").read_text())
    assert (tmp_path / "cache" / "fig1.png").stat().st_size > 10_000
    assert {"convolutions_knn", "z_knn", "sz_knn"} <= set(report["fig1"])
    mocap = report["sets"]["mocap"]
    assert set(mocap["heads"]) == set(study.ROWS)
    assert mocap["test_videos"] == 32
    assert mocap["confusable_videos"] == 16
    assert len(mocap["contrasts"]) == len(study.TABLES["contrasts"])
    by_name = {contrast["contrast"]: contrast for contrast in mocap["contrasts"]}
    one = by_name["an MLP against a linear layer"]
    heads = mocap["heads"]
    gain = heads["MLP"]["top1"] - heads["linear"]["top1"]
    assert one["difference"] == pytest.approx(gain, abs=0.02)
    assert one["verdict"] in ("helps", "hurts", "equivalent", "undecided")
    assert one["margin"] == pytest.approx(292.7 * (0.1 / 32) ** 0.5, abs=0.02)
    sizes = {head: heads[head]["parameters"] for head in ("MLP", "[s, z], meaning", "[MLP(z), z]")}
    assert sizes["[s, z], meaning"] == sizes["[MLP(z), z]"]
    assert sizes["MLP"] == pytest.approx(sizes["[s, z], meaning"], rel=0.02)

    (tmp_path / "decided.json").write_text(json.dumps(report | {"reading": "By hand."}))
    reproduce("sevitar-decided", options, out, command="marey reproduce sevitar-decided")
    assert json.loads((tmp_path / "decided.json").read_text())["reading"] == "By hand."


def test_a_setting_is_chosen_without_the_videos_that_are_reported(toy, tmp_path):
    """The same settings, whatever the labels of the test videos."""
    row = study.ROWS["MLP"]
    chosen = study.tuned_settings(toy_set(), row, tmp_path / "a")
    spoilt = toy_set()
    spoilt.labels[spoilt.outer[0].test] = 0
    assert study.tuned_settings(spoilt, row, tmp_path / "b") == chosen
    stored = json.loads(next((tmp_path / "a" / "tuned").iterdir()).read_text())
    assert stored == [setting._asdict() for setting in chosen]


def test_nested_folds_never_tune_on_what_they_test():
    labels = [name for name in "ab" for _ in range(24)]
    groups = [f"g{i % 12}" for i in range(48)]
    folds = sevitar_sets.folds_of(labels, groups, 12)
    outer, inner, block_of = sevitar_sets.nested_folds(labels, groups, folds)
    assert len(outer) == 12
    assert sorted(torch.cat([split.test for split in outer]).tolist()) == list(range(48))
    for split, block in zip(outer, block_of, strict=True):
        tested = set(split.test.tolist())
        assert not tested & set(split.train.tolist())
        for part in inner[block]:
            assert not tested & (set(part.train.tolist()) | set(part.test.tolist()))
            names = [{groups[i] for i in rows.tolist()} for rows in (part.train, part.test)]
            assert not names[0] & names[1]


def test_features_are_standardised_by_the_training_videos_alone():
    heads = toy_set()
    train = heads.outer[0].train
    z = heads.z(train)
    assert torch.allclose(z[train].mean(0), torch.zeros(16), atol=1e-5)
    assert torch.allclose(z[train].std(0), torch.ones(16), atol=1e-4)
    narrow = HeadSet(**{**heads.__dict__, "width": 5, "made": {}})
    components = narrow.z(train)
    assert components.shape == (96, 5)
    assert components[train].square().mean() == pytest.approx(1.0, abs=1e-4)
    few = narrow.z(train[:4])  # four rows span three directions
    assert few.shape == (96, 5)
    assert not few[:, 3:].any()
    changed = HeadSet(**{**narrow.__dict__, "features": heads.features.clone(), "made": {}})
    changed.features[heads.outer[0].test] += 100
    assert torch.allclose(changed.z(train)[train], components[train], atol=1e-4)


def test_missing_videos_and_the_full_scale_are_refused(tmp_path):
    with pytest.raises(UserError, match="expected the folder ut_interaction"):
        study.check_data(ReproduceOptions(data=str(tmp_path)))
    with pytest.raises(UserError, match="has no full scale"):
        study.check_data(ReproduceOptions(scale="full"))
    assert study.set_names(ReproduceOptions()) == ("mocap",)
