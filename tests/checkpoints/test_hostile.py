"""Checkpoints made to do harm are one line, and run nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from marey.checkpoints.load import load_checkpoint
from marey.checkpoints.pickled import read_pickled
from marey.errors import UserError


class Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_a_malicious_pickle_is_one_line_and_is_not_run(tmp_path: Path, suffix: str) -> None:
    harm = tmp_path / "harm"
    files = {}
    for name, content in (("zip", {"x": Harm(harm)}), ("deep", [[Harm(harm)]])):
        files[name] = tmp_path / f"{name}{suffix}"
        torch.save(content, files[name])
    files["plain"] = tmp_path / f"plain{suffix}"
    files["plain"].write_bytes(pickle.dumps(Harm(harm)))
    noise = [
        b"",
        b"\x80\x04.",
        b"\x80\x04}(K",
        b"PK\x03\x04" + b"\0" * 40,
        b"(" * 500,
        b"\x80\x02]" + b"(" * 99,
        b"cos\nsystem\n(S'mkdir x'\ntR.",
        b"\x95" + b"\xff" * 20,
    ]
    for number, content in enumerate(noise):
        files[str(number)] = tmp_path / f"{number}{suffix}"
        files[str(number)].write_bytes(content)
    for path in files.values():
        with pytest.raises(UserError) as error:
            read_pickled(path)
        message = str(error.value)
        assert message.startswith(str(path))
        assert "\n" not in message
        assert "weights_only" not in message
        assert not harm.exists()


def test_an_entry_of_the_wrong_kind_is_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, model)
    true = json.loads((model / "config.json").read_text())
    wrong = {"model": [], "arguments": "x", "class_names": {}, "preprocess": 3, "calibration": []}
    for key, value in wrong.items():
        (model / "config.json").write_text(json.dumps(true | {key: value}))
        with pytest.raises(UserError) as error:
            load_checkpoint(model)
        assert "\n" not in str(error.value)
        assert str(model) in str(error.value)


VALUES = (None, -1, "x", [1], {"x": 1}, 10**30)


@pytest.mark.slow
def test_every_mutation_of_a_config_loads_or_is_one_line(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, model)
    true = json.loads((model / "config.json").read_text())
    places = [(key,) for key in true]
    places += [(key, inner) for key in true if isinstance(true[key], dict) for inner in true[key]]
    sampling = true["preprocess"]["sampling"]
    places += [("preprocess", "sampling", inner) for inner in sampling]
    messages = []
    for place in places:
        for value in VALUES:
            config = json.loads(json.dumps(true))
            target = config
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = value
            (model / "config.json").write_text(json.dumps(config))
            try:
                load_checkpoint(model)
            except UserError as error:
                messages.append(str(error))
    assert len(messages) > 60
    assert not [message for message in messages if "\n" in message]
