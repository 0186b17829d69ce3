from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.datasets.tfrecord import ReadReport, RecordError, write_records
from marey.datasets.youtube8m import (
    FrameExample,
    dequantize,
    parse_frames,
    quantize,
    read_examples,
    serialize_frames,
    write_examples,
)
from marey.datasets.youtube8m_labels import (
    LabelSpace,
    read_hierarchy,
    read_vocabulary,
    write_vocabulary,
)
from marey.datasets.youtube8m_loading import IndexedExamples, StreamedExamples, collate_features
from marey.datasets.youtube8m_shards import find_shards
from marey.errors import UserError

WIDTHS = {"rgb": 6, "audio": 3}
SPACE = LabelSpace(class_names=("a", "b", "c"), classes_of=((0,), (1,), (2,)))


def example(name="v0", frames=4, labels=(1,), seed=0, audio_frames=None):
    generator = np.random.default_rng(seed)
    return FrameExample(
        id=name,
        labels=labels,
        features={
            "rgb": generator.integers(0, 256, (frames, 6), dtype=np.uint8),
            "audio": generator.integers(0, 256, (audio_frames or frames, 3), dtype=np.uint8),
        },
    )


def shards_of(folder, sizes):
    number = 0
    for shard, size in enumerate(sizes):
        write_examples(
            folder / f"train{shard:04d}.tfrecord",
            [
                example(f"v{number + i}", frames=1 + (number + i) % 5, seed=number + i)
                for i in range(size)
            ],
        )
        number += size
    return find_shards(folder, "train")


def names(dataset):
    return [sample["id"] for sample in dataset]


def test_quantisation_follows_the_starter_code():
    values = dequantize(np.array([0, 127, 128, 255], dtype=np.uint8))
    assert values == pytest.approx([-1.9921875, -3.06e-5, 0.0156556, 2.0078125], abs=1e-6)
    every = np.arange(256, dtype=np.uint8)
    assert (quantize(dequantize(every).astype(np.float64) - 4 / 512) == every).all()
    assert quantize(np.array([-9.0, -2.0, 0.0, 2.0, 9.0])).tolist() == [0, 0, 128, 255, 255]


def test_nan_features_cannot_be_quantised():
    with pytest.raises(UserError, match="not a finite number"):
        quantize(np.array([0.0, np.nan]))


def test_frames_and_labels_come_back_as_written(tmp_path):
    written = [example("aa", 4, (2, 0)), example("bb", 2, ())]
    write_examples(tmp_path / "t.tfrecord", written)
    read = list(read_examples(tmp_path / "t.tfrecord", WIDTHS))
    assert [(one.id, one.labels) for one in read] == [("aa", (0, 2)), ("bb", ())]
    for one, other in zip(written, read, strict=True):
        for key in WIDTHS:
            assert (one.features[key] == other.features[key]).all()


def test_video_level_records_hold_the_mean_of_the_dequantised_frames(tmp_path):
    write_examples(tmp_path / "v.tfrecord", [one := example()], level="video")
    (read,) = read_examples(tmp_path / "v.tfrecord", WIDTHS, level="video")
    assert read.num_frames == 1
    assert read.values("rgb")[0] == pytest.approx(dequantize(one.features["rgb"]).mean(0), abs=1e-6)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            lambda: serialize_frames(example(frames=299, audio_frames=300)),
            r"record 7: \(id 'v0'\) features differ in length: rgb has 299 frames, audio has 300",
        ),
        (
            lambda: serialize_frames(
                FrameExample(id="x", labels=(), features={"rgb": np.zeros((2, 6), np.uint8)})
            ),
            r"record 7: \(id 'x'\) has no feature 'audio'; it has rgb",
        ),
        (
            lambda: serialize_frames(
                FrameExample(
                    id="x",
                    labels=(),
                    features={
                        "rgb": np.zeros((2, 5), np.uint8),
                        "audio": np.zeros((2, 3), np.uint8),
                    },
                )
            ),
            "record 7: .*feature 'rgb': frame 0 has 5 bytes, expected one string of 6 bytes",
        ),
        (lambda: b"\xff\xff\xff", "record 7: is not a SequenceExample"),
        (lambda: b"", "record 7: the context has neither 'id' nor 'video_id'"),
    ],
)
def test_a_malformed_record_is_named_with_file_and_number(record, message):
    with pytest.raises(RecordError, match="shard.tfrecord: " + message):
        parse_frames(record(), WIDTHS, path="shard.tfrecord", record=7)


def test_video_level_nan_is_refused(tmp_path):
    one = FrameExample(id="n", labels=(), features={"rgb": np.full((1, 6), np.nan, np.float32)})
    write_examples(tmp_path / "v.tfrecord", [one], level="video")
    with pytest.raises(
        RecordError, match="record 0: .*'mean_rgb' holds a value that is not a finite number"
    ):
        list(read_examples(tmp_path / "v.tfrecord", {"rgb": 6}, level="video"))


def test_malformed_records_are_skipped_and_counted_on_request(tmp_path):
    path = tmp_path / "t.tfrecord"
    write_records(
        path, [serialize_frames(example("good")), b"bad", serialize_frames(example("fine"))]
    )
    report = ReadReport()
    assert [one.id for one in read_examples(path, WIDTHS, on_corrupt="skip", report=report)] == [
        "good",
        "fine",
    ]
    assert report.records == 2
    assert "record 1: is not a SequenceExample" in report.skipped[0]


def test_an_unknown_label_id_names_the_record(tmp_path):
    write_examples(tmp_path / "t.tfrecord", [example(labels=(0,)), example(labels=(3,))])
    dataset = IndexedExamples([str(tmp_path / "t.tfrecord")], SPACE, features=WIDTHS)
    assert dataset[0]["targets"].tolist() == [1, 0, 0]
    with pytest.raises(
        UserError, match="record 1: label id 3 is not in the vocabulary of 3 labels"
    ):
        dataset[1]


def test_a_label_implies_its_ancestors(tmp_path):
    write_vocabulary(tmp_path / "vocabulary.csv", ["Wrestling", "Guitar", "Cat"])
    (tmp_path / "tree.csv").write_text("Index,Path\n0,Sports:Combat:Wrestling\n1,Music:Guitar\n")
    space = read_hierarchy(tmp_path / "tree.csv", read_vocabulary(tmp_path / "vocabulary.csv"))
    assert space.class_names == (
        "Music",
        "Music:Guitar",
        "Sports",
        "Sports:Combat",
        "Sports:Combat:Wrestling",
    )
    assert space.targets([0]).tolist() == [0, 0, 1, 1, 1]
    assert space.targets([1, 2]).tolist() == [1, 1, 0, 0, 0]  # label 2 has no row: dropped


def test_a_vocabulary_without_its_columns_is_refused(tmp_path):
    (tmp_path / "v.csv").write_text("id,title\n0,x\n")
    with pytest.raises(UserError, match="column Index, Name is missing; the header is id,title"):
        read_vocabulary(tmp_path / "v.csv")


def test_videos_are_padded_with_exact_zeros_and_a_mask(tmp_path):
    dataset = IndexedExamples(shards_of(tmp_path, [3]), SPACE, features=WIDTHS)
    batch = collate_features([dataset[0], dataset[2]], pad_to=4)
    assert batch["mask"].tolist() == [[True, False, False, False], [True, True, True, False]]
    assert batch["features"]["rgb"].shape == (2, 4, 6)
    assert (batch["features"]["rgb"][0, 1:] == 0).all()


def test_a_folder_without_shards_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file named 'train\*.tfrecord'"):
        find_shards(tmp_path, "train")


@pytest.mark.parametrize("sizes", [[4, 3, 5, 2, 6, 1], [7, 6]])
def test_ranks_and_workers_share_the_records_without_overlap(tmp_path, sizes):
    shards = shards_of(tmp_path, sizes)
    seen = []
    for rank in range(2):
        dataset = StreamedExamples(
            shards, SPACE, features=WIDTHS, shuffle_buffer=4, rank=rank, num_ranks=2
        )
        seen += [
            name
            for batch in DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=names)
            for name in batch
        ]
    assert sorted(seen) == sorted(f"v{i}" for i in range(sum(sizes)))


def test_the_shuffle_depends_on_seed_and_epoch_only(tmp_path):
    shards = shards_of(tmp_path, [10, 10])
    dataset = StreamedExamples(shards, SPACE, features=WIDTHS, shuffle_buffer=6)
    first, again = names(dataset), names(dataset)
    dataset.set_epoch(1)
    assert first == again != names(dataset)
    assert sorted(first) == sorted(names(dataset))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_resumed_in_the_middle_gives_the_rest(tmp_path, workers):
    shards = shards_of(tmp_path, [5, 9, 2])

    def batches(dataset):
        return list(DataLoader(dataset, batch_size=2, num_workers=workers, collate_fn=names))

    dataset = StreamedExamples(shards, SPACE, features=WIDTHS, shuffle_buffer=3)
    whole = batches(dataset)
    for done in (1, 4, len(whole) - 1):
        dataset.set_epoch(0, batches_done=done, batch_size=2)
        assert batches(dataset) == whole[done:]


def test_the_golden_files_are_read_exactly(shared_dir):
    folder = shared_dir / "reference" / "golden"
    arrays, expected = (
        np.load(folder / "yt8m_tfrecord_arrays.npz"),
        json.loads((folder / "yt8m_tfrecord_expected.json").read_text()),
    )
    frames = list(read_examples(folder / "yt8m_frame.tfrecord"))
    assert [(one.id, list(one.labels), one.num_frames) for one in frames] == [
        (row["id"], row["labels"], row["num_frames"]) for row in expected["frame"]
    ]
    for one in frames:
        for key in ("rgb", "audio"):
            assert (one.features[key] == arrays[f"{one.id}_{key}_u8"]).all()
            assert np.allclose(one.values(key), arrays[f"{one.id}_{key}_f32"], atol=1e-6)
    for one in read_examples(folder / "yt8m_video.tfrecord", level="video"):
        assert torch.equal(
            torch.from_numpy(one.values("rgb")[0]), torch.from_numpy(arrays[f"{one.id}_mean_rgb"])
        )


def test_our_files_are_read_by_the_package_tfrecord(tmp_path):
    tfrecord = pytest.importorskip("tfrecord.reader")
    write_examples(tmp_path / "t.tfrecord", [one := example("aa", 4, (2, 0))])
    ((context, lists),) = tfrecord.sequence_loader(
        str(tmp_path / "t.tfrecord"),
        None,
        {"id": "byte", "labels": "int"},
        {"rgb": "byte", "audio": "byte"},
    )
    assert context["labels"].tolist() == [2, 0]
    assert (
        np.stack([np.frombuffer(frame, np.uint8) for frame in lists["rgb"]]) == one.features["rgb"]
    ).all()
