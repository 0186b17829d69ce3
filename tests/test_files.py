"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.files import (
    atomic,
    atomic_files,
    atomic_folder,
    read_json,
    weights_digest,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


def test_a_file_appears_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "new" / "array.npy"
    with atomic(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".npy"
        np.save(temporary, np.arange(3))
        assert not target.exists()

    assert np.load(target).tolist() == [0, 1, 2]
    assert [path.name for path in target.parent.iterdir()] == ["array.npy"]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write_text(tmp_path / "answer.txt", "old")

    def fail() -> None:
        with atomic(tmp_path / "answer.txt") as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert (tmp_path / "answer.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["answer.txt"]


def test_of_several_files_none_changes_if_one_fails(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_text(tmp_path / name, "old")

    def fail() -> None:
        with atomic_files(tmp_path / "a", tmp_path / "b") as (first, _):
            first.write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "old"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), RuntimeError("... (os error 28)")]
)
def test_a_full_disk_is_a_users_error(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(UserError, match="the disk is full, nothing was saved there"),
        atomic(tmp_path / "a"),
    ):
        raise error
    assert not list(tmp_path.iterdir())


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "data" / "old.txt", "old")
    with pytest.raises(KeyError), atomic_folder(tmp_path / "data") as temporary:
        raise KeyError
    assert (tmp_path / "data" / "old.txt").read_text() == "old"

    with atomic_folder(tmp_path / "data") as temporary:
        (temporary / "new.txt").write_text("new")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        "data",
        "data/new.txt",
    ]


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"name": "Étienne", "numbers": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"a\.json: no such file; look elsewhere"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[]", "expected a JSON object, got list"),
    ],
)
def test_what_is_no_json_object_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        write_bytes(tmp_path / "a.json", content)
    with pytest.raises(UserError, match=message):
        read_json(tmp_path / "a.json", remedy="look elsewhere")


def test_csv_quotes_commas_and_leaves_none_empty(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [["path", "label"], ["a, b.mp4", None]])
    assert (tmp_path / "a.csv").read_bytes() == b'path,label\n"a, b.mp4",\n'


def test_a_digest_depends_on_names_and_values_and_not_on_the_order() -> None:
    state = {"weight": torch.ones(2), "bias": torch.zeros(2)}
    assert weights_digest(state) == weights_digest(dict(reversed(state.items())))
    assert weights_digest(state) != weights_digest({**state, "bias": torch.full((2,), 1e-9)})
    assert weights_digest(state) != weights_digest(
        {"weights": state["weight"], "bias": state["bias"]}
    )


def test_the_digest_of_known_weights_stays() -> None:
    """Stored features are found again by it."""
    assert weights_digest({"weight": torch.arange(3.0)}) == "ca4589c96a50"


def test_json_ends_with_a_line_break(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1}, indent=None)
    assert (tmp_path / "a.json").read_text() == json.dumps({"a": 1}) + "\n"
