from __future__ import annotations

from marey.recipes.hmdb_study import distil_small, timesformer_hmdb_simp, vivit_hmdb_simp


def test_the_study_s_best_configuration():
    config = timesformer_hmdb_simp()
    optim = config.optim
    assert (optim.name, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 0.0035, 0.9, 0.003)
    assert (config.train.epochs, config.train.batch_size, config.train.seed) == (8, 8, 42)
    sampling = config.data.preprocess.sampling
    assert (sampling.kind, sampling.num_frames, sampling.stride_frames, sampling.short) == (
        "uniform",
        8,
        32,
        "extend",
    )
    assert config.data.preprocess.resize_mode == "stretch"
    assert config.model.init_from == "hf:facebook/timesformer-base-finetuned-k400"


def test_vivit_takes_32_frames_at_stride_2_in_batches_of_4():
    config = vivit_hmdb_simp()
    sampling = config.data.preprocess.sampling
    assert (sampling.num_frames, sampling.stride_frames, config.train.batch_size) == (32, 2, 4)
    assert config.optim == timesformer_hmdb_simp().optim


def test_the_student_is_small_and_learns_half_from_the_teacher():
    config = distil_small()
    assert config.objective.weights == {"class": 0.5, "teacher": 0.5}
    assert config.model.arguments["embed_dim"] == 192
    assert config.data.preprocess.image_size == 112
