from __future__ import annotations

import pytest
import torch
from torchvision.io import write_jpeg

from marey.datasets.ava import is_ava, open_ava, read_predicted_boxes
from marey.datasets.ava_clips import AvaDataset, clip_indices, collate_scenes
from marey.errors import UserError
from marey.transforms.augment import Augment
from marey.transforms.preprocess import Preprocess
from marey.video.encode import write_video
from marey.video.sampling import ClipSampling

LABELS = 'item {\n  name: "walk"\n  id: 14\n}\nitem {\n  name: "run"\n  id: 10\n}\n'
ROWS = (
    "v,0901,0.1,0.2,0.5,0.8,14,0\nv,0901,0.1,0.2,0.5,0.8,10,0\nv,0901,0.6,0.2,0.9,0.8,10,1\n"
    "v,0902,0.1,0.2,0.5,0.8,14,0\n"
)


def preprocess(num_frames=4, stride=2):
    return Preprocess(
        sampling=ClipSampling(num_frames=num_frames, stride_frames=stride),
        image_size=32,
        resize_mode="stretch",
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )


def write_folder(root, rows=ROWS, num_frames=90):
    """Frames that carry their number as brightness, in AVA's own layout: 30 a second from second
    900."""
    folder = root / "frames" / "v"
    folder.mkdir(parents=True)
    for i in range(num_frames):
        write_jpeg(
            torch.full((3, 40, 60), 2 * i, dtype=torch.uint8),
            str(folder / f"v_{i + 1:06d}.jpg"),
            quality=95,
        )
    (root / "ava_action_list_v2.2.pbtxt").write_text(LABELS)
    (root / "ava_train_v2.2.csv").write_text(rows)
    return root


def test_clips_are_centred_on_the_key_frame_exactly(tmp_path):
    index = open_ava(write_folder(tmp_path), "train")
    assert is_ava(tmp_path)
    dataset = AvaDataset(index, preprocess())
    numbers = (dataset[(0, 0)]["clip"][:, 0, 16, 16] * 255 / 2).round().tolist()
    assert numbers == [26, 28, 30, 32]  # (901 - 900) * 30 = 30, range(26, 34, 2)
    assert clip_indices(2, 90, 30, preprocess()) == [0, 0, 2, 4]
    assert clip_indices(89, 90, 30, preprocess()) == [85, 87, 89, 89]


def test_rows_of_one_person_become_one_box_with_several_labels(tmp_path):
    index = open_ava(write_folder(tmp_path), "train")
    assert index.class_names == ("walk", "run")
    key = index.key_frames[0]
    assert key.labels.tolist() == [[1, 1], [0, 1]]
    assert key.person_ids == (0, 1)
    torch.testing.assert_close(key.boxes_xyxy_norm[1], torch.tensor([0.6, 0.2, 0.9, 0.8]))
    assert index.class_counts() == {14: 2, 10: 2}


def test_excluded_and_included_seconds_are_obeyed(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "ava_train_excluded_timestamps_v2.2.csv").write_text("v,0901\n")
    assert [key.seconds for key in open_ava(tmp_path, "train").key_frames] == [902]
    (tmp_path / "ava_included_timestamps_v2.2.txt").write_text("0903\n0904\n")
    assert open_ava(tmp_path, "train").key_frames == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "v,0904,0.1,0.2,0.5,0.8,14,0\n",
            r"train_v2.2.csv:1: key frame at second 904 is outside video 'v' \(90 frames",
        ),
        ("v,0901,0.5,0.2,0.5,0.8,14,0\n", r"ava_train_v2.2.csv:1: box .* has no area"),
        ("v,0901,0.1,0.2,0.5,1.8,14,0\n", r"ava_train_v2.2.csv:1: box .* leaves the image"),
        (
            "v,0901,0.1,0.2,0.5,0.8,12,0\n",
            r"ava_train_v2.2.csv:1: action id 12 is not in the label map",
        ),
        ("v,0901,0.1,0.2\n", r"ava_train_v2.2.csv:1: expected 2, 7 or 8 columns"),
        (
            "w,0901,0.1,0.2,0.5,0.8,14,0\n",
            r"no frames of video 'w'; expected frames/w/ or videos/w",
        ),
    ],
)
def test_bad_input_is_named_with_file_and_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        open_ava(write_folder(tmp_path, row), "train")


def test_a_missing_split_says_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"none of ava_val.csv, ava_val_v2.2.csv"):
        open_ava(write_folder(tmp_path), "val")


def test_video_files_give_the_frame_shown_at_the_second(tmp_path):
    frames = (torch.arange(40)[:, None, None, None] * 6).expand(-1, 3, 40, 60).to(torch.uint8)
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "v.mp4", frames, fps=10)
    (tmp_path / "ava_action_list.pbtxt").write_text(LABELS)
    (tmp_path / "ava_train.csv").write_text(
        "v,0002,0.1,0.2,0.5,0.8,14,0\nv,0005,0.1,0.2,0.5,0.8,14,0\n"
    )
    dataset = AvaDataset(open_ava(tmp_path, "train"), preprocess(stride=1))
    numbers = (dataset[(0, 0)]["clip"][:, 0, 16, 16] * 255 / 6).round().tolist()
    assert numbers == [18, 19, 20, 21]
    with pytest.raises(
        UserError, match=r"ava_train.csv:2: key frame at second 5 is outside video 'v' \(4.0 s"
    ):
        dataset[(0, 1)]


def test_rendered_scenes_say_their_own_key_frame_and_an_empty_scene_has_no_person(tmp_path):
    write_folder(tmp_path, "v,0902,0.1,0.2,0.5,0.8,14,0\n", num_frames=8)
    (tmp_path / "frames" / "empty").mkdir()
    for i in range(8):
        write_jpeg(
            torch.zeros(3, 40, 60, dtype=torch.uint8),
            str(tmp_path / "frames" / "empty" / f"e_{i:06d}.jpg"),
        )
    (tmp_path / "scenes.csv").write_text(
        "video,split,fps,key_frame,num_frames\nv,train,4.0,4,8\nempty,train,4.0,4,8\n"
    )
    dataset = AvaDataset(open_ava(tmp_path, "train"), preprocess(num_frames=8, stride=1))
    assert (dataset[(0, 0)]["clip"][:, 0, 16, 16] * 255 / 2).round().tolist() == list(range(8))
    batch = collate_scenes([dataset[(0, 0)], dataset[(0, 1)]])
    assert batch["clip"].shape == (2, 8, 3, 32, 32)
    assert [len(boxes) for boxes in batch["boxes_xyxy_norm"]] == [1, 0]
    assert batch["labels"][1].shape == (0, 2)


def test_boxes_follow_flips_and_crops(tmp_path):
    write_folder(tmp_path)
    spec = preprocess()
    flip = AvaDataset(
        open_ava(tmp_path, "train"), spec, Augment(preprocess=spec, crop="none", flip=1.0)
    )
    torch.testing.assert_close(
        flip[(0, 0)]["boxes_xyxy_norm"][1], torch.tensor([0.1, 0.2, 0.4, 0.8])
    )
    crops = AvaDataset(
        open_ava(tmp_path, "train"),
        spec,
        Augment(preprocess=spec, crop="random_resized", area_range=(0.1, 0.3), flip=0.0),
    )
    counts = set()
    for epoch in range(12):
        item = crops[(epoch, 0)]
        counts.add(len(item["boxes_xyxy_norm"]))
        assert item["labels"].shape == (len(item["boxes_xyxy_norm"]), 2)
        assert ((item["boxes_xyxy_norm"] >= 0) & (item["boxes_xyxy_norm"] <= 1)).all()
    assert len(counts) > 1  # some persons were cut away
    torch.testing.assert_close(crops[(3, 0)]["clip"], crops[(3, 0)]["clip"])


def test_predicted_boxes_are_read_best_first_above_a_score(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        "v,0901,0.1,0.2,0.5,0.8,,0.85\nv,0901,0.2,0.2,0.5,0.8,,0.95\nv,0902,0.2,0.2,0.5,0.8,,0.5\n"
    )
    boxes = read_predicted_boxes(path)
    torch.testing.assert_close(boxes[("v", 901.0)][:, 0], torch.tensor([0.2, 0.1]))
    assert boxes[("v", 902.0)].shape == (0, 4)
    dataset = AvaDataset(open_ava(write_folder(tmp_path), "train"), preprocess(), proposals=boxes)
    assert dataset[(0, 0)]["proposals"].shape == (2, 4)
