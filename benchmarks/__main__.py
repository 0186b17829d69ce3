"""Run every comparison, put each measured value beside its goal, and draw one page of bars.

    python -m benchmarks --out results/benchmarks.json [--only NAME ...] [--quick] [--reuse]

Each benchmark is a process of its own and writes its own JSON beside OUT; `--reuse` takes over
those that are there. The page, OUT with the suffix .html, is one file without scripts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.interleave import machine
from benchmarks.page import write_page

PACKAGES = (
    "marey",
    "torch",
    "torchvision",
    "transformers",
    "av",
    "decord",
    "torchcodec",
    "onnxruntime",
    "torchao",
    "tfrecord",
    "ray",
    "numpy",
)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One number that was promised."""

    what: str
    measured: float
    goal: float
    at_least: bool = True
    """False: the goal is an upper bound."""

    def to_dict(self) -> dict[str, Any]:
        """Return the goal in JSON types, with "met"."""
        met = self.measured >= self.goal if self.at_least else self.measured <= self.goal
        return {
            "what": self.what,
            "measured": round(self.measured, 3),
            "goal": self.goal,
            "bound": "at least" if self.at_least else "at most",
            "met": met,
        }


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One module that measures, and how its result is read."""

    title: str
    file: str
    goals: Callable[[dict[str, Any]], list[Goal]] = lambda result: []
    bars: Callable[[dict[str, Any]], dict[str, float]] = lambda result: {}
    """Label -> height of the bars on the page."""
    unit: str = "ratio"
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] | None = ()
    """More arguments with `--quick`; None: left out then."""


def inference_goals(result: dict[str, Any]) -> list[Goal]:
    """Read the forward pass's goals."""
    return [
        Goal(
            what=f"TimeSformer-B forward, {name.replace('_', ' ')}",
            measured=result["measured"][name],
            goal=goal,
        )
        for name, goal in result["goals"].items()
    ]


def training_goals(result: dict[str, Any]) -> list[Goal]:
    """Read the training step's goals, speed and memory; variants with cheap checkpointing stay in
    its own file."""
    return [
        Goal(
            what=f"TimeSformer-B training step, {name.replace('_', ' ')}",
            measured=value,
            goal=result["goals"][name.rsplit("_", 1)[1]],
            at_least=name.endswith("speed"),
        )
        for name, value in result["measured"].items()
        if "cheap" not in name
    ]


def persons_goals(result: dict[str, Any]) -> list[Goal]:
    """Read how many real people are found, and how fast."""
    auto = result["labelled_frames"]["methods"]["auto"]
    both = result["ut_interaction"]["both_people_of_two"]["auto"]["share"]
    speed = result["chain"]["frames_per_processor_second"]["auto"]["all"]
    return [
        Goal(what="people of 40 pixels found, recall", measured=auto["recall"], goal=0.85),
        Goal(what="people found, precision", measured=auto["precision"], goal=0.9),
        Goal(what="both people of UT-Interaction, share of frames", measured=both, goal=0.85),
        Goal(what="decode, find and follow people, frames a core second", measured=speed, goal=8),
    ]


def decode_goals(result: dict[str, Any]) -> list[Goal]:
    """Read decoding beside each peer: the mean over sizes of the ratios of processor time."""
    return [
        Goal(
            what=f"decoding 8 of 240 frames, {peer} over ours",
            goal=1.4,
            measured=mean(row["cpu_ratios"][peer] for row in result["results"].values()),
        )
        for peer in ("decord", "torchcodec")
    ]


def mean(values: Any) -> float:
    """Return the arithmetic mean."""
    values = list(values)
    return sum(values) / len(values)


BENCHMARKS: dict[str, Benchmark] = {
    "inference": Benchmark(
        title="TimeSformer-B forward, 8 x 224",
        file="inference.json",
        goals=inference_goals,
        bars=lambda r: {
            name: r["timing"]["cpu_seconds"][name]
            for name in ("transformers_fp32", "ours_fp32", "ours_bf16")
        },
        unit="seconds a clip",
        arguments=("--rounds", "3"),
        quick=("--rounds", "1"),
    ),
    "training_step": Benchmark(
        title="TimeSformer-B training step, 8 x 224",
        file="training_step.json",
        goals=training_goals,
        bars=lambda r: {name: row["seconds"] for name, row in r["contestants"].items()},
        unit="seconds a step",
        arguments=("--depth", "2", "--batch", "1", "--rounds", "2"),
        quick=("--depth", "1", "--rounds", "1"),
    ),
    "quantised": Benchmark(
        title="TimeSformer-B forward with 8-bit weights",
        file="quantised.json",
        goals=lambda r: [
            Goal(what=f"8-bit forward ({name}) over transformers fp32", measured=value, goal=2.5)
            for name, value in r["measured"].items()
        ],
        bars=lambda r: r["measured"],
        unit="times the speed of transformers fp32",
        arguments=("--rounds", "3"),
        quick=("--rounds", "1"),
    ),
    "pipeline": Benchmark(
        title="Decode and transform into the model",
        file="pipeline.json",
        goals=lambda r: [
            Goal(
                what="share of time the model waits for data, best number of workers",
                goal=0.1,
                at_least=False,
                measured=min(row["waiting_share"] for row in r["feeding"].values()),
            )
        ],
        bars=lambda r: {
            f"{workers} workers": row["clips_per_second"] for workers, row in r["loading"].items()
        },
        unit="clips/s decoded and transformed",
        quick=("--videos", "8"),
    ),
    "decode": Benchmark(
        title="Decoding: 8 of 240 frames of H.264",
        file="decode.json",
        goals=decode_goals,
        bars=lambda r: {
            f"{peer}, {name}": row["cpu_ratios"][peer]
            for name, row in r["results"].items()
            for peer in ("decord", "torchcodec")
            if name.endswith("1 thread")
        },
        unit="times our processor time",
        quick=("--rounds", "3", "--sizes", "240p", "--threads", "1"),
    ),
    "attention": Benchmark(
        title="Attention over one frame, forward and backward",
        file="attention.json",
        bars=lambda r: {
            f"{kind}, N = {row['N']}": value
            for row in r["space"][1:]
            for kind, value in row["times_the_first"].items()
        },
        unit="times directed attention",
        quick=("--rounds", "1"),
    ),
    "order_training": Benchmark(
        title="DirecFormer training step by attention and losses",
        file="direcformer_training_step.json",
        quick=("--rounds", "1"),
    ),
    "gat": Benchmark(
        title="GAT: eager maps over fused attention",
        file="gat_speed.json",
        bars=lambda r: r["eager_over_fused"],
        unit="times the fused model",
        arguments=("--batch", "16", "--rounds", "1"),
        quick=("--batch", "2", "--rounds", "1"),
    ),
    "youtube8m_reading": Benchmark(
        title="Reading YouTube-8M records",
        file="gat_reading.json",
        goals=lambda r: [
            Goal(
                what="reading records, over the package tfrecord",
                goal=3.0,
                measured=r["paired_ratios"]["tfrecord"],
            )
        ],
        bars=lambda r: r["megabytes_per_second"],
        unit="MB/s",
        quick=("--videos", "20", "--rounds", "3"),
    ),
    "ava_metrics": Benchmark(
        title="AVA metric: per-image loops over ours",
        file="ava_metrics_speed.json",
        bars=lambda r: {"ours": r["ours_seconds"], "per-image loops": r["per_image_style_seconds"]},
        unit="seconds",
        quick=("--boxes", "10000", "--images", "500"),
    ),
    "corruptions": Benchmark(
        title="Corruptions over imagecorruptions",
        file="corruptions_benchmark.json",
        goals=lambda r: [
            Goal(
                what="corruptions, geometric mean over imagecorruptions",
                goal=r["goal"]["geometric_mean"],
                measured=r["geometric_mean_ratio"],
            ),
            Goal(
                what=f"corruptions, slowest kind ({r['slowest_kind']['kind']})",
                goal=r["goal"]["slowest"],
                measured=r["slowest_kind"]["ratio"],
            ),
        ],
        bars=lambda r: {kind.replace("_", " "): row["ratio"] for kind, row in r["kinds"].items()},
        unit="times the peer's frames/s",
        quick=None,
    ),
    "persons": Benchmark(
        title="Real people found in 50 labelled frames",
        file="persons.json",
        goals=persons_goals,
        bars=lambda r: {
            name: row["recall"] for name, row in r["labelled_frames"]["methods"].items()
        },
        unit="recall at IoU .5",
        quick=None,
    ),
    "timeline_memory": Benchmark(
        title="A long video in bounded memory",
        file="timeline_memory.json",
        goals=lambda r: [
            Goal(
                what="timeline: growth of memory from a short to a long video, share",
                goal=0.1,
                measured=r["growth_share"],
                at_least=False,
            )
        ],
        bars=lambda r: {f"{row['minutes']:g} min": row["added_megabytes"] for row in r["videos"]},
        unit="MB added",
        quick=("--minutes", "1", "3"),
    ),
}
"""Name of the module under benchmarks/ -> how it is run and read."""


def machine_rates(repeats: int = 12) -> dict[str, float]:
    """Measure matrix products of a base transformer's MLP and the copying of 256 MB, in processor
    time, best of 3."""
    rates: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        tokens, weight = torch.randn(1569, 768).to(dtype), torch.randn(3072, 768).to(dtype)
        seconds = best(lambda t=tokens, w=weight: [F.linear(t, w) for _ in range(repeats)])
        rates[f"matmul_{name}_gflops"] = round(2 * repeats * 1569 * 768 * 3072 / seconds / 1e9, 1)
    source = torch.ones(64 * 2**20)
    target = torch.empty_like(source)
    seconds = best(lambda: target.copy_(source))
    rates["memory_copy_gigabytes_per_second"] = round(2 * source.numel() * 4 / seconds / 1e9, 1)
    return rates


def best(run: Callable[[], Any], times: int = 3) -> float:
    """Return the least processor time (wall time with several threads) of a few calls, after one
    unmeasured."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    run()
    found = []
    for _ in range(times):
        start = clock()
        run()
        found.append(clock() - start)
    return max(min(found), 1e-9)


def run_benchmark(
    name: str, folder: Path, *, quick: bool, reuse: bool, extra: dict[str, list[str]]
) -> dict[str, Any]:
    """Return {"status", "result"} of one benchmark: run in a process of its own, taken over, left
    out or failed."""
    benchmark, file = BENCHMARKS[name], folder / BENCHMARKS[name].file
    if reuse and file.is_file():
        return {"status": "taken over", "result": json.loads(file.read_text(encoding="utf-8"))}
    if quick and benchmark.quick is None:
        return {"status": "left out by --quick", "result": None}
    arguments = [
        *benchmark.arguments,
        *((benchmark.quick or ()) if quick else ()),
        *extra.get(name, ()),
    ]
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments, "--out", str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode or not file.is_file():
        reason = (done.stderr.strip().splitlines() or ["no result was written"])[-1]
        return {"status": f"failed: {reason[:300]}", "result": None}
    return {"status": "run", "result": json.loads(file.read_text(encoding="utf-8"))}


def collect(
    names: list[str],
    folder: Path,
    *,
    quick: bool,
    reuse: bool,
    extra: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    """Run or take over the benchmarks and read goals and bars from their results."""
    found: dict[str, Any] = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        answer, benchmark = (
            run_benchmark(name, folder, quick=quick, reuse=reuse, extra=extra or {}),
            BENCHMARKS[name],
        )
        result = answer["result"]
        found[name] = {"title": benchmark.title, "file": benchmark.file, "status": answer["status"]}
        if result is not None:
            found[name] |= {
                "command": result.get("command"),
                "date": result.get("date"),
                "goals": [goal.to_dict() for goal in benchmark.goals(result)],
                "bars": benchmark.bars(result),
                "unit": benchmark.unit,
                "reading": result.get("reading"),
                "exponents": result.get("exponents"),
            }
    return found


def main() -> None:
    """Parse, run, state each goal, write the JSON and the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks.json"))
    parser.add_argument(
        "--only",
        nargs="+",
        choices=BENCHMARKS,
        default=list(BENCHMARKS),
        metavar="NAME",
        help=f"of {', '.join(BENCHMARKS)}",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes and few rounds: does everything still run?",
    )
    parser.add_argument("--reuse", action="store_true", help="take over results that are there")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--peer-python", help="for corruptions: Python of an environment with imagecorruptions"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    extra = {"corruptions": ["--peer-python", options.peer_python]} if options.peer_python else {}
    report = {
        "command": " ".join(
            [
                "python -m benchmarks",
                "--out",
                str(options.out),
                *(["--only", *options.only] if len(options.only) < len(BENCHMARKS) else []),
                *(["--reuse"] if options.reuse else []),
                *(["--quick"] if options.quick else []),
            ]
        ),
        "date": datetime.date.today().isoformat(),
        "machine": machine(*PACKAGES),
        "threads": options.threads,
        "rates": machine_rates(),
        "benchmarks": collect(
            options.only, options.out.parent, quick=options.quick, reuse=options.reuse, extra=extra
        ),
    }
    goals = [goal for entry in report["benchmarks"].values() for goal in entry.get("goals", ())]
    missing = [name for name, entry in report["benchmarks"].items() if "goals" not in entry]
    report["reading"] = (
        f"{sum(goal['met'] for goal in goals)} of {len(goals)} goals met; not met: "
        + (
            "; ".join(
                f"{g['what']} {g['measured']:g} ({g['bound']} {g['goal']:g})"
                for g in goals
                if not g["met"]
            )
            or "none"
        )
        + ". Without a result: "
        + (", ".join(missing) or "none")
        + "."
    )
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    write_page(report, options.out.with_suffix(".html"))
    for goal in goals:
        print(
            f"{'met    ' if goal['met'] else 'NOT MET'}  {goal['what']}: {goal['measured']:g} "
            f"({goal['bound']} {goal['goal']:g})"
        )
    print(report["reading"])


if __name__ == "__main__":
    main()
