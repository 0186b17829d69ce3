from __future__ import annotations

import pytest
import torch

from marey.papers import action_transformer_figures as study
from marey.synthetic.scenes import RenderedScene


def scene_of(persons: torch.Tensor) -> RenderedScene:
    """Two frames of 8 x 8 in which person 0 is the left, person 1 the right column block."""
    points = torch.zeros(2, 2, 3, 2)
    points[:, 0] = torch.tensor([[0.1, 0.1], [0.1, 0.9], [0.1, 0.9]])
    return RenderedScene(
        clip=None,  # type: ignore[arg-type]
        actions=("walk", "run"),
        boxes_xyxy=torch.zeros(2, 2, 4),
        visible=torch.ones(2, 2, dtype=torch.bool),
        persons=persons,
        head_and_hands_xy_norm=points,
        split="test",
    )


@pytest.fixture
def scene():
    persons = torch.full((2, 8, 8), -1, dtype=torch.int16)
    persons[:, :, :2] = 0
    persons[:, :, 6:] = 1
    return scene_of(persons)


def test_cells_hold_the_share_of_each_person(scene):
    masks = study.cells_of_persons(scene, 2, 4, 4)
    assert masks.shape == (2, 2, 4, 4)
    assert masks[0, :, :, 0].unique().tolist() == [1]
    assert masks[1, :, :, 0].unique().tolist() == [0]


def test_even_attention_prefers_nothing_and_attention_on_the_own_head_does(scene):
    masks = study.cells_of_persons(scene, 2, 8, 8)
    even = torch.full((2, 2, 8, 8), 1 / 128)
    found = study.attention_measures(scene, even, masks, [0, 1])
    assert found == {name: pytest.approx(1) for name in ("own", "others", "head", "hands")}

    near = torch.zeros(1, 2, 8, 8)
    near[0, :, 0, 0] = 0.5  # the cell of person 0's head
    found = study.attention_measures(scene, near, masks, [0])
    assert found["own"] == pytest.approx(4)  # all attention on a quarter of the cells
    assert found["others"] == 0
    assert found["head"] == pytest.approx(4)  # four of the person's sixteen cells are near it
    assert found["hands"] == 0


def test_keys_that_carry_the_person_tell_persons_apart(scene):
    class Head:
        def key_embeddings(self, features):
            return [[features.permute(0, 2, 3, 4, 1)]]

    class Model:
        tx = Head()

    masks = study.cells_of_persons(scene, 2, 8, 8)
    features = torch.cat([masks, torch.ones(1, 2, 8, 8) * 0.1])[None]
    found = study.key_measures(Model(), features, masks, [0, 1])
    assert found == {"people": 1.0, "identity": 1.0, "identity_chance": 0.5}


def test_the_breakdown_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    parts = {
        "class": [{"label": "walk", "training_rows": 7, "ap": 0.4}],
        "size": [{"from": 0.0, "to": 0.2, "boxes": 3, "mAP": float("nan")}],
        "persons": [{"persons": 2, "images": 5, "mAP": 0.1}],
    }
    study.draw_breakdown(parts, tmp_path / "fig5.png")
    assert (tmp_path / "fig5.png").read_bytes()[:4] == b"\x89PNG"
