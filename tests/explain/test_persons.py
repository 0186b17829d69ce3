from __future__ import annotations

import pytest
import torch
from PIL import Image
from torchvision.io import write_jpeg

from marey.checkpoints.folder import save_checkpoint
from marey.datasets.ava import open_ava
from marey.errors import UserError
from marey.explain.persons import (
    attention_in_box,
    explain_person,
    failures,
    pca_colours,
    top_predictions,
)
from marey.inference.detector import Detector
from marey.models import create_model
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain") / "tiny"
    torch.manual_seed(0)
    model = create_model(
        "action_transformer",
        num_classes=2,
        num_frames=8,
        width=0.125,
        num_proposals=6,
        rpn_channels=16,
        dim=16,
        ffn=32,
        query_channels=8,
        location_channels=8,
        anchor_sizes=[16, 32],
    )
    preprocess = Preprocess(
        sampling=ClipSampling(num_frames=8, stride_frames=1, target_fps=4.0),
        image_size=64,
        resize_mode="stretch",
    )
    save_checkpoint(folder, model, class_names=["walk", "run"], preprocess=preprocess)
    return Detector.load(folder, persons="own", min_score=0.0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    for video in ("a", "b"):
        (root / "frames" / video).mkdir(parents=True)
        for i in range(8):
            write_jpeg(
                torch.randint(0, 255, (3, 48, 64), dtype=torch.uint8),
                str(root / "frames" / video / f"{video}_{i + 1:06d}.jpg"),
            )
    (root / "scenes.csv").write_text(
        "video,split,fps,key_frame,num_frames\na,test,4.0,4,8\nb,test,4.0,4,8\n"
    )
    names = 'item {\n  name: "walk"\n  id: 1\n}\nitem {\n  name: "run"\n  id: 2\n}\n'
    (root / "ava_action_list.pbtxt").write_text(names)
    (root / "ava_test.csv").write_text("a,0902,0,0,1,1,1,0\n")
    return root


def test_near_embeddings_get_near_colours():
    groups = torch.tensor([[5.0, 0, 0, 0], [0, 5, 0, 0], [0, 0, 5, 0]])
    embeddings = groups.repeat_interleave(10, 0) + 0.01 * torch.randn(30, 4)
    colours = pca_colours(embeddings.reshape(5, 6, 4)).reshape(3, 10, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert colours.std(1).max() < 0.05
    assert torch.pdist(colours.mean(1)).min() > 0.5


def test_attention_shares_are_counted_inside_the_box():
    attention = torch.zeros(2, 1, 4, 4)
    attention[0, 0, 0, 0] = 1
    attention[1] = 1 / 16
    assert attention_in_box(attention, torch.tensor([0.0, 0, 0.5, 0.5])) == pytest.approx([1, 0.25])


def test_a_person_is_explained_in_one_picture(detector, scenes, tmp_path):
    facts = explain_person(detector, scenes / "frames" / "a", 0.1, tmp_path / "figure.png")
    assert len(facts["attention_in_box"]) == 2
    assert (
        Image.open(tmp_path / "figure.png").width > 5 * 200
    )  # frame, two key and two attention columns
    with pytest.raises(UserError, match="person 99 was asked for"):
        explain_person(detector, scenes / "frames" / "a", 0.1, tmp_path / "figure.png", person=99)


def test_galleries_show_right_and_wrong_answers(detector, scenes, tmp_path):
    index = open_ava(scenes, "test")
    best = top_predictions(detector, index, "walk", tmp_path / "top.png", count=3)
    assert [shown.score for shown in best] == sorted((shown.score for shown in best), reverse=True)
    wrong = failures(detector, index, "run", tmp_path / "wrong.png", count=3)
    assert not any(shown.right for shown in wrong)
    assert Image.open(tmp_path / "wrong.png").size[0] > 200
    with pytest.raises(UserError, match="class 'fly' is not among"):
        failures(detector, index, "fly", tmp_path / "wrong.png")
