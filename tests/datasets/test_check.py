"""Each kind of trouble is planted once, and found once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from marey.datasets.check import MEANING, check_dataset, class_in_name, write_findings
from marey.datasets.fingerprint import near_duplicates
from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.open import open_dataset
from marey.transforms.functional import resize
from marey.video.encode import write_video


def scene(seed: int, num: int = 12, size: int = 96) -> torch.Tensor:
    """uint8 (T, 3, H, W): a random coarse texture with a square that moves across it."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator) * 200 + 20
    frames = (
        torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
        .clamp(0, 255)
        .repeat(num, 1, 1, 1)
    )
    for t in range(num):
        frames[t, :, 30:50, 4 * t : 4 * t + 20] = 250
    return frames.to(torch.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two classes of three readable videos each, and one of every trouble."""
    root = tmp_path_factory.mktemp("set")
    for k in range(6):
        name = root / ("run" if k < 3 else "jump") / f"v{k}.mp4"
        name.parent.mkdir(exist_ok=True)
        write_video(name, scene(k), 10)
    (root / "run" / "again.mp4").write_bytes((root / "run" / "v0.mp4").read_bytes())
    write_video(root / "run" / "small.mp4", resize(scene(1), 64, 64), 10, crf=30)
    (root / "jump" / "empty.mp4").write_bytes(b"")
    whole = (root / "jump" / "v4.mp4").read_bytes()
    write_video(root / "jump" / "cut.mkv", scene(7, 40), 10, gop=5)
    cut = (root / "jump" / "cut.mkv").read_bytes()
    (root / "jump" / "cut.mkv").write_bytes(cut[: len(cut) * 3 // 4])
    (root / "run" / "also_jumps.mp4").write_bytes(whole)
    return root


def kinds(report) -> dict[str, list[tuple[str, ...]]]:
    """Kind -> the entries concerned."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for finding in report.findings:
        found.setdefault(finding.kind, []).append(finding.paths)
    return found


def test_every_planted_trouble_is_found_once_and_nothing_else(folder):
    report = check_dataset(open_dataset(folder), workers=1)
    assert kinds(report) == {
        "unreadable": [("jump/empty.mp4",)],
        "damaged": [("jump/cut.mkv",)],
        "duplicate": [("run/again.mp4", "run/v0.mp4")],
        "conflict": [("jump/v4.mp4", "run/also_jumps.mp4")],
        "near_duplicate": [("run/small.mp4", "run/v1.mp4")],
    }
    assert {f.kind for f in report.errors} == {"unreadable", "conflict"}
    assert report.num_readable == len(report.index) - 1


def test_without_pictures_only_equal_bytes_are_found(folder):
    assert "near_duplicate" not in kinds(
        check_dataset(open_dataset(folder), pictures=False, workers=2)
    )


def test_the_same_video_in_two_splits_is_a_leak(folder):
    index = open_dataset(folder)
    samples = tuple(
        replace(s, split="test" if s.path.stem in ("again", "small") else "train")
        for s in index.samples
    )
    report = check_dataset(replace(index, samples=samples), workers=1)
    assert sorted(kinds(report)["leak"]) == [
        ("run/again.mp4", "run/v0.mp4"),
        ("run/small.mp4", "run/v1.mp4"),
    ]


def index_of(*samples: Sample, classes: tuple[str, ...] = ("a", "b")) -> DatasetIndex:
    """An index of entries that need not exist."""
    return DatasetIndex(
        samples=samples, class_names=classes, name="manifest", root=Path("/nowhere")
    )


def test_missing_entries_groups_in_two_splits_unseen_and_single_classes_are_named():
    entries = [
        Sample(path=Path("/nowhere/x.mp4"), label="a", split="train", group="g1"),
        Sample(path=Path("/nowhere/y.mp4"), label="b", split="test", group="g1"),
        Sample(path=Path("/nowhere/z.mp4"), label=None, split="test"),
    ]
    report = check_dataset(index_of(*entries))
    assert kinds(report) == {
        "missing": [("x.mp4",), ("y.mp4",), ("z.mp4",)],
        "unlabelled": [("z.mp4",)],
        "leak": [()],
        "unseen_class": [()],
    }
    assert "one_class" in kinds(check_dataset(index_of(entries[0], classes=("a",))))


@pytest.mark.parametrize(
    ("stem", "told"),
    [
        ("v_HandStandPushups_g01_c01", "HandstandPushups"),
        ("v_Archery_g01_c01", None),
        ("holiday", None),
        ("#20_Rhythm_climb_u_nm_np1_fr_goo_0", "climb"),
        ("some_film_climb_stairs_f_cm_np2_le_bad_12", "climb stairs"),
    ],
)
def test_official_file_names_state_their_class(stem, told):
    assert class_in_name(stem, ("HandstandPushups", "climb", "climb stairs", "stairs")) == told


def test_a_name_that_says_another_class_is_mislabelled():
    report = check_dataset(index_of(Sample(path=Path("/nowhere/v_b_g01_c01.avi"), label="a")))
    assert kinds(report)["mislabelled"] == [("v_b_g01_c01.avi",)]


def test_plain_pictures_are_not_compared():
    black = np.zeros((3, 16, 16), np.float32)
    assert near_duplicates([black, black, None]) == []


def test_stills_single_frames_and_empty_classes_are_found(tmp_path):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 255, (12, 3, 6, 8), generator=generator).to(torch.uint8)
    moving = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)
    write_video(tmp_path / "a" / "moving.mp4", moving, 10)
    write_video(tmp_path / "a" / "still.mp4", moving[:1].repeat(12, 1, 1, 1), 10)
    write_video(tmp_path / "b" / "one.mp4", moving[5:6], 10)
    (tmp_path / "empty").mkdir()
    report = check_dataset(open_dataset(tmp_path), workers=1)
    found = {(f.kind, f.paths) for f in report.findings if f.kind in ("still", "empty_class")}
    assert found == {
        ("still", ("a/still.mp4",)),
        ("still", ("b/one.mp4",)),
        ("empty_class", ()),
    }
    assert report.seconds == pytest.approx((0.1, 1.2, 1.2))


def test_blocks_find_the_same_pairs_as_loops():
    rng = np.random.default_rng(0)
    prints = [rng.normal(128, 40, (3, 16, 16)).astype(np.float32) for _ in range(40)]
    prints += [prints[k] + rng.normal(0, 1, (3, 16, 16)).astype(np.float32) for k in (3, 17)]
    assert near_duplicates(prints) == [(3, 40), (17, 41)]


def test_findings_are_written_as_csv(folder, tmp_path):
    report = check_dataset(open_dataset(folder), workers=1)
    write_findings(report, tmp_path / "findings.csv")
    lines = (tmp_path / "findings.csv").read_text().splitlines()
    assert lines[0] == "kind,path,message"
    assert len(lines) == 1 + sum(max(1, len(f.paths)) for f in report.findings)
    assert set(report.to_dict()["counts"]) <= set(MEANING)


def test_real_videos_of_one_place_are_not_taken_for_duplicates(shared_dir):
    index = open_dataset(shared_dir / "data" / "ut_interaction")
    samples = index.samples[:24]
    few = replace(index, samples=samples, class_names=tuple({s.label for s in samples}))
    assert check_dataset(few, workers=2).findings == []
