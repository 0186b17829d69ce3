"""TimeSformer-B forward with 8-bit weights (ONNX Runtime) beside fp32, and what 8 bits cost in
answers.

    python -m benchmarks.quantised --out results/quantised.json [--depth 12] [--data
    ../shared/data/ut_interaction]

The model is exported by `marey export --format onnx` with and without `--int8`; contestants take
turns. With `--data` the bundled marey-mini-rgb is exported too, and both forms answer the videos:
the share of videos with the same answer.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.inference import strong_weights
from benchmarks.interleave import interleave, machine
from benchmarks.training_step import BASE, build
from marey.checkpoints.export import accuracy_cost, export_onnx
from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.models import create_model
from marey.transforms.preprocess import Preprocess


def session_of(path: Path, threads: int) -> Any:
    """Open an ONNX file on the CPU with that many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure(folder: Path, depth: int, rounds: int, threads: int) -> dict[str, Any]:
    """Export, time in turns, compare the logits."""
    ours = create_model("timesformer", num_classes=400, depth=depth).eval()
    strong_weights(ours)
    save_checkpoint(
        folder / "model", ours, class_names=[str(k) for k in range(400)], preprocess=Preprocess()
    )
    checkpoint = load_checkpoint(folder / "model")
    differences = {
        name: export_onnx(checkpoint, folder / f"{name}.onnx", int8=name == "int8")
        for name in ("fp32", "int8")
    }
    half = create_model("timesformer", num_classes=400, depth=depth).eval()
    half.load_state_dict(ours.state_dict())
    half = half.to(torch.bfloat16)
    theirs = build("transformers", depth, False, BASE).eval()
    sessions = {name: session_of(folder / f"{name}.onnx", threads) for name in ("fp32", "int8")}
    clip = torch.randn(1, 8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        timing = interleave(
            {
                "transformers fp32": lambda: theirs(clip),
                "marey fp32": lambda: ours(clip),
                "marey bf16": lambda: half(clip.bfloat16()),
                "onnx fp32": lambda: sessions["fp32"].run(None, {"clip": clip.numpy()}),
                "onnx int8": lambda: sessions["int8"].run(None, {"clip": clip.numpy()}),
            },
            rounds,
        )
    seconds = timing["cpu_seconds" if threads == 1 else "seconds"]
    measured = {
        name: round(seconds["transformers fp32"] / seconds[name], 3) for name in ("onnx int8",)
    }
    return {
        "depth": depth,
        "timing": timing,
        "relative_difference_of_outputs": differences,
        "measured": measured,
        "also_measured": {
            name: round(seconds["transformers fp32"] / seconds[name], 3)
            for name in ("marey fp32", "marey bf16", "onnx fp32")
        },
        "megabytes": {
            name: round((folder / f"{name}.onnx").stat().st_size / 2**20, 1) for name in sessions
        },
        "goals": {"int8_speedup": 2.5},
        "met": {"int8_speedup": measured["onnx int8"] >= 2.5},
    }


def mini_cost(folder: Path, data: str, limit: int | None) -> dict[str, Any]:
    """Return what 8 bits cost marey-mini-rgb on a data set."""
    checkpoint = load_checkpoint("marey-mini-rgb")
    difference = export_onnx(checkpoint, folder / "mini.onnx", int8=True)
    return {
        "model": "marey-mini-rgb",
        "data": data,
        "relative_difference_of_outputs": difference,
        **accuracy_cost(checkpoint, folder / "mini.onnx", data, limit=limit),
    }


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/quantised.json"))
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", help="labelled videos for marey-mini-rgb's accuracy cost")
    parser.add_argument("--limit", type=int, help="use that many videos")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), options.depth, options.rounds, options.threads)
        if options.data:
            result["accuracy"] = mini_cost(Path(name), options.data, options.limit)
    more = f" --data {options.data} --limit {options.limit}" if options.data else ""
    result = {
        "command": f"python -m benchmarks.quantised --depth {options.depth} --rounds "
        f"{options.rounds} --threads "
        f"{options.threads}{more} --out {options.out}",
        "date": datetime.date.today().isoformat(),
        "threads": options.threads,
        "machine": machine("torch", "transformers", "onnxruntime"),
        **result,
        "reading": reading(result),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def reading(result: dict[str, Any]) -> str:
    """Say in words what was met and what it cost."""
    speed, also = result["measured"]["onnx int8"], result["also_measured"]
    text = (
        f"{result['depth']} of TimeSformer-B's 12 blocks, one clip: 8-bit weights and products in "
        "ONNX Runtime "
        f"run {speed} times as fast as transformers in fp32 (goal 2.5: "
        f"{'met' if speed >= 2.5 else 'not met'}); "
        f"bf16 in PyTorch {also['marey bf16']}, fp32 in PyTorch {also['marey fp32']}, fp32 in "
        "ONNX Runtime "
        f"{also['onnx fp32']}. The file has {result['megabytes']['int8']} MB against "
        f"{result['megabytes']['fp32']}; outputs move by "
        f"{result['relative_difference_of_outputs']['int8']:.3f} of "
        "their size on random weights."
    )
    if "accuracy" in result:
        cost = result["accuracy"]
        same, videos = cost["same_answer"], cost["videos"]
        text += f" marey-mini-rgb names the same class on {same:.1%} of {videos} real videos."
    return text


if __name__ == "__main__":
    main()
