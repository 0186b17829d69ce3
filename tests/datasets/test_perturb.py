"""A perturbed copy: same layout, same bytes for the same seed, resumable, and honest about what it
cannot read."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from marey.datasets import open_dataset, perturb_video
from marey.datasets import perturb as module
from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.perturb import perturb_dataset
from marey.datasets.perturb_plan import middle_spans, plan, video_seed
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


# ---- sound and provenance


def add_sound(path: Path, codec: str) -> None:
    """Write a video of ten frames with a tone of .4 s."""
    with av.open(str(path), "w") as out:
        pictures = out.add_stream("mpeg4", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream(codec, rate=16000)
        for level in range(10):
            image = np.full((48, 64, 3), 20 * level, np.uint8)
            out.mux(pictures.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(pictures.encode(None))
        tone = (8000 * np.sin(np.arange(6400) * 0.2)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate = 16000
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))


def samples_of(path: Path) -> np.ndarray:
    """Return the samples of the first channel of a file's sound."""
    parts = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            step = 1 if frame.format.is_planar else len(frame.layout.channels)
            parts.append(frame.to_ndarray()[0, ::step].astype(np.float64))
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("aac", ".mp4"), ("mp3", ".avi"), ("pcm_s16le", ".avi")]
)
def test_the_sound_is_kept(codec: str, suffix: str, tmp_path: Path) -> None:
    source = tmp_path / "set" / "run" / f"a{suffix}"
    source.parent.mkdir(parents=True)
    try:
        add_sound(source, codec)
    except (ValueError, av.error.FFmpegError):
        pytest.skip(f"this FFmpeg does not encode {codec}")
    copy(open_dataset(tmp_path / "set"), tmp_path / "P")
    kept, original = samples_of(tmp_path / "P" / "run" / "a.mp4"), samples_of(source)
    assert abs(len(kept) - len(original)) <= 2048  # an encoder's priming
    assert kept.std() / np.abs(kept).max() > 0.3  # a tone, not silence
    row = next(csv.DictReader((tmp_path / "P" / "manifest.csv").open()))
    assert row["sound"] == "kept"


def test_the_manifest_names_seeds_and_digests(data: DatasetIndex, tmp_path: Path) -> None:
    copy(data, tmp_path / "P", seed=7)
    for row in csv.DictReader((tmp_path / "P" / "manifest.csv").open()):
        source = data.root / row["path"]
        written = (tmp_path / "P" / row["path"]).read_bytes()
        assert row["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
        assert row["sha256"] == hashlib.sha256(written).hexdigest()
        assert row["seed"] == "7"
        assert int(row["video_seed"]) == video_seed(7, row["path"], "gaussian_noise", 3)
        assert row["sound"] == "none"


# ---- untrimmed video


def untrimmed(tmp_path: Path) -> DatasetIndex:
    """A video of 100 frames, 4 s, with two actions."""
    frames = torch.full((100, 3, 48, 64), 90, dtype=torch.uint8)
    frames += (torch.arange(100, dtype=torch.uint8) // 2).view(-1, 1, 1, 1)
    (tmp_path / "set").mkdir()
    write_video(tmp_path / "set" / "long.mp4", frames, fps=25.0)
    rows = "path,label,start_seconds,end_seconds\nlong.mp4,run,0.4,1.2\nlong.mp4,jump,2.0,3.6\n"
    (tmp_path / "set" / "manifest.csv").write_text(rows)
    return open_dataset(tmp_path / "set")


def test_only_the_middle_of_every_action_is_changed(tmp_path: Path) -> None:
    index = untrimmed(tmp_path)
    copy(index, tmp_path / "P", ("brightness",), (5,), within_actions=0.5)
    with (
        open_video(tmp_path / "P" / "long.mp4") as changed,
        open_video(index.samples[0].path) as clean,
    ):
        assert changed.num_frames == 100
        frames = [reader.frames_at(list(range(100))).frames.float() for reader in (changed, clean)]
    difference = (frames[0] - frames[1]).abs().mean((1, 2, 3))
    inside = torch.zeros(100, dtype=torch.bool)
    inside[15:25] = True  # the middle half of .4 to 1.2 s
    inside[60:80] = True  # of 2.0 to 3.6 s
    assert difference[inside].min() > 20
    assert difference[~inside].max() < 8
    again = open_dataset(tmp_path / "P")
    assert [(s.label, s.start_seconds, s.end_seconds) for s in again.samples] == [
        ("run", 0.4, 1.2),
        ("jump", 2.0, 3.6),
    ]


def test_an_order_is_disturbed_inside_the_action_only(tmp_path: Path) -> None:
    job = plan(
        untrimmed(tmp_path),
        tmp_path / "P",
        ["reverse_sampling"],
        [5],
        profile="rose",
        seed=0,
        short_side=0,
        within_actions=0.5,
    )[0]
    with open_video(job.source) as reader:
        frames = torch.cat(list(perturb_video.perturbed_frames(job, reader)))
        clean = reader.frames_at(list(range(100))).frames
    moved = (frames.float() - clean.float()).abs().mean((1, 2, 3)) > 0
    assert len(frames) == 100
    assert moved[15:25].any()
    assert not moved[:15].any()
    assert not moved[25:60].any()
    assert not moved[80:].any()


def test_frames_of_stretches_are_whole_disjoint_and_at_least_one() -> None:
    spans = perturb_video.frame_spans([(0.0, 0.001), (2.0, 2.4), (2.2, 2.6), (9.9, 12.0)], 100, 10)
    assert spans == [range(0, 1), range(20, 26), range(99, 100)]


def test_an_action_without_times_and_a_share_out_of_range_are_refused(data: DatasetIndex) -> None:
    with pytest.raises(UserError, match="no start_seconds and end_seconds"):
        middle_spans(data.samples[:1], 0.1)
    timed = Sample(path=Path("a.mp4"), label="run", start_seconds=0.0, end_seconds=1.0)
    with pytest.raises(UserError, match="above 0 and at most 1, got 2"):
        middle_spans([timed], 2.0)
    assert middle_spans([timed], 0.1) == ((pytest.approx(0.45), pytest.approx(0.55)),)
