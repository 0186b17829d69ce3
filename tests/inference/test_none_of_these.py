"""Everyday actions compete with the names given: by hand, and where they cannot be embedded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from marey.inference.none_of_these import EVERYDAY, SAME, everyday_vectors, none_of_these


def checkpoint(source: str | None = None) -> Any:
    return SimpleNamespace(extra={} if source is None else {"label_source": source})


def test_the_stored_vectors_are_there_and_of_length_one() -> None:
    vectors = everyday_vectors()
    assert vectors.shape == (len(EVERYDAY), 384)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(EVERYDAY)), atol=1e-3)
    assert len(set(EVERYDAY)) == len(EVERYDAY)


def test_the_nearer_of_a_name_and_an_everyday_action_wins() -> None:
    background = everyday_vectors()
    swimming, cooking = EVERYDAY.index("swimming"), EVERYDAY.index("cooking")
    names = torch.nn.functional.normalize(torch.randn(2, 384), dim=1)

    found = none_of_these(5 * background[[swimming]], names, checkpoint())
    assert found["none_of_these"] is True
    assert found["nearest_other"] == "swimming"
    expected = 1 - float((background[swimming] @ names.T).max())
    assert found["none_score"] == pytest.approx(expected, abs=1e-3)

    found = none_of_these(names[[0]], names, checkpoint())
    assert found["none_of_these"] is False
    assert found["none_score"] < 0

    # A name that means an everyday action does not compete with it.
    found = none_of_these(background[[cooking]], background[[cooking]], checkpoint())
    assert found["none_of_these"] is False
    similar = background @ background[cooking] >= SAME
    assert found["nearest_other"] not in [n for n, s in zip(EVERYDAY, similar, strict=True) if s]


def test_what_cannot_be_embedded_is_said(tmp_path) -> None:
    words = tmp_path / "words.vec"
    words.write_text("push 1 0\n", encoding="utf-8")
    found = none_of_these(torch.ones(1, 2), torch.eye(2), checkpoint(str(words)))
    assert found["none_of_these"] is None
    assert found["not_tested"]
