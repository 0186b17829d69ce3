from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.persons.boxes import FilePersons, TorchvisionPersons
from marey.persons.sources import person_finder

FRAME = torch.zeros(3, 64, 64, dtype=torch.uint8)


def test_an_unknown_torchvision_detector_is_named():
    with pytest.raises(UserError, match="unknown torchvision detector 'fasterrcnn'"):
        person_finder("torchvision:fasterrcnn")


def test_a_file_gives_the_boxes_of_the_nearest_second(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("clip,0001,0.1,0.2,0.3,0.4,,0.9\nclip,0003,0.5,0.5,0.6,0.9,,0.8\n")
    find = FilePersons(path)
    boxes, scores = find(FRAME, "some/where/clip.mp4", 1.4)
    torch.testing.assert_close(boxes, torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
    assert len(scores) == 1
    assert len(find(FRAME, "clip.mp4", 2.0)[0]) == 0
    with pytest.raises(UserError, match="no boxes of video 'other'; it has clip"):
        find(FRAME, "other.mp4", 1.0)


def test_a_torchvision_detector_returns_fractions_of_the_frame():
    find = TorchvisionPersons("ssdlite320_mobilenet_v3_large", weights=None, min_score=0.0)
    boxes, scores = find(FRAME, "clip.mp4", 0.0)
    assert boxes.shape == (len(scores), 4)
    assert not len(boxes) or (boxes.min() >= 0 and boxes.max() <= 1)


def test_hog_finds_pedestrians_of_real_video(shared_dir):
    pytest.importorskip("cv2")
    from marey.video.decode import open_video

    with open_video(shared_dir / "clips" / "pedestrians_walking_opencv_vtest.avi") as reader:
        frame = reader.frames_at([40]).frames[0]
    boxes, scores = person_finder("hog")(frame, "", 4.0)
    assert len(boxes) >= 1
    assert (
        (boxes[:, 3] - boxes[:, 1]) > (boxes[:, 2] - boxes[:, 0]) * reader.width / reader.height / 2
    ).all()
    assert (scores > 0.5).all()
