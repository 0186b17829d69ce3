"""The feature cache: keys, whole files, damage, two processes."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from marey.features.cache import FeatureCache, cache_key
from marey.files import file_identity


def test_arrays_come_back_as_they_were_stored(tmp_path: Path) -> None:
    cache, key = FeatureCache(tmp_path), cache_key(video="a")
    arrays = {
        "clip": torch.randn(2, 3).half(),
        "label": torch.tensor(4),
        "boxes": torch.zeros(0, 4),
    }
    assert cache.get(key) is None
    cache.put(key, arrays)
    found = cache.get(key)
    assert found is not None
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert torch.equal(found[name], array)


def test_a_key_depends_on_every_value_and_not_on_their_order() -> None:
    assert cache_key(weights="x", video=["a", 3, 5]) == cache_key(video=["a", 3, 5], weights="x")
    keys = {
        cache_key(weights="x", video=["a", 3, 5]),
        cache_key(weights="y", video=["a", 3, 5]),
        cache_key(weights="x", video=["a", 3, 6]),
        cache_key(weights="x", video=["a", 4, 5]),
    }
    assert len(keys) == 4


def test_features_are_made_once(tmp_path: Path) -> None:
    cache, calls = FeatureCache(tmp_path), []

    def make() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"clip": torch.ones(2)}

    for _ in range(3):
        assert torch.equal(cache.get_or_make("ab12", make)["clip"], torch.ones(2))
    assert len(calls) == 1


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0{", b"not features at all"])
def test_a_damaged_file_is_made_again(tmp_path: Path, content: bytes) -> None:
    cache = FeatureCache(tmp_path)
    cache.put("ab12", {"clip": torch.zeros(2)})
    cache.path("ab12").write_bytes(content)
    assert cache.get("ab12") is None
    assert torch.equal(
        cache.get_or_make("ab12", lambda: {"clip": torch.ones(2)})["clip"], torch.ones(2)
    )


def test_views_of_a_larger_array_are_stored_alone(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put("ab12", {"clip": torch.zeros(1000, 100)[3]})
    assert cache.path("ab12").stat().st_size < 1000


def fill(folder: str) -> None:
    cache = FeatureCache(folder)
    for number in range(50):
        cache.get_or_make(
            cache_key(video=number),
            lambda number=number: {"clip": torch.full((500,), float(number))},
        )


def test_two_processes_fill_one_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fill, args=(str(tmp_path),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    cache = FeatureCache(tmp_path)
    for number in range(50):
        found = cache.get(cache_key(video=number))
        assert found is not None
        assert torch.equal(found["clip"], torch.full((500,), float(number)))
    assert len(list(tmp_path.rglob("*.*"))) == 50  # no temporary file is left


def test_the_users_cache_folder_is_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FeatureCache().folder == tmp_path / "marey" / "features"


def test_a_file_has_another_identity_when_it_changes(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    before = file_identity(video)
    os.utime(video, ns=(5, 5))
    assert file_identity(video) == [str(video), 3, 5] != before
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "1.jpg").write_bytes(b"x")
    empty = file_identity(frames)
    (frames / "2.jpg").write_bytes(b"x")
    assert file_identity(frames) != empty
