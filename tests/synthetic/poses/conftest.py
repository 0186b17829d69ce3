"""Recordings for the tests of poses: a made-up CMU folder, so that no test needs the real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from marey.synthetic.poses.compositions import stand
from marey.synthetic.poses.recordings import CMU_BODY

ACTIONS = {
    "walking": ("walking_1_train", "walking_1_test"),
    "walking_extra": ("walking_13_train", "walking_12_test", "walking_13_test"),
    "running": ("running_1_train", "running_5_train", "running_1_test"),
    "jumping": ("jumping_1_train", "jumping_5_train", "jumping_1_test"),
    "basketball": ("basketball_1_train", "basketball_5_train", "basketball_1_test"),
    "soccer": ("soccer_1_train", "soccer_5_train", "soccer_1_test"),
    "washwindow": ("washwindow_1_test",),
    "directing_traffic": ("directing_traffic_1_train", "directing_traffic_4_train"),
    "basketball_signal": (
        "basketball_signal_1_train",
        "basketball_signal_4_train",
        "basketball_signal_5_train",
    ),
}


@pytest.fixture(scope="session")
def cmu_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of the CMU recordings: people who stand and drift forward."""
    folder = tmp_path_factory.mktemp("cmu")
    names = ["lower_neck", "head", "head_end", *CMU_BODY]
    arrays = {}
    for action, recordings in ACTIONS.items():
        for number, recording in enumerate(recordings):
            joints = stand(np.random.default_rng(number))[0]
            joints = np.repeat(joints, 2, axis=0)
            joints[..., 2] += np.arange(len(joints))[:, None] / 60
            shoulders = joints[:, 5:7].mean(1)
            up = np.array([0, 1.0, 0])
            head = [shoulders + 0.1 * up, shoulders + 0.2 * up, shoulders + 0.33 * up]
            places = np.concatenate([np.stack(head, axis=1), joints[:, 5:]], axis=1)
            arrays[f"{action}/{recording}"] = np.round(places * 1000).astype(np.int16)
    np.savez(folder / "joints_mm_60fps.npz", **arrays)
    (folder / "layout.json").write_text(json.dumps({"joint_names": names}))
    return folder
