from __future__ import annotations

import json

import pytest
import torch

from marey.datasets import open_dataset
from marey.errors import UserError
from marey.papers import hmdb_study as study
from marey.papers.cells import ReproduceOptions
from marey.papers.run import reproduce
from marey.video.encode import write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes of four videos each: bright and dark."""
    root = tmp_path_factory.mktemp("videos")
    for label, level in (("bright", 200), ("dark", 40)):
        for number in range(4):
            path = root / label / f"v_{number}.mp4"
            path.parent.mkdir(exist_ok=True)
            write_video(path, torch.full((12, 3, 64, 64), level + number, dtype=torch.uint8), 10)
    return root


def test_every_line_has_its_recipe_and_the_best_configuration_comes_first(tmp_path):
    cells = study.cells(ReproduceOptions(scale="full", data="hmdb51", seeds=1))
    configs = {cell.name: cell.run.args[1] for cell in cells}
    assert len(configs) == 13
    assert [cell.name for cell in cells if cell.priority == 0] == [study.BASE]
    adam = configs["Table 1: batch 4, Adam 0.0001"]
    assert (adam.optim.name, adam.optim.lr, adam.train.batch_size) == ("adam", 1e-4, 4)
    assert configs["Table 3: random"].data.preprocess.sampling.kind == "random"
    assert configs["Table 4: ViViT"].model.init_from == "hf:google/vivit-b-16x2-kinetics400"
    assert (
        configs["Table 5: extended after sampling"].data.preprocess.sampling.short == "extend_after"
    )
    assert configs[study.BASE].data.preprocess.sampling.short == "extend"


def test_the_mini_lines_keep_the_study_s_numbers_and_mark_their_own():
    rows = {row.name: row for row in study.MINI_ROWS}
    assert rows[study.BASE].paper == {"top1": 93.6, "top5": 99.2}
    poorer = rows["Table 2: ImageNet stem, transformer from scratch"]
    assert poorer.paper is None
    config = poorer.configure(study.BASES[poorer.base]())
    assert config.model.init_from is None
    assert config.model.arguments["stem"] == "efficientnet_lite0"
    small = study.BASES[rows["Table 4: ViViT, small, random weights"].base]()
    assert small.data.preprocess.image_size == 64
    assert small.optim.name == "adamw"


def test_data_must_be_given():
    with pytest.raises(UserError, match="hmdb-study needs --data: a folder of class folders"):
        study.check_data(ReproduceOptions())


def test_half_of_each_class_is_held_out_once(videos, tmp_path):
    manifest = study.split_manifest(str(videos), tmp_path, "mini")
    index = open_dataset(manifest)
    for split in ("train", "test"):
        labels = [sample.label for sample in index.split(split).samples]
        assert sorted(labels) == ["bright", "bright", "dark", "dark"]
    before = manifest.read_bytes()
    assert study.split_manifest("elsewhere", tmp_path, "mini").read_bytes() == before


def test_items_are_decoded_once():
    class Counting:
        calls = 0

        def __len__(self):
            return 2

        def __getitem__(self, key):
            self.calls += 1
            return key

    data = Counting()
    kept = study.Remembered(data)
    assert [kept[epoch, 1] for epoch in range(3)] == [(0, 1)] * 3
    assert (data.calls, len(kept)) == (1, 2)


def test_two_lines_run_from_the_command_to_tables_and_page(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "EPOCHS", 1)
    out = tmp_path / "out"
    options = ReproduceOptions(data=str(videos), seeds=1, cache=tmp_path / "cache")
    only = [study.BASE, "Table 4: TimeSformer, small, random weights"]
    results = {result.name: result for result in reproduce("hmdb-study", options, out, only=only)}
    assert [results[name].seeds_run for name in only] == [[0], [0]]
    assert 0 <= results[study.BASE].mean("top1") <= 100
    page = (out / "index.html").read_text()
    assert "Confusion matrix" in page
    assert "data:image/jpeg;base64" in page
    answers = json.loads(
        (study.run_folder(options.cache, study.BASE, 0) / "answers.json").read_text()
    )
    assert len(answers["rows"]) == 4
