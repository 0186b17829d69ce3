"""How often `marey predict` warns of the pictures themselves: clean videos, and every kind of
corruption at severities 1, 3 and 5.

    python -m benchmarks.picture_quality --data ../shared/data --out results/picture_quality.json

Eight frames, 4 a second, from the middle of a video, are changed at 224 x 224. The limits were set
after a look at the clean videos and at `LOOKED_AT`; no other kind had a part in them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.trust_features import MAX_FRAMES, Videos, open_videos
from marey.checkpoints.encoders import load_encoder
from marey.corruptions import corruption, list_corruptions
from marey.datasets.index import Sample
from marey.evaluation.changed_clips import changed_clips, clean_clips, decode_video
from marey.files import read_json, write_json
from marey.inference.picture_quality import picture_quality
from marey.metrics.intervals import proportion_interval

LOOKED_AT = ("gaussian_noise", "motion_blur", "jpeg_compression", "fog", "h264_crf", "freeze")
SEVERITIES = (1, 3, 5)
STEPS = {"surv_fight": 12, "ut_interaction": 8, "clips": 1}
"""Every so many videos are corrupted; all are looked at clean."""


def flaws_of(videos: Videos, step: int) -> dict[str, Any]:
    """Return the share of videos with a flaw, clean and by kind and severity, and which flaws."""
    shown = load_encoder("frames").preprocess
    tags = {f"{k}/{s}": corruption(k, s) for k in list_corruptions() for s in SEVERITIES}
    flawed: dict[str, list[bool]] = {"clean": [], **{tag: [] for tag in tags}}
    named: dict[str, int] = {}
    for number, path in enumerate(tqdm(videos.paths, desc=videos.name)):
        sample = Sample(path=path, label=None)
        video = decode_video(path.name, sample, [shown], at=224, max_frames=MAX_FRAMES)
        found = picture_quality(clean_clips(video)[0]).flaws
        flawed["clean"].append(bool(found))
        for name in found:
            named[name] = named.get(name, 0) + 1
        if number % step == 0:
            for tag, change in tags.items():
                clip = changed_clips(video, change, seed=0)[0]
                flawed[tag].append(bool(picture_quality(clip).flaws))
    clean = torch.tensor(flawed.pop("clean"))
    return {
        "videos": len(clean),
        "clean": float(clean.double().mean()),
        "clean_interval": list(proportion_interval(clean, videos.groups)),
        "clean_flaws": named,
        "corrupted_videos": len(next(iter(flawed.values()))),
        "corrupted": {tag: sum(found) / len(found) for tag, found in flawed.items()},
    }


def main() -> None:
    """Look at every data set and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("results/picture_quality.json"))
    arguments = parser.parse_args()
    before = read_json(arguments.out) if arguments.out.exists() else {}
    report: dict[str, Any] = {
        "command": f"python -m benchmarks.picture_quality --data {arguments.data} "
        f"--out {arguments.out}",
        "conclusion": before.get("conclusion", ""),
        "kinds_the_limits_were_set_on": list(LOOKED_AT),
    }
    for name, step in STEPS.items():
        report[name] = flaws_of(open_videos(name, arguments.data), step)
        write_json(arguments.out, report, indent=1)


if __name__ == "__main__":
    main()
