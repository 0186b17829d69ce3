"""Embed the everyday actions that compete with `--labels`: `python tools/everyday_actions.py`.

Writes `weights/everyday-actions/vectors.safetensors`; needs the extra 'text'.
"""

from __future__ import annotations

from safetensors.torch import save_file

from marey.inference.none_of_these import EVERYDAY, STORED
from marey.labels.embed import DEFAULT_MODEL, embed_labels

if __name__ == "__main__":
    STORED.parent.mkdir(parents=True, exist_ok=True)
    vectors = embed_labels(EVERYDAY, DEFAULT_MODEL).vectors
    save_file({"vectors": vectors.half().contiguous()}, STORED)
