"""Every full-scale cell of every study runs for two steps on a tiny data set in its layout."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from marey.checkpoints.folder import save_checkpoint
from marey.cli import build_app
from marey.corruptions import SEVERITIES
from marey.datasets.open import open_dataset
from marey.datasets.perturb import perturb_dataset
from marey.datasets.youtube8m import FrameExample, write_examples
from marey.datasets.youtube8m_labels import write_vocabulary
from marey.models import create_model
from marey.papers import hmdb_study
from marey.papers.cells import Cell, ReproduceOptions
from marey.papers.run import run_cells
from marey.training.config import TrainConfig, override
from marey.training.loop import train
from marey.video.decode import open_video
from marey.video.encode import write_video

pytestmark = pytest.mark.slow

SHORT = [
    "train.max_steps=2",
    "train.batch_size=2",
    "train.eval_every=2",
    "train.precision=fp32",
    "train.workers=0",
    "train.calibrate=false",
    "train.tensorboard=false",
]
SMALL = ["data.preprocess.image_size=32", "data.preprocess.short_side=32"]
DENSE = ["data.preprocess.sampling.stride_frames=2"]
"""The tiny videos have 20 frames; at a stride of 32 clips repeat them, and have no order."""
NARROW = ["model.arguments.embed_dim=48", "model.arguments.depth=2", "model.arguments.num_heads=4"]
NARROW_GAT = [
    "data.features.max_val_videos=5",
    "model.arguments.hidden_dim=64",
    "model.arguments.ffn_ratio=0.25",
    'model.arguments.dim={"rgb":32,"audio":16}',
]
NARROW_AVA = [
    "data.preprocess.image_size=64",
    "data.preprocess.sampling.num_frames=16",
    "train.accumulate=1",
    "model.arguments.width=0.125",
    "model.arguments.query_channels=16",
    "model.arguments.rpn_channels=32",
    "model.arguments.anchor_sizes=[16,32,48]",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny data sets, and of two tiny public models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2]))
        tiny = importlib.import_module("benchmarks.reference_data")
    root = tmp_path_factory.mktemp("data")
    tiny.make_clip_layouts(root)
    tiny.make_ava(root / "ava", scenes=False)
    (root / "youtube8m").mkdir()
    shards = tiny.youtube8m_videos()
    # Five of these choose the checkpoint; five parts of the rest need five videos. The official
    # test partition has no labels.
    shards["validate0000.tfrecord"] = shards["train0000.tfrecord"] * 2
    shards["test0000.tfrecord"] = [
        {**video, "labels": ()} for video in shards["train0000.tfrecord"]
    ]
    write_vocabulary(root / "youtube8m" / "vocabulary.csv", [f"class {k}" for k in range(110)])
    for name, videos in shards.items():
        write_examples(root / "youtube8m" / name, [FrameExample(**video) for video in videos])
    for name, model in tiny.tiny_public_models().items():
        model.save_pretrained(root / name, safe_serialization=True)
    return root


def narrowed(settings: list[str]) -> Callable[..., Any]:
    """Return `train` for configurations with some settings changed."""

    def run(config: TrainConfig, out: Path, **options: Any) -> Any:
        return train(override(config, [*SHORT, *settings]), out, **{**options, "quiet": True})

    return run


def run_all(cells: list[Cell], out: Path) -> dict[str, dict[str, list[float]]]:
    """Run cells; returns name -> metrics, after seeing that none failed."""
    results = run_cells(cells, out, scale="full", say=lambda line: None)
    errors = [error for result in results for error in result.errors]
    assert not errors, "\n".join(errors)
    assert all(result.seeds_run for result in results)
    return {result.name: result.values for result in results}


def options(data: Path, tmp_path: Path) -> ReproduceOptions:
    return ReproduceOptions(scale="full", data=str(data), seeds=1, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("prefix", "folder", "count"),
    [("Jester", "jester", 10), ("SSv2", "something_v2", 4), ("K400", "kinetics400", 4)],
)
def test_direcformer_from_the_command_to_the_table(
    prefix: str, folder: str, count: int, data: Path, tmp_path: Path
) -> None:
    """Every cell, started from an image ViT, on the official lists (whose test parts have no labels
    for Jester and SSv2)."""
    vit = tiny_vit(tmp_path / "vit")
    jitter = ["augment.short_side_range=[32,40]"]
    settings = [*SHORT, *SMALL, *DENSE, *NARROW, *jitter]
    words = ["reproduce", "direcformer", "--scale", "full", "--data", str(data / folder)]
    words += ["--cells", f"{prefix} *", "--seeds", "1", "--device", "cpu", "--init", str(vit)]
    words += [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(build_app(), [*words, "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    rows = [row for row in json.loads(result.stdout)["rows"] if row["cell"].startswith(prefix)]
    assert len(rows) == count
    assert all(row["status"] == "run" and row["paper"] for row in rows)
    assert all(0 <= row["ours"]["top1"]["mean"] <= 100 for row in rows)

    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert f"--init {vit}" in table["command"]
    kept = {path.name for run in (tmp_path / "out/cache/runs").iterdir() for path in run.iterdir()}
    assert not {name for name in kept if "cache" in name or "epoch" in name}


def tiny_vit(folder: Path) -> Path:
    """Write an image ViT of `NARROW`'s size in the layout of transformers."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        image_size=32,
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("prefix", "folder", "split"),
    [
        ("UCF-101P", "ucf101", "test"),
        ("HMDB-51P", "hmdb51", "test"),
        ("Kinetics-400P", "kinetics400", "val"),
    ],
)
def test_sevitar_from_the_command_to_the_table(
    prefix: str, folder: str, split: str, data: Path, tmp_path: Path
) -> None:
    """Every cell on the official lists and on the perturbed copy of the videos they test, the
    transformers started from an image ViT."""
    index = open_dataset(data / folder).split(split)
    perturb_dataset(index, data / f"{folder}-P", ["random"], SEVERITIES, short_side=0, workers=1)
    vit = tiny_vit(tmp_path / "vit")
    common = [*SHORT, *SMALL, "augment.short_side_range=[32,32]"]
    runs = [
        (f"{prefix} TimeSformer,{prefix} SeViTAR", [*common, *NARROW]),
        (f"{prefix} I3D", [*common, "model.arguments.width=0.125"]),
    ]
    for cells, settings in runs:
        words = ["reproduce", "sevitar", "--scale", "full", "--data", str(data / folder)]
        words += ["--cells", cells, "--seeds", "1", "--device", "cpu", "--init", str(vit)]
        words += [word for setting in settings for word in ("--set", setting)]
        result = CliRunner().invoke(build_app(), [*words, "--out", str(tmp_path / "out"), "--json"])
        assert result.exit_code == 0, result.output
        rows = [row for row in json.loads(result.stdout)["rows"] if row["cell"] in cells.split(",")]
        assert [row["cell"] for row in rows] == cells.split(",")
        for row in rows:
            assert row["status"] == "run"
            for metric in ("clean", "perturbed", "perturbed_mini"):
                assert 0 <= row["ours"][metric]["mean"] <= 100

    configs = {
        path.parent.parent.name: json.loads(path.read_text())["extra"]["config"]
        for path in (tmp_path / "out/cache/runs").glob("*/last/config.json")
    }
    for name, config in configs.items():
        is_staged, is_i3d = "-SeViTAR-" in name, "-I3D-" in name
        assert config["train"]["max_steps"] == (4 if is_staged else 2)  # two move the backbone
        assert (config["model"]["init_from"] is None) == is_i3d


def test_action_transformer_from_the_command_to_the_table(data: Path, tmp_path: Path) -> None:
    """Every cell, from an I3D's weights, on videos and the official CSVs."""
    root = tmp_path / "ava"
    shutil.copytree(data / "ava", root)
    for folder in sorted((root / "frames").iterdir()):
        with open_video(folder) as reader:
            frames = reader.frames_at(list(range(reader.num_frames))).frames
        (root / "videos_15min").mkdir(exist_ok=True)
        write_video(root / "videos_15min" / f"{folder.name}.mp4", frames, 30.0)
    shutil.rmtree(root / "frames")
    i3d = create_model("i3d", num_classes=4, width=0.125)
    save_checkpoint(tmp_path / "i3d", i3d, class_names=list("abcd"), preprocess=None)

    words = ["reproduce", "action-transformer", "--scale", "full", "--data", str(root)]
    words += ["--seeds", "1", "--device", "cpu", "--init", str(tmp_path / "i3d")]
    words += [word for setting in [*SHORT, *NARROW_AVA] for word in ("--set", setting)]
    result = CliRunner().invoke(build_app(), [*words, "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert all(row["status"] == "run" for row in rows)
    pictures = [row["cell"] for row in rows if not row["paper"]]
    assert pictures == ["Fig. 4", "Fig. 5", "Fig. 6", "Fig. 7"]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        f"fig{number}.png" for number in (4, 5, 6, 7)
    }
    rows = [row for row in rows if row["paper"]]
    assert len(rows) == 13
    assert all(0 <= row["ours"]["mAP"]["mean"] <= 100 for row in rows)
    assert all(row["ours"]["params"]["mean"] < 10 for row in rows)  # of the narrow models
    assert (tmp_path / "out" / "contrasts.json").is_file()


def test_gat_from_the_command_to_tables_and_figures(data: Path, tmp_path: Path) -> None:
    """The first five videos of the validate shards choose, the rest is the test set; the official
    test shards have no labels."""
    out = tmp_path / "out"
    words = ["reproduce", "gat", "--scale", "full", "--data", str(data / "youtube8m")]
    words += ["--seeds", "1", "--device", "cpu", "--out", str(out), "--json"]
    for setting in (*SHORT, *NARROW_GAT):
        words += ["--set", setting]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 0, result.output
    rows = {row["cell"]: row for row in json.loads(result.stdout)["rows"]}
    assert all(row["status"] == "run" for row in rows.values())
    wanted = {"SA-CE", "S (two global heads)", "T20 50", "alpha 4", "GAT-AdvFr, attacked"}
    assert wanted <= set(rows)
    assert 0 < rows["SA-CE"]["ours"]["gap"]["mean"] <= 100
    assert rows["GMSA-Adv"]["ours"]["eps_percent_rgb"]["mean"] > 0
    assert (out / "fig7.png").is_file()
    assert "| GAT |" in (out / "figures.md").read_text()


def test_hmdb_study(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hmdb_study.run_line

    def run_line(
        name: str, config: TrainConfig, given: ReproduceOptions, seed: int
    ) -> dict[str, Any]:
        model = "tiny_vivit" if "ViViT" in name else "tiny_timesformer"
        start = f"model.init_from=hf:{data / model}"
        return real(name, override(config, [*SHORT, *SMALL, start]), given, seed)

    monkeypatch.setattr(hmdb_study, "run_line", run_line)
    found = run_all(hmdb_study.cells(options(data / "hmdb_simp", tmp_path)), tmp_path / "out")
    assert len(found) == len(hmdb_study.FULL_ROWS)
    assert all(0 <= values["top1"][0] <= 100 for values in found.values())
