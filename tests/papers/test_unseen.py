from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from marey.errors import UserError
from marey.labels.embed import embed_labels
from marey.papers import unseen as study
from marey.papers.cells import ReproduceOptions
from marey.papers.run import reproduce
from marey.papers.sevitar_sets import WORDS, HeadSet, Split

NAMES = ("walk", "run", "jump", "kick", "punch", "push")


def toy_set(meaningful=True, N=120):
    """Six classes whose features are the words' vectors, turned, or corners that mean nothing."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 6
    words = embed_labels(NAMES, WORDS).vectors
    turn = torch.linalg.qr(torch.randn(50, 50, generator=generator)).Q
    corners = words @ turn if meaningful else torch.eye(6, 50)
    features = 5 * corners[labels] + 0.3 * torch.randn(N, 50, generator=generator)
    half = torch.arange(N) < N // 2
    return HeadSet(
        name="toy",
        class_names=NAMES,
        features=features,
        labels=labels,
        groups=tuple(map(str, range(N))),
        outer=(Split(half.nonzero()[:, 0], (~half).nonzero()[:, 0]),),
        inner=(),
        block_of=(0,),
        width=None,
        about={},
    )


@pytest.fixture
def toy(monkeypatch):
    """The study on the toy set, with the words' vectors for the sentence model's."""
    monkeypatch.setattr(study, "recorded_set", lambda cache: toy_set())
    monkeypatch.setattr(study, "STEPS", 60)
    monkeypatch.setattr(
        study, "label_vectors", lambda names, cache: embed_labels(names, WORDS).vectors
    )


def test_the_folds_of_a_seed_are_disjoint_and_cover_all_classes():
    for seed in range(3):
        folds = [study.held_out(fold, seed, 15) for fold in range(5)]
        assert sorted(number for fold in folds for number in fold) == list(range(15))
        assert {len(fold) for fold in folds} == {3}
    assert study.held_out(0, 0, 15) != study.held_out(0, 1, 15)
    pairs = [tuple(study.unseen_of("ut_interaction", number, 6)) for number in range(15)]
    assert len(set(pairs)) == 15


def test_one_look_at_each_class_finds_clear_classes_and_nothing_in_noise():
    labels = torch.arange(60) % 3
    clear = torch.eye(3)[labels]
    assert study.one_shot(clear, labels + 4, clear, labels + 4, seed=0) == 1.0
    noise = torch.randn(600, 16, generator=torch.Generator().manual_seed(0))
    many = torch.arange(600) % 3
    assert abs(study.one_shot(noise, many, noise.flip(0), many, seed=0) - 1 / 3) < 0.06


def test_seen_actions_are_learned_and_all_numbers_are_there(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "STEPS", 200)
    options = ReproduceOptions(cache=tmp_path)
    found = {
        vectors: [study.run_split("mocap", vectors, number, options) for number in range(5)]
        for vectors in ("words", "random")
    }
    for splits in found.values():
        for result in splits:
            assert set(study.METRICS) < set(result)
            assert all(0 <= result[metric] <= 100 for metric in study.METRICS)
            assert 1 <= len(result["unseen_classes"]) <= 2
            assert result["seen"] > 50
    one = found["words"][0]
    assert study.run_split("mocap", "words", 0, options) == one


def test_the_study_runs_from_the_command_to_the_report(toy, tmp_path):
    out = tmp_path / "unseen"
    options = ReproduceOptions(cache=tmp_path / "cache", seeds=1)
    reproduce("sevitar-unseen", options, out, command="marey reproduce sevitar-unseen")
    report = json.loads((tmp_path / "unseen.json").read_text())
    mocap = report["sets"]["mocap"]
    assert set(mocap["vectors"]) == set(study.VECTORS)
    assert set(mocap["less_random"]) == {"meaning", "words"}
    gains = [split["words"] - split["random"] for split in mocap["splits"]]
    assert mocap["less_random"]["words"]["zero_shot"]["mean"] == pytest.approx(
        sum(gains) / 5, abs=0.02
    )
    (tmp_path / "unseen.json").write_text(json.dumps(report | {"reading": "By hand."}))
    reproduce("sevitar-unseen", options, out, command="marey reproduce sevitar-unseen")
    assert json.loads((tmp_path / "unseen.json").read_text())["reading"] == "By hand."


def test_intervals_are_student_s_t_over_class_splits():
    found = study.over_splits([1.0, 2.0, 3.0])
    assert found == {"mean": 2.0, "half_width_95": pytest.approx(2.48, abs=0.01)}


def test_missing_videos_and_the_full_scale_are_refused(tmp_path):
    with pytest.raises(UserError, match="expected the folder ut_interaction"):
        study.check_data(ReproduceOptions(data=str(tmp_path)))
    with pytest.raises(UserError, match="has no full scale"):
        study.check_data(ReproduceOptions(scale="full"))


def test_vectors_of_words_are_near_where_meanings_are():
    vectors = embed_labels(("walk", "run", "hug", "walk backwards"), WORDS).vectors
    cosine = F.normalize(vectors, dim=1) @ vectors.T
    assert cosine[0, 3] > cosine[0, 1] > cosine[0, 2]
