"""The tiny data sets that `benchmarks.reference` trains on: moving squares in official layouts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import nn
from torchvision.io import write_jpeg

LABELS = ("Clapping", "Jumping Jack", "Waving")
CODECS = {".avi": "mpeg4", ".mp4": "libx264", ".webm": "libvpx-vp9"}
HEIGHT, WIDTH = 48, 64


# ---- pictures ------------------------------------------------------------------------------------


def moving_square(
    seed: int, num_frames: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a square that wanders over a noisy gradient.

    Returns:
        uint8 (T, H, W, 3), and the square's box in each frame, xyxy in [0, 1], float (T, 4).
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    colour = rng.integers(80, 255, 3)
    slope, speed = rng.uniform(0.2, 2.0, 3), rng.uniform(0.5, 3.0, 2)
    side = height // 3
    frames, boxes = [], []
    for t in range(num_frames):
        noise = rng.normal(0, 4, (height, width, 3))
        frame = (x[..., None] * slope + y[..., None] + 5 * t + noise) % 256
        top, left = int(speed[0] * t) % (height - side), int(speed[1] * t) % (width - side)
        frame[top : top + side, left : left + side] = colour
        frames.append(frame.astype(np.uint8))
        boxes.append([left / width, top / height, (left + side) / width, (top + side) / height])
    return np.stack(frames), np.array(boxes)


def write_video(path: Path, seed: int, num_frames: int = 20, fps: int = 10) -> None:
    """Write a moving square as the kind of file the name ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames, _ = moving_square(seed, num_frames, HEIGHT, WIDTH)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix], rate=fps)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_pictures(
    folder: Path, name: str, seed: int, num_frames: int, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> np.ndarray:
    """Write a moving square as JPEG files called `name` ("{:05d}.jpg", from 1); returns boxes."""
    folder.mkdir(parents=True, exist_ok=True)
    frames, boxes = moving_square(seed, num_frames, *size)
    for number, image in enumerate(frames, start=1):
        picture = torch.from_numpy(image).permute(2, 0, 1)
        write_jpeg(picture, str(folder / name.format(number)), quality=95)
    return boxes


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write lines, each with its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))


# ---- clips with a label --------------------------------------------------------------------------


def make_folder(root: Path, labels: Sequence[str], videos: int, num_frames: int, fps: int) -> None:
    """Make class folders of so many videos each."""
    for number, label in enumerate(labels):
        for take in range(videos):
            write_video(root / label / f"{take}.mp4", 1000 + 10 * number + take, num_frames, fps)


def make_clip_layouts(root: Path) -> None:
    """Make the data sets of clips in their official layouts, each with a few videos of 3 labels."""
    make_ucf101(root / "ucf101")
    make_hmdb51(root / "hmdb51")
    make_hmdb_simp(root / "hmdb_simp")
    make_kinetics(root / "kinetics400")
    make_something(root / "something_v2")
    make_jester(root / "jester")


def make_ucf101(root: Path) -> None:
    """UCF101: `UCF-101/<Class>/v_<Class>_gGG_cCC.avi`, three groups to train on, one to test."""
    labels = [label.replace(" ", "") for label in LABELS]
    lines: dict[str, list[str]] = {"trainlist01": [], "testlist01": []}
    for number, label in enumerate(labels, start=1):
        for group in range(1, 5):
            name = f"{label}/v_{label}_g{group:02d}_c01.avi"
            write_video(root / "UCF-101" / name, seed=10 * number + group)
            if group < 4:
                lines["trainlist01"].append(f"{name} {number}")
            else:
                lines["testlist01"].append(name)
    lines["classInd"] = [f"{number} {label}" for number, label in enumerate(labels, start=1)]
    for name, found in lines.items():
        write_lines(root / "ucfTrainTestlist" / f"{name}.txt", found)


def make_hmdb51(root: Path) -> None:
    """HMDB51: `<class>/*.avi`, and a file for each class that says 1 (train) or 2 (test)."""
    for number, label in enumerate(("clap", "jump", "wave")):
        lines = []
        for take in range(4):
            name = f"film{take}_{label}_f_nm_np1_fr_goo_0.avi"
            write_video(root / label / name, seed=100 + 10 * number + take)
            lines.append(f"{name} {1 if take < 3 else 2} ")
        write_lines(root / "testTrainMulti_7030_splits" / f"{label}_test_split1.txt", lines)


def make_hmdb_simp(root: Path) -> None:
    """HMDB_simp, the study's own copy: frame folders, and a CSV for each split."""
    lines = {split: ["class,video_name"] for split in ("train", "val", "test")}
    for number, label in enumerate(("clap", "jump", "wave")):
        for take, split in enumerate(("train", "train", "val", "test")):
            name, seed = f"{number}{take}AB", 200 + 10 * number + take
            write_pictures(root / "HMDB_simp" / label / name, "{:04d}.jpg", seed, num_frames=12)
            lines[split].append(f"{label},{name}")
    for split, found in lines.items():
        write_lines(root / f"{split}.csv", found)


def numbered_videos() -> list[tuple[int, str, str]]:
    """Return (number, label, split) of the videos of data sets that number them."""
    splits = ("train", "train", "validation", "test")
    return [
        (300 + 10 * place + take, label, split)
        for place, label in enumerate(LABELS)
        for take, split in enumerate(splits)
    ]


def make_kinetics(root: Path) -> None:
    """Kinetics-400: `<split>/<label>/<id>_<start>_<end>.mp4`, the test videos without a folder."""
    header = "label,youtube_id,time_start,time_end,split,is_cc"
    lines: dict[str, list[str]] = {}
    for number, label, long_name in numbered_videos():
        split = {"validation": "val"}.get(long_name, long_name)
        folder = root / split / label if split != "test" else root / split
        write_video(folder / f"id{number}_000010_000020.mp4", seed=number)
        lines.setdefault(split, [header]).append(f"{label},id{number},10,20,{split},0")
    for split, found in lines.items():
        write_lines(root / f"{split}.csv", found)


def make_something(root: Path) -> None:
    """Something-Something V2: `<id>.webm`, and JSON with templates and numbers of the labels."""
    entries: dict[str, list[dict[str, str]]] = {}
    for number, label, split in numbered_videos():
        write_video(root / "20bn-something-something-v2" / f"{number}.webm", seed=number)
        template = {} if split == "test" else {"template": f"{label} [something]"}
        entries.setdefault(split, []).append({"id": str(number), **template})
    for split, found in entries.items():
        write_lines(root / "labels" / f"{split}.json", [json.dumps(found)])
    numbers = {f"{label} something": str(place) for place, label in enumerate(LABELS)}
    write_lines(root / "labels" / "labels.json", [json.dumps(numbers)])


def make_jester(root: Path) -> None:
    """Jester: folders of JPEG files, and lists with semicolons; the test list has no labels."""
    lines: dict[str, list[str]] = {"labels": list(LABELS)}
    for number, label, split in numbered_videos():
        folder = root / "20bn-jester-v1" / str(number)
        write_pictures(folder, "{:05d}.jpg", seed=number, num_frames=14)
        line = str(number) if split == "test" else f"{number};{label}"
        lines.setdefault(split, []).append(line)
    for name, found in lines.items():
        write_lines(root / f"jester-v1-{name}.csv", found)


# ---- persons, features, public models ------------------------------------------------------------


def make_ava(root: Path, *, scenes: bool) -> None:
    """Make AVA's layout with one person a frame, who does two things.

    Args:
        scenes: short rendered scenes with one key frame each, as `scenes.csv` lists them; else as
            the official data: 30 frames a second from second 900 on.
    """
    listing = ["video,split,fps,key_frame,num_frames"]
    for split, first, count in (("train", 0, 6 if scenes else 2), ("val", 50, 2 if scenes else 1)):
        rows = []
        for number in range(first, first + count):
            folder, length = root / "frames" / f"v{number}", 8 if scenes else 90
            name = f"v{number}_{{:06d}}.jpg"
            boxes = write_pictures(folder, name, 700 + number, length, size=(84, 112))
            listing.append(f"v{number},{split},4.0,4,8")
            for second, frame in ((902, 4),) if scenes else ((901, 30), (902, 60)):
                corners = ",".join(f"{value:.4f}" for value in boxes[frame])
                for action in (3, 10 + number % 2):
                    rows.append(f"v{number},{second:04d},{corners},{action},0")
        write_lines(root / f"ava_{split}_v2.2.csv", rows)

    ids = zip((3, 10, 11), LABELS, strict=True)
    items = [f'item {{\n  name: "{label}"\n  id: {number}\n}}' for number, label in ids]
    write_lines(root / "ava_action_list_v2.2.pbtxt", items)
    if scenes:
        write_lines(root / "scenes.csv", listing)


def youtube8m_videos() -> dict[str, list[dict[str, Any]]]:
    """Return shard -> videos with features of the official widths, 1024 and 128 bytes a second."""
    rng = np.random.default_rng(8)
    shards: dict[str, list[dict[str, Any]]] = {
        "train0000.tfrecord": [],
        "validate0000.tfrecord": [],
    }
    for shard, count in zip(shards, (6, 3), strict=True):
        for number in range(count):
            seconds = int(rng.integers(22, 30))
            rgb = rng.integers(0, 256, (seconds, 1024)).astype(np.uint8)
            audio = rng.integers(0, 256, (seconds, 128)).astype(np.uint8)
            video = {"id": f"{shard[0]}{number:03d}", "labels": (number, 100 + number)}
            shards[shard].append({**video, "features": {"rgb": rgb, "audio": audio}})
    return shards


def tiny_public_models() -> dict[str, nn.Module]:
    """Return a TimeSformer and a ViViT of two narrow blocks, as `transformers` has them."""
    import transformers

    narrow = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    narrow |= {"intermediate_size": 64, "image_size": 32, "num_labels": 4}
    timesformer = transformers.TimesformerConfig(num_frames=8, **narrow)
    vivit = transformers.VivitConfig(num_frames=32, tubelet_size=[2, 16, 16], **narrow)
    return {
        "tiny_timesformer": transformers.TimesformerForVideoClassification(timesformer),
        "tiny_vivit": transformers.VivitForVideoClassification(vivit),
    }
