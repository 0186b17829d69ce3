"""The classifier with scikit-learn's interface."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import marey
from marey.errors import UserError, VideoError
from marey.features.cache import FeatureCache
from marey.video.encode import write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    paths = []
    for number in range(8):
        generator = torch.Generator().manual_seed(number)
        still = torch.randint(0, 120, (1, 3, 48, 48), generator=generator).expand(10, -1, -1, -1)
        frames = still.clone()
        if number % 2:
            for t in range(10):
                frames[t, :, 10:22, 3 * t : 3 * t + 12] = 240
        paths.append(folder / f"{number}.mp4")
        write_video(paths[-1], frames.to(torch.uint8), fps=10)
    return paths


def classifier(tmp_path, **arguments):
    cache = FeatureCache(tmp_path / "cache")
    return marey.VideoClassifier("motion", views=1, cache=cache, **arguments)


def test_it_learns_predicts_and_scores(videos, tmp_path):
    labels = ["still", "moving"] * 4
    learned = classifier(tmp_path).fit(videos[:6], labels[:6], groups=[0, 0, 1, 1, 2, 2])
    assert learned.score(videos[6:], labels[6:]) == 1.0
    assert list(learned.classes_) == ["moving", "still"]
    probs = learned.predict_proba(videos)
    assert probs.shape == (8, 2)
    assert np.allclose(probs.sum(1), 1)
    assert list(learned.predict(videos[6:])) == labels[6:]


def test_scikit_learn_clones_and_cross_validates_it(videos, tmp_path):
    base = pytest.importorskip("sklearn.base")
    again = base.clone(classifier(tmp_path, strength=0.3))
    assert again.get_params()["strength"] == 0.3
    assert again.set_params(strength=1.0).strength == 1.0
    with pytest.raises(UserError, match="no argument 'depth'"):
        again.set_params(depth=3)


def test_mistakes_are_named(videos, tmp_path):
    with pytest.raises(UserError, match="2 videos, 1 labels, no groups"):
        classifier(tmp_path).fit(videos[:2], ["a"])
    with pytest.raises(UserError, match="needs two or more"):
        classifier(tmp_path).fit(videos[:2], ["a", "a"])
    with pytest.raises(UserError, match="call fit first"):
        classifier(tmp_path).predict(videos[:1])
    with pytest.raises(VideoError, match="no such file"):
        classifier(tmp_path).fit([tmp_path / "no.mp4", videos[0]], ["a", "b"])
