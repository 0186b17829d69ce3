from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from marey.checkpoints.sources import WEIGHTS_FOLDER, bundled_names
from marey.video.encode import write_video

pytestmark = pytest.mark.skipif(
    "marey-mini-gat" not in bundled_names(), reason="marey-mini-gat is not bundled yet"
)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "noise.mp4"
    write_video(
        path,
        torch.randint(
            0, 256, (12, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        ),
        fps=6,
    )
    return path


def test_the_bundle_is_at_most_4_megabytes_and_holds_no_encoder_of_its_own():
    folder = WEIGHTS_FOLDER / "marey-mini-gat"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    encoders = json.loads((folder / "config.json").read_text())["extra"]["encoders"]
    assert encoders["frames"] == "frames"
    assert not (folder / "frames").exists()


def test_its_features_are_what_marey_features_makes_with_its_projection(video):
    from marey.features.extract import FeatureExtractor
    from marey.inference.features import FeaturePredictor

    pca = str(WEIGHTS_FOLDER / "marey-mini-gat" / "pca")
    by_hand = FeatureExtractor("frames", frames_pca=pca)(video)
    own = FeaturePredictor.load("marey-mini-gat").extractor(video)
    assert by_hand["rgb"].shape == (2, 128)
    assert (by_hand["rgb"] == own["rgb"]).all()
    assert (by_hand["audio"] == own["audio"]).all()


def test_it_classifies_a_video_file_in_python(video):
    import marey

    prediction = marey.Predictor.load("marey-mini-gat")(video)
    assert len(prediction.class_names) == 15
    assert prediction.frame_seconds == (0.0, 1.0)
    assert prediction.trust["unknown"] in (True, False)


@pytest.mark.parametrize("options", [["--features"], ["--model", "marey-mini-gat"]])
def test_it_classifies_a_video_file_on_the_command_line(video, options):
    from marey.cli import build_app

    done = CliRunner().invoke(build_app(), ["predict", str(video), *options, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["model"] == "marey-mini-gat"
    assert document["results"][0]["error"] is None
