from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.checkpoints.encoders import bundled_frames
from marey.checkpoints.folder import save_checkpoint
from marey.datasets.youtube8m import read_examples
from marey.datasets.youtube8m_shards import open_feature_set
from marey.errors import UserError
from marey.features.extract import FeatureExtractor, write_features
from marey.features.frames import ClipEncoder, whole_seconds
from marey.features.weights import PCA
from marey.inference.features import FeaturePredictor, predict_features, predict_files
from marey.inference.load import load_window_predictor
from marey.inference.predictor import Predictor
from marey.models import create_model
from marey.transforms.preprocess import Preprocess
from marey.video.encode import write_video
from marey.video.sampling import ClipSampling


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    model = create_model(
        "timesformer",
        num_classes=2,
        num_frames=2,
        image_size=32,
        patch_size=16,
        embed_dim=16,
        depth=1,
        num_heads=2,
    )
    save_checkpoint(
        folder,
        model,
        class_names=["a", "b"],
        preprocess=Preprocess(sampling=ClipSampling(num_frames=2), short_side=32, image_size=32),
    )
    return str(folder)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for label, value in (("dark", 20), ("light", 200)):
        for number in range(3):
            (root / label).mkdir(exist_ok=True)
            frames = torch.full((8 + 8 * number, 3, 32, 48), value, dtype=torch.uint8)
            write_video(root / label / f"{number}.mp4", frames, fps=8)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory, videos, encoder):
    from dataclasses import replace

    from marey.recipes.gat import gat_features
    from marey.training.loop import train

    folder = tmp_path_factory.mktemp("trained")
    write_features(videos, folder / "f.tfrecord", FeatureExtractor(encoder))
    config = gat_features()
    config = replace(
        config,
        data=replace(config.data, path=str(folder / "f.tfrecord"), val_fraction=0.34),
        optim=replace(config.optim, lr=3e-3),
        train=replace(
            config.train, max_steps=40, batch_size=4, eval_every=40, device="cpu", tensorboard=False
        ),
    )
    train(config, folder / "run", quiet=True)
    return folder


def test_a_last_half_second_counts_and_no_video_is_empty():
    assert [whole_seconds(d, 300) for d in (0.1, 1.0, 1.4, 1.5, 10.38, 999.0)] == [
        1,
        1,
        1,
        2,
        10,
        300,
    ]


def test_features_have_a_row_a_second_and_labels_from_folders(videos, encoder, tmp_path):
    report = write_features(videos, tmp_path / "f.tfrecord", FeatureExtractor(encoder))
    assert report.class_names == ("dark", "light")
    assert list(report.files.values()) == [6]
    data = open_feature_set(tmp_path / "f.tfrecord")
    assert data.features == {"rgb": 16, "audio": 128}
    assert data.encoders["frames"] == encoder
    examples = list(read_examples(tmp_path / "f.tfrecord", data.features))
    assert [one.num_frames for one in examples] == [1, 2, 3, 1, 2, 3]
    assert [one.labels for one in examples] == [(0,)] * 3 + [(1,)] * 3
    assert (examples[0].features["rgb"][0] != examples[3].features["rgb"][0]).any()
    assert (examples[2].features["rgb"][0] == examples[2].features["rgb"][2]).all()  # a still video


def test_several_labels_and_splits_come_from_a_manifest(videos, encoder, tmp_path):
    (tmp_path / "manifest.csv").write_text(
        "path,label,split\n"
        + "".join(
            f"{videos}/{name},{label},{split}\n"
            for name, label, split in (
                ("dark/0.mp4", "dark;still", "train"),
                ("light/0.mp4", "light", "val"),
            )
        )
    )
    report = write_features(tmp_path / "manifest.csv", tmp_path / "out", FeatureExtractor(encoder))
    assert report.class_names == ("dark", "light", "still")
    assert sorted(path.split("/")[-1] for path in report.files) == [
        "train0000.tfrecord",
        "validate0000.tfrecord",
    ]
    (one,) = read_examples(tmp_path / "out" / "train0000.tfrecord", {"rgb": 16, "audio": 128})
    assert one.labels == (0, 2)


def test_an_unreadable_video_is_named_and_left_out(videos, encoder, tmp_path):
    for name in ("good.mp4", "bad.mp4"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(
            (videos / "dark" / "0.mp4").read_bytes() if name == "good.mp4" else b"no"
        )
    report = write_features(tmp_path / "in", tmp_path / "f.tfrecord", FeatureExtractor(encoder))
    assert list(report.files.values()) == [1]
    (reason,) = report.unreadable.values()
    assert "bad.mp4" in reason


def test_an_architecture_is_no_encoder():
    with pytest.raises(UserError, match="random encoder weights are refused"):
        ClipEncoder("timesformer")


def test_another_encoder_than_the_features_were_made_with_is_refused(encoder, tmp_path):
    description = FeatureExtractor(encoder).description
    assert FeatureExtractor.from_description(description).description == description
    with pytest.raises(UserError, match="has other weights than when the features were made"):
        FeatureExtractor.from_description({**description, "frames_digest": "0" * 12})


def test_an_encoder_inside_the_checkpoint_is_found(encoder):
    folder, name = encoder.rsplit("/", 1)
    assert (
        FeatureExtractor.from_description({"frames": name}, Path(folder)).frames.source == encoder
    )


def test_overlapping_clips_are_encoded_as_if_each_stood_alone(encoder):
    extractor = ClipEncoder(encoder)
    frames = torch.randint(0, 256, (5, 3, 32, 40), dtype=torch.uint8)
    places = torch.tensor([[0, 1], [1, 2], [4, 4]])
    together = extractor.encode(frames, places)
    alone = torch.cat([extractor.encode(frames[row], torch.tensor([[0, 1]])) for row in places])
    assert torch.allclose(together, alone, atol=1e-5)


def test_an_output_in_use_is_refused(videos, encoder, tmp_path):
    (tmp_path / "f.tfrecord").write_bytes(b"x")
    with pytest.raises(UserError, match="already exists"):
        write_features(videos, tmp_path / "f.tfrecord", FeatureExtractor(encoder))


def test_features_train_a_gat_that_classifies_videos(trained, videos):
    for label in ("dark", "light"):
        answer = predict_features(
            videos / label / "2.mp4", str(trained / "run" / "best"), threshold=0.0, top=1
        )
        assert answer["error"] is None
        assert answer["predictions"][0]["label"] == label
    predictor = FeaturePredictor.load(trained / "run" / "best")
    assert isinstance(predictor, FeaturePredictor)
    assert predictor(videos / "dark" / "2.mp4").frame_seconds == (0.0, 1.0, 2.0)


def test_feature_files_are_classified_record_by_record(trained):
    model, path = str(trained / "run" / "best"), trained / "f.tfrecord"
    entries = predict_files([path], model, threshold=0.2, top=3)
    assert len(entries) == 6
    assert json.dumps(entries)
    assert all(answer["probability"] > 0.2 for entry in entries for answer in entry["predictions"])


def test_video_and_feature_file_give_the_same_prediction(trained, videos):
    model = str(trained / "run" / "best")
    direct = predict_features(videos / "light" / "1.mp4", model, 0.0)["predictions"]
    stored = next(
        entry
        for entry in predict_files([trained / "f.tfrecord"], model, 0.0)
        if entry["video"] == "light/1.mp4"
    )["predictions"]
    assert [one["label"] for one in direct] == [one["label"] for one in stored]
    assert np.allclose(
        [one["probability"] for one in direct], [one["probability"] for one in stored], atol=1e-5
    )


def test_commands_that_look_at_clips_are_told_so(trained):
    predictor = FeaturePredictor.load(trained / "run" / "best")
    assert isinstance(Predictor.load(trained / "run" / "best"), FeaturePredictor)
    with pytest.raises(
        UserError, match="no classifier of clips, it answers 'marey predict --features'"
    ):
        load_window_predictor(trained / "run" / "best")
    with pytest.raises(UserError, match="no label-embedding head"):
        predictor("x.mp4", labels=["run"])


def test_an_unreadable_video_is_an_error_in_its_own_entry(trained, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no")
    answer = predict_features(tmp_path / "bad.mp4", str(trained / "run" / "best"))
    assert "bad.mp4" in answer["error"]
    assert answer["predictions"] == []


def test_real_clips_give_their_sound_or_silence(encoder, shared_dir):
    extractor = FeatureExtractor(encoder)
    with_sound = extractor(shared_dir / "clips" / "archery_ucf101_paddlevideo_example.avi")
    without = extractor(shared_dir / "clips" / "Basketball_ucf101_v_Basketball_g01_c01.avi")
    assert (len(with_sound["rgb"]), len(without["rgb"])) == (5, 5)
    assert (without["audio"] == without["audio"][0]).all()
    assert (with_sound["audio"] != without["audio"][0]).any()


def test_the_bundled_image_network_gives_a_vector_a_second(videos, tmp_path):
    extractor = FeatureExtractor("frames")
    dark, light = (extractor(videos / label / "1.mp4")["rgb"] for label in ("dark", "light"))
    assert dark.shape == light.shape == (2, 768)
    assert not np.array_equal(dark, light)
    assert np.array_equal(dark, extractor(videos / "dark" / "1.mp4")["rgb"])
    own, shared = (model.state_dict() for model in (extractor.frames.model, bundled_frames()))
    assert all(torch.equal(own[key], shared[key]) for key in shared)  # no second copy of weights


def test_a_pca_inside_the_checkpoint_is_found(tmp_path):
    features = torch.randn(40, 768, generator=torch.Generator().manual_seed(0))
    PCA.fit(features, tmp_path / "model" / "pca", 8)
    description = {**FeatureExtractor("frames").description, "frames_pca": "pca"}
    extractor = FeatureExtractor.from_description(description, tmp_path / "model")
    assert extractor.frames_pca.vectors.shape == (768, 8)
    with pytest.raises(UserError, match="no PCA here"):
        FeatureExtractor.from_description(description, tmp_path)
