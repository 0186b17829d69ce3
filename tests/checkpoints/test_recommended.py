"""Short names of public models stand for hub ids wherever a model or an encoder is taken."""

from __future__ import annotations

import pytest

from marey.checkpoints import encoders, load
from marey.checkpoints.recommended import PUBLIC_MODELS, SHORT_NAMES, long_name
from marey.cli import run
from marey.errors import UserError
from marey.models import list_models


def test_a_short_name_is_no_other_name_and_says_licence_and_size():
    assert len(SHORT_NAMES) == len(PUBLIC_MODELS)
    assert not set(SHORT_NAMES) & {*load.bundled_names(), *list_models(), "frames"}
    assert all(model.licence and model.size and "/" in model.hub_id for model in PUBLIC_MODELS)


def test_models_and_encoders_take_short_names(monkeypatch):
    asked = []

    def refuse(name):
        asked.append(name)
        raise UserError("no internet")

    for module in (load, encoders):
        monkeypatch.setattr(module, "local_copy", refuse)
    for take in (load.load_checkpoint, encoders.load_encoder):
        with pytest.raises(UserError, match="no internet"):
            take("kinetics400")
    assert asked == ["MCG-NJU/videomae-base-finetuned-kinetics"] * 2


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    (tmp_path / "vjepa2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert long_name("vjepa2") == "vjepa2"
    assert long_name("videomae") == "hf:MCG-NJU/videomae-base"


def test_list_models_shows_them(capsys):
    assert run(["list", "models"]) == 0
    shown = capsys.readouterr().out
    assert "marey-mini-rgb  (bundled weights)" in shown
    assert "kinetics400  hf:MCG-NJU/videomae-base-finetuned-kinetics  (400 actions" in shown
