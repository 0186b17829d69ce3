from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from marey.errors import UserError, VideoError, import_extra, killed_workers, unknown_name


def test_an_unknown_name_offers_the_nearest_and_lists_all():
    error = unknown_name("model", "timesformr", ["i3d", "timesformer"])
    assert isinstance(error, UserError)
    assert (
        str(error)
        == "unknown model 'timesformr'; did you mean 'timesformer'? (known: i3d, timesformer)"
    )


def test_nothing_known_means_no_offer():
    assert str(unknown_name("model", "x", [])) == "unknown model 'x' (known: )"


def test_a_missing_extra_says_how_to_install_it():
    with pytest.raises(
        UserError, match=r"drawing needs 'no_such_package.figure'.*pip install 'marey\[plots\]'"
    ):
        import_extra("no_such_package.figure", "plots", "drawing")
    assert import_extra("json", "plots", "drawing").loads("1") == 1


def test_a_fault_inside_an_installed_package_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import module_that_is_not_there")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="module_that_is_not_there"):
        import_extra("broken_package", "plots", "drawing")


def test_a_video_error_is_a_user_error():
    assert issubclass(VideoError, UserError)


def test_a_killed_worker_is_one_line_with_a_remedy():
    spawn = multiprocessing.get_context("spawn")
    message = "a worker process was killed.*; take fewer --workers"
    with (
        pytest.raises(UserError, match=message),
        killed_workers("take fewer --workers"),
        ProcessPoolExecutor(1, mp_context=spawn) as pool,
    ):
        pool.submit(os._exit, 9).result()
