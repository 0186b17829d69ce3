"""A campaign of damaged inputs: nothing may crash, hang, or fail without naming the file.

    python -m benchmarks.reliability --out results/reliability.json [--scale 1.0] [--only NAME ...]

A case is `ok` (read, perhaps with a note of damage), `named` (one line of a UserError that holds
the path), or a failure: `unnamed` (any other exception, or a message without the path), `crash`
(the process died) or `hang` (no answer within `LIMIT_SECONDS`). Cases run in worker processes, so
that a crash is counted and the campaign goes on; every case is drawn from its number, so that it
can be repeated:  python -m benchmarks.reliability --worker NAME FIRST LAST FOLDER.

What is finished stands beside OUT (`.cases.jsonl`); the same command goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from marey.errors import UserError
from marey.files import write_json

LIMIT_SECONDS = 60.0
"""Longest time without an answer of a worker, on a busy machine."""
CASES_OF_A_WORKER = 2500
"""Cases after which a fresh process takes over, so that memory that grows is seen as growth."""
COUNTS = {
    "videos": 10_000,
    "sounds": 1_000,
    "live": 300,
    "manifest": 1_000,
    "packed": 1_000,
    "ava": 1_000,
    "label_map": 1_000,
    "class_names": 1_000,
    "lists": 1_000,
    "settings": 1_000,
    "predictions": 1_000,
    "huggingface": 200,
    "checkpoints": 500,
    "resume": 200,
    "pickled": 200,
}
"""Campaign -> cases at scale 1."""


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Return bytes with one to eight damages: flips, cuts, gaps, copies, runs of one value."""
    for _ in range(draw.choice((1, 1, 1, 2, 4, 8))):
        if not data:
            return data
        at = draw.randrange(len(data))
        if draw.random() < 0.4:  # headers hold the interesting numbers
            at = draw.randrange(min(len(data), 200))
        length = draw.choice((1, 1, 1, 2, 4, 16, 256))
        kind = draw.randrange(6)
        if kind == 0:
            data = (
                data[:at] + bytes(draw.randrange(256) for _ in range(length)) + data[at + length :]
            )
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + data[at + length :]
        elif kind == 3:
            data = data[:at] + data[at : at + length] + data[at:]
        elif kind == 4:
            data = data[:at] + bytes([draw.choice((0, 255))]) * length + data[at + length :]
        else:
            data = data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
    return data


def mutated_text(text: str, draw: random.Random) -> bytes:
    """Return a text with the damage of editors and transfers, or with that of `mutated`."""
    if draw.random() < 0.4:
        return mutated(text.encode(), draw)
    for _ in range(draw.choice((1, 1, 2, 4))):
        lines = text.splitlines(keepends=True) or [""]
        row = draw.randrange(len(lines))
        kind = draw.randrange(9)
        if kind == 0:
            del lines[row]
        elif kind == 1:
            lines.insert(row, lines[draw.randrange(len(lines))])
        elif kind == 2:
            lines[row] = lines[row].replace(",", ";")
        elif kind == 3:
            words = ["NaN", "-1", "1e999", "9" * 30, "null", "{}", "[]", "\0", "é", "true", '""']
            numbers = [i for i, letter in enumerate(lines[row]) if letter.isdigit()]
            if numbers:
                place = draw.choice(numbers)
                lines[row] = lines[row][:place] + draw.choice(words) + lines[row][place + 1 :]
        elif kind == 4:
            lines[row] = (
                lines[row].rstrip("\n") + draw.choice((",", ',"', ",x,y", "\t", "\0")) + "\n"
            )
        elif kind == 5:
            return "".join(lines).encode(draw.choice(("utf-16", "latin-1", "utf-8-sig")), "replace")
        elif kind == 6:
            lines[row] = ""
        elif kind == 7:
            lines[row] = "[" * 5000 + lines[row]
        else:
            draw.shuffle(lines)
        text = "".join(lines)
    return text.encode(errors="replace")


# ---- what is damaged


def sources(folder: Path) -> Path:
    """Write the whole files once; returns their folder."""
    made = folder / "whole"
    if (made / "done").is_file():
        return made
    made.mkdir(parents=True, exist_ok=True)
    _write_videos(made)
    _write_texts(made)
    _write_checkpoints(made)
    (made / "done").touch()
    return made


VIDEOS = {
    "h264.mp4": ("libx264", {"preset": "ultrafast", "g": "8"}),
    "b_frames.mkv": ("libx264", {"preset": "veryfast", "bf": "2"}),
    "h264.ts": ("libx264", {"preset": "ultrafast"}),
    "mpeg4.avi": ("mpeg4", {}),
    "mpeg2.mpg": ("mpeg2video", {}),
    "mjpeg.avi": ("mjpeg", {}),
    "vp8.webm": ("libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "a.gif": ("gif", {}),
    "hevc.mp4": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "flv1.flv": ("flv", {}),
}


def _write_videos(folder: Path) -> None:
    import av

    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 255, (16, 6, 8, 3), generator=generator).to(torch.uint8)
    frames = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2).numpy()
    for name, (codec, options) in VIDEOS.items():
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream(codec, rate=8, options=options)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
            sound = None
            if name.endswith((".mp4", ".mkv", ".ts")):
                sound = out.add_stream("aac", rate=16000)
            for picture in frames:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode(None))
            if sound is not None:
                _write_sound(out, sound)
    with av.open(str(folder / "tone.mp3"), "w") as out:
        _write_sound(out, out.add_stream("mp3", rate=16000))
    with av.open(str(folder / "tone.wav"), "w") as out:
        _write_sound(out, out.add_stream("pcm_s16le", rate=16000))


def _write_sound(out: Any, stream: Any) -> None:
    import av
    import numpy as np

    times = np.arange(16000) / 16000
    wave = (0.2 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    frame.sample_rate = 16000
    resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=16000)
    for part in resampler.resample(frame):
        for packet in stream.encode(part):
            out.mux(packet)
    for packet in stream.encode(None):
        out.mux(packet)


def _write_texts(folder: Path) -> None:
    rows = "".join(f"v/{i}.mp4,{'ab'[i % 2]},train,g{i},0.5,{i + 1}.0\n" for i in range(8))
    texts = {
        "manifest.csv": "path,label,split,group,start_seconds,end_seconds\n" + rows,
        "ava_train.csv": "".join(
            f"v{i % 3},0902,0.1,0.2,0.5,0.6,{1 + i % 5},{i}\n" for i in range(8)
        ),
        "map.pbtxt": "".join(f'item {{\n  name: "n{i}"\n  id: {i}\n}}\n' for i in range(1, 6)),
        "names.json": json.dumps({"run": 0, "jump": 1, "sit": 2}, indent=1),
        "names.txt": "run\njump\nsit\n",
        "settings.json": json.dumps(_settings(), indent=1),
        "predictions.jsonl": "\n".join(
            json.dumps(row)
            for row in (
                {"class_names": ["a", "b"]},
                *(
                    {
                        "video": f"{i}.mp4",
                        "label": "a",
                        "predicted": "a",
                        "probability": 0.6,
                        "correct": True,
                        "group": None,
                        "ood": None,
                        "seen_in_training": None,
                        "logits": [0.4, 0.0],
                        "probs": [0.6, 0.4],
                    }
                    for i in range(5)
                ),
            )
        ),
        "classInd.txt": "1 Jump\n2 Run\n",
        "trainlist01.txt": "Jump/v_Jump_g08_c01.avi 1\nRun/v_Run_g09_c01.avi 2\n",
        "testlist01.txt": "Jump/v_Jump_g01_c02.avi\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _settings() -> dict[str, Any]:
    from marey.recipes import get_recipe

    return get_recipe("mini_mocap").to_dict()


def _write_checkpoints(folder: Path) -> None:
    import numpy as np
    from safetensors.torch import save_file

    from marey.checkpoints.folder import save_checkpoint
    from marey.models import create_model
    from marey.training.checkpoint import save_resume
    from marey.transforms.preprocess import Preprocess
    from marey.video.sampling import ClipSampling

    torch.manual_seed(0)
    model = create_model("timesformer", **TINY)
    preprocess = Preprocess(
        sampling=ClipSampling(kind="equidistant", num_frames=2), short_side=16, image_size=16
    )
    save_checkpoint(
        folder / "checkpoint",
        model,
        class_names=["a", "b"],
        preprocess=preprocess,
        calibration={"temperature": 1.5},
    )
    optimizer = torch.optim.AdamW(model.parameters())
    save_resume(folder, {"step": model}, optimizer, {"step": 3})
    torch.save({"state_dict": model.state_dict()}, folder / "weights.pth")
    packed = folder / "packed"
    packed.mkdir(exist_ok=True)
    np.save(packed / "frames.npy", np.zeros((4, 2, 3, 16, 16), np.uint8))
    (packed / "packed.json").write_text(json.dumps({"format": 1, "fps": 8.0}))
    (packed / "manifest.csv").write_text(
        "path,label,row\n" + "".join(f"{i},a,{i}\n" for i in range(4))
    )
    hub = folder / "hub"
    hub.mkdir(exist_ok=True)
    config = {
        "model_type": "timesformer",
        "architectures": ["TimesformerForVideoClassification"],
        "num_frames": 2,
        "image_size": 16,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "id2label": {"0": "a", "1": "b"},
    }
    (hub / "config.json").write_text(json.dumps(config, indent=1))
    save_file({"classifier.weight": torch.zeros(2, 16)}, hub / "model.safetensors")


TINY: dict[str, Any] = {
    "num_classes": 2,
    "num_frames": 2,
    "image_size": 16,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}

# ---- one case of each campaign: write a damaged input, read it


def _video(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.inference.condition import is_still
    from marey.transforms.preprocess import Preprocess
    from marey.video.decode import open_video
    from marey.video.sampling import ClipSampling

    name = draw.choice(sorted(VIDEOS))
    path = scratch / name
    path.write_bytes(mutated((whole / name).read_bytes(), draw))
    preprocess = Preprocess(
        sampling=ClipSampling(num_frames=4, stride_frames=2), short_side=32, image_size=32
    )
    with open_video(path, threads=1) as reader:
        preprocess.views(reader, 2)
        is_still(reader)
        for _ in reader.iterate(0, 64, chunk=8):
            pass
    return path


def _sound(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.features.sound import decode_sound

    name = draw.choice(("tone.mp3", "tone.wav", "h264.mp4", "b_frames.mkv", "h264.ts"))
    path = scratch / name
    path.write_bytes(mutated((whole / name).read_bytes(), draw))
    decode_sound(path, max_seconds=10)
    return path


def _live(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.video.live import iterate_live

    name = draw.choice(("h264.ts", "b_frames.mkv", "mpeg2.mpg"))
    path = scratch / name
    data = (whole / name).read_bytes()
    path.write_bytes(mutated(data + data * draw.randrange(2), draw))  # twice: the clock restarts
    last = -1.0
    for count, (seconds, _) in enumerate(iterate_live(str(path), idle_seconds=0.05)):
        if seconds < last:
            raise RuntimeError(f"time runs backwards: {seconds} after {last}")
        last = seconds
        if count > 200:
            break
    return path


def _manifest(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.datasets.open import open_dataset

    path = scratch / "manifest.csv"
    path.write_bytes(mutated_text((whole / "manifest.csv").read_text(), draw))
    index = open_dataset(path)
    _ = index.manifest_hash, index.splits, index.class_counts
    return path


def _packed(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.datasets.clips import read_frames
    from marey.datasets.open import open_dataset
    from marey.datasets.pack import open_packed
    from marey.transforms.preprocess import Preprocess

    folder = scratch / "packed"
    shutil.copytree(whole / "packed", folder, dirs_exist_ok=True)
    name = draw.choice(("manifest.csv", "packed.json", "frames.npy"))
    data = (whole / "packed" / name).read_bytes()
    damaged = mutated(data, draw) if name == "frames.npy" else mutated_text(data.decode(), draw)
    (folder / name).write_bytes(damaged)
    open_packed.cache_clear()
    index = open_dataset(folder)
    for sample in index.samples[:4]:
        read_frames(index, sample, Preprocess())
    return folder


def _ava(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.datasets.ava import read_predicted_boxes

    path = scratch / "boxes.csv"
    path.write_bytes(mutated_text((whole / "ava_train.csv").read_text(), draw))
    read_predicted_boxes(path, 0.0)
    return path


def _label_map(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.datasets.ava_format import read_label_map

    path = scratch / "map.pbtxt"
    path.write_bytes(mutated_text((whole / "map.pbtxt").read_text(), draw))
    read_label_map(path)
    return path


def _class_names(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.checkpoints.convert import read_class_names

    name = draw.choice(("names.json", "names.txt"))
    path = scratch / name
    path.write_bytes(mutated_text((whole / name).read_text(), draw))
    read_class_names(path)
    return path


def _lists(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.datasets.open import open_dataset

    root = scratch / "ucf"
    shutil.rmtree(root, ignore_errors=True)
    (root / "ucfTrainTestlist").mkdir(parents=True)
    names = ("classInd.txt", "trainlist01.txt", "testlist01.txt")
    damaged = draw.choice(names)
    for name in names:
        text = (whole / name).read_text()
        data = mutated_text(text, draw) if name == damaged else text.encode()
        (root / "ucfTrainTestlist" / name).write_bytes(data)
    open_dataset(root)
    return root


def _settings_case(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.cli.train import _configuration

    path = scratch / "settings.json"
    path.write_bytes(mutated_text((whole / "settings.json").read_text(), draw))
    _configuration(str(path), None, None, None)
    return path


def _predictions(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.evaluation.classification import report_of
    from marey.evaluation.report import load_predictions

    path = scratch / "predictions.jsonl"
    path.write_bytes(mutated_text((whole / "predictions.jsonl").read_text(), draw))
    report_of(load_predictions(path))
    return path


def _huggingface(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.checkpoints.load import load_checkpoint

    folder = scratch / "hub"
    shutil.copytree(whole / "hub", folder, dirs_exist_ok=True)
    text = (whole / "hub" / "config.json").read_text()
    (folder / "config.json").write_bytes(mutated_text(text, draw))
    load_checkpoint(folder)
    return folder


def _checkpoint(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.checkpoints.load import load_checkpoint

    folder = scratch / "checkpoint"
    shutil.copytree(whole / "checkpoint", folder, dirs_exist_ok=True)
    if draw.random() < 0.6:
        text = (whole / "checkpoint" / "config.json").read_text()
        (folder / "config.json").write_bytes(mutated_text(text, draw))
    else:
        data = (whole / "checkpoint" / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(mutated(data, draw))
    loaded = load_checkpoint(folder)
    if draw.random() < 0.2:
        loaded.model(torch.zeros(1, 2, 3, 16, 16))
    return folder


def _resume(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.models import create_model
    from marey.training.checkpoint import RESUME_FILE, load_resume

    path = scratch / RESUME_FILE
    path.write_bytes(mutated((whole / RESUME_FILE).read_bytes(), draw))
    model = create_model("timesformer", **TINY)
    load_resume(scratch, {"step": model}, torch.optim.AdamW(model.parameters()))
    return path


def _pickled(whole: Path, scratch: Path, draw: random.Random) -> Path:
    from marey.checkpoints.pickled import read_pickled, state_of

    path = scratch / "weights.pth"
    data = (whole / "weights.pth").read_bytes()
    path.write_bytes(mutated(data, draw) if draw.random() < 0.95 else b"")
    state_of(read_pickled(path), path)
    return path


CAMPAIGNS: dict[str, Callable[[Path, Path, random.Random], Path]] = {
    "videos": _video,
    "sounds": _sound,
    "live": _live,
    "manifest": _manifest,
    "packed": _packed,
    "ava": _ava,
    "label_map": _label_map,
    "class_names": _class_names,
    "lists": _lists,
    "settings": _settings_case,
    "predictions": _predictions,
    "huggingface": _huggingface,
    "checkpoints": _checkpoint,
    "resume": _resume,
    "pickled": _pickled,
}

# ---- running them


def outcome_of(
    case: Callable[[Path, Path, random.Random], Path],
    whole: Path,
    scratch: Path,
    name: str,
    seed: int,
) -> dict[str, Any]:
    """Run one case and say how it ended."""
    started = time.perf_counter()
    draw = random.Random(f"{name}/{seed}")
    try:
        case(whole, scratch, draw)
        found: dict[str, Any] = {"outcome": "ok"}
    except UserError as error:
        text = str(error)
        is_named = "\n" not in text and (str(scratch) in text or name == "settings")
        found = {"outcome": "named" if is_named else "unnamed", "length": len(text)}
        if not is_named:
            found["error"] = f"UserError: {text[:300]}"
    except Exception as error:
        found = {"outcome": "unnamed", "error": f"{type(error).__name__}: {str(error)[:300]}"}
    return {"case": seed, **found, "seconds": round(time.perf_counter() - started, 3)}


def work(name: str, first: int, last: int, folder: Path) -> None:
    """Answer cases one by one on standard output; the peak of memory comes with every answer."""
    whole = sources(folder)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch)
        outcome_of(CAMPAIGNS[name], whole, place, name, -1)  # imports and first use
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print("{}", flush=True)  # ready
        for seed in range(first, last):
            found = outcome_of(CAMPAIGNS[name], whole, place, name, seed)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps({**found, "rise_mb": (peak - before) // 1024}), flush=True)


def cases(name: str, first: int, last: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the outcome of every case; a worker that dies or hangs is replaced behind its case."""
    while first < last:
        until = min(last, first + CASES_OF_A_WORKER)
        words = [sys.executable, "-m", "benchmarks.reliability", "--worker", name]
        words += [str(first), str(until), str(folder)]
        with open(os.devnull, "w") as nothing:
            worker = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=nothing)
        assert worker.stdout is not None
        worker.stdout.readline()
        while first < until:
            ready, _, _ = select.select([worker.stdout], [], [], LIMIT_SECONDS)
            line = worker.stdout.readline() if ready else b""
            if line:
                yield json.loads(line)
                first += 1
                continue
            if ready:
                yield {"case": first, "outcome": "crash", "error": f"status {worker.wait()}"}
            else:
                yield {"case": first, "outcome": "hang"}
                worker.kill()
            first += 1
            break
        worker.kill()
        worker.wait()


def run_campaign(name: str, count: int, folder: Path, log: Path) -> dict[str, Any]:
    """Run or finish one campaign and return its row of the table."""
    done = []
    if log.is_file():
        with contextlib.suppress(ValueError):
            done = [json.loads(line) for line in log.read_text().splitlines()]
    mine = [entry for entry in done if entry["campaign"] == name and entry["case"] < count]
    with log.open("a", encoding="utf-8") as out:
        for entry in cases(name, len(mine), count, folder):
            mine.append({"campaign": name, **entry})
            out.write(json.dumps(mine[-1]) + "\n")
            out.flush()
    counts = Counter(entry["outcome"] for entry in mine)
    return {
        "cases": len(mine),
        **{key: counts.get(key, 0) for key in ("ok", "named", "unnamed", "crash", "hang")},
        "slowest_seconds": max((entry.get("seconds", 0.0) for entry in mine), default=0.0),
        "peak_rise_mb": max((entry.get("rise_mb", 0) for entry in mine), default=0),
        "failures": [entry for entry in mine if entry["outcome"] not in ("ok", "named")][:20],
        "longest_message": max((entry.get("length", 0) for entry in mine), default=0),
    }


def main() -> None:
    """Run the campaigns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/reliability.json"))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases")
    parser.add_argument("--only", nargs="*", help="names of campaigns")
    parser.add_argument("--folder", type=Path, help="for scratch files; kept between calls")
    parser.add_argument("--worker", nargs=4, metavar=("NAME", "FIRST", "LAST", "FOLDER"))
    given = parser.parse_args()
    if given.worker:
        name, first, last, folder = given.worker
        work(name, int(first), int(last), Path(folder))
        return
    folder = given.folder or Path(tempfile.mkdtemp())
    sources(folder)
    log = given.out.with_suffix(".cases.jsonl")
    table: dict[str, Any] = {}
    for name, count in COUNTS.items():
        if given.only and name not in given.only:
            continue
        table[name] = run_campaign(name, max(1, round(count * given.scale)), folder, log)
        row = {key: value for key, value in table[name].items() if key != "failures"}
        print(name, row, flush=True)
        write_json(
            given.out,
            {
                "command": "python -m benchmarks.reliability --out results/reliability.json"
                + (f" --scale {given.scale:g}" if given.scale != 1 else ""),
                "limit_seconds": LIMIT_SECONDS,
                "campaigns": table,
            },
        )


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
