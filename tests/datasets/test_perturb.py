"""A perturbed copy: same layout, same bytes for the same seed, resumable, and honest about what it
cannot read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from marey.datasets import open_dataset, perturb_video
from marey.datasets import perturb as module
from marey.datasets.index import DatasetIndex
from marey.datasets.perturb import perturb_dataset
from marey.datasets.perturb_plan import plan, video_seed
from marey.errors import UserError
from marey.video.decode import open_video
from marey.video.encode import write_video


@pytest.fixture
def data(tmp_path: Path) -> DatasetIndex:
    """Two classes with one video of ten frames each."""
    for name, level in (("run", 60), ("jump", 180)):
        frames = torch.full((10, 3, 48, 64), level, dtype=torch.uint8)
        frames[:, 0] = torch.arange(64, dtype=torch.uint8) * 3
        frames += torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1) * 4
        write_video(tmp_path / "set" / name / f"{name}1.mp4", frames, fps=25.0)
    return open_dataset(tmp_path / "set")


def copy(
    data: DatasetIndex,
    out: Path,
    kinds: tuple[str, ...] = ("gaussian_noise",),
    severities: tuple[int, ...] = (3,),
    **options: object,
) -> dict:
    return perturb_dataset(data, out, kinds, severities, workers=1, short_side=48, **options)  # type: ignore[arg-type]


def test_one_kind_keeps_the_layout_and_reads_as_a_data_set(
    data: DatasetIndex, tmp_path: Path
) -> None:
    result = copy(data, tmp_path / "P")
    assert result["written"] == 2
    again = open_dataset(tmp_path / "P")
    assert again.class_names == data.class_names
    assert sorted(again.relative_path(sample) for sample in again.samples) == [
        "jump/jump1.mp4",
        "run/run1.mp4",
    ]
    row = next(csv.DictReader((tmp_path / "P" / "manifest.csv").open()))
    assert (row["corruption"], row["severity"], row["profile"], row["seed"]) == (
        "gaussian_noise",
        "3",
        "rose",
        "0",
    )
    with (
        open_video(tmp_path / "P" / "run" / "run1.mp4") as noisy,
        open_video(data.samples[1].path) as clean,
    ):
        assert (noisy.num_frames, noisy.fps) == (clean.num_frames, clean.fps)
        difference = noisy.frames_at([4]).frames.float() - clean.frames_at([4]).frames.float()
        assert difference.abs().mean() > 5


def test_several_kinds_go_to_their_own_folders(data: DatasetIndex, tmp_path: Path) -> None:
    result = copy(data, tmp_path / "P", ("contrast", "freeze"), (1, 5))
    assert len(result["manifests"]) == 4
    assert len(open_dataset(tmp_path / "P" / "freeze" / "5")) == 2
    with open_video(tmp_path / "P" / "freeze" / "5" / "run" / "run1.mp4") as frozen:
        frames = frozen.frames_at([0, 9]).frames.float()
        assert (frames[0] - frames[1]).abs().max() <= 4


def test_random_draws_one_kind_per_video_from_its_name(data: DatasetIndex, tmp_path: Path) -> None:
    jobs = plan(
        data, tmp_path / "P", ["random"], [1, 2, 3, 4, 5], profile="rose", seed=3, short_side=48
    )
    assert len(jobs) == 2
    assert jobs == plan(
        data, tmp_path / "P", ["random"], [1, 2, 3, 4, 5], profile="rose", seed=3, short_side=48
    )
    draws = {
        (job.corruption.name, job.corruption.severity)
        for seed in range(40)
        for job in plan(
            data,
            tmp_path / "P",
            ["random"],
            [1, 2, 3, 4, 5],
            profile="rose",
            seed=seed,
            short_side=48,
        )
    }
    assert len({kind for kind, _ in draws}) > 12
    assert {severity for _, severity in draws} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("kind", ["gaussian_noise", "h264_crf", "jumble"])
def test_same_seed_same_bytes_and_another_seed_other_bytes(
    kind: str, data: DatasetIndex, tmp_path: Path
) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        copy(data, tmp_path / name, (kind,), seed=seed)
    first, second, other = ((tmp_path / name / "run" / "run1.mp4").read_bytes() for name in "abc")
    assert first == second
    assert (first == other) == (kind == "h264_crf")
    assert video_seed(0, "a", "fog", 1) != video_seed(0, "b", "fog", 1)


def test_a_run_that_was_cut_short_goes_on(data: DatasetIndex, tmp_path: Path) -> None:
    out = tmp_path / "P"
    copy(data, out)
    whole = {path: path.read_bytes() for path in out.rglob("*.mp4")}
    log = out / "corruptions.jsonl"
    lines = log.read_text().splitlines()
    log.write_text(lines[0] + "\n" + lines[1][:20])  # killed while writing the second line
    (out / json.loads(lines[1])["target"]).unlink()
    result = copy(data, out)
    assert (result["written"], result["kept"]) == (1, 1)
    assert {path: path.read_bytes() for path in out.rglob("*.mp4")} == whole
    assert copy(data, out)["written"] == 0


def test_an_unreadable_video_is_named_and_the_rest_goes_on(
    data: DatasetIndex, tmp_path: Path
) -> None:
    (data.root / "run" / "broken.mp4").write_bytes(b"not a video")
    result = copy(open_dataset(data.root), tmp_path / "P")
    assert result["written"] == 2
    assert [entry["name"] for entry in result["failed"]] == ["run/broken.mp4"]
    assert "broken.mp4" in result["failed"][0]["error"]
    assert len(open_dataset(tmp_path / "P")) == 2


def test_folders_that_must_not_be_written_are_refused(
    data: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="the output folder is the data set itself"):
        copy(data, data.root)
    copy(data, tmp_path / "P")
    with pytest.raises(UserError, match=r"exists and holds something other.*--force"):
        copy(data, tmp_path / "P", seed=9)
    assert copy(data, tmp_path / "P", seed=9, force=True)["written"] == 2
    with pytest.raises(UserError, match="severity is one of"):
        copy(data, tmp_path / "Q", severities=(6,))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(UserError, match="are free; free some space"):
        copy(data, tmp_path / "R")


def test_long_videos_are_corrupted_in_windows_with_one_draw_per_clip(
    data: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perturb_video, "WINDOW_FRAMES", 4)
    job = plan(data, tmp_path, ["translate"], [5], profile="rose", seed=0, short_side=0)[0]
    with open_video(job.source) as reader:
        windows = list(perturb_video.perturbed_frames(job, reader))
    assert [len(window) for window in windows] == [4, 4, 2]
    black = [(window == 0).all(1).float().mean() for window in windows]
    assert black[0] == black[1] == black[2]


def test_a_manifest_that_lies_elsewhere_is_copied_from_the_common_folder_down(
    data: DatasetIndex, tmp_path: Path
) -> None:
    manifest = tmp_path / "elsewhere" / "videos.csv"
    manifest.parent.mkdir()
    rows = [f"{sample.path.resolve()},{sample.label}\n" for sample in data.samples]
    manifest.write_text("path,label\n" + "".join(rows))
    jobs = plan(
        open_dataset(manifest), tmp_path / "P", ["fog"], [1], profile="rose", seed=0, short_side=48
    )
    assert sorted(Path(job.target).relative_to(tmp_path / "P").as_posix() for job in jobs) == [
        "jump/jump1.mp4",
        "run/run1.mp4",
    ]
