"""Recordings as keypoints: CMU, DeepMimic, BVH, ASF and AMC."""

from __future__ import annotations

import numpy as np
import pytest

from marey.errors import UserError
from marey.synthetic.poses.bvh import read_bvh
from marey.synthetic.poses.recordings import (
    FPS,
    deepmimic_joints,
    read_cmu,
    read_deepmimic,
    read_own,
)

BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Spine
  {
    OFFSET 0 50 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 10 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.05
0 90 0 0 0 0 0 0 0
10 90 0 90 0 0 0 0 0
"""


def test_cmu_positions_become_metres_and_t_pose_frames_are_dropped(cmu_folder):
    found = {recording.name: recording for recording in read_cmu(cmu_folder)}
    walk = found["cmu/walking/walking_1_train"]
    assert walk.action == "walking"
    assert walk.joints.shape == (240 - 6, 17, 3)
    assert 1.2 < walk.joints[:, 0, 1].mean() < 1.9
    assert (walk.joints[:, 5, 0] > walk.joints[:, 6, 0]).all()


def test_a_missing_cmu_file_is_named(tmp_path):
    with pytest.raises(UserError, match="joints_mm_60fps.npz"):
        read_cmu(tmp_path)


def test_the_humanoid_at_rest_stands_with_its_left_at_minus_z():
    rows = np.zeros((1, 43))
    rows[0, 1] = 0.9
    rows[0, [3, 7, 11, 15, 20, 24, 29, 34, 38]] = 1  # every joint at rest
    joints = deepmimic_joints(rows)[0]
    np.testing.assert_allclose(joints[16], (0, 0.9 - 0.421546 - 0.40987, 0.084887), atol=1e-9)
    np.testing.assert_allclose(joints[9, 1], 0.9 + 0.236151 + 0.2435 - 0.274788 - 0.258947)
    assert joints[5, 2] < 0 < joints[6, 2]
    assert joints[0, 0] > joints[3:5, 0].mean()  # the nose is ahead, at +x


def test_deepmimic_walks_the_way_it_faces():
    pytest.importorskip("pybullet_data", reason="the recordings are inside pybullet")
    found = {recording.action: recording for recording in read_deepmimic()}
    walk = found["walk"].joints
    assert found["walk"].seconds >= 5.9
    way = walk[-1, 11] - walk[0, 11]
    ahead = (walk[:, 0] - walk[:, 3:5].mean(1)).mean(0)
    assert way @ ahead / np.linalg.norm(way) / np.linalg.norm(ahead) > 0.95
    assert found["kick"].joints[:, 15:17, 1].max() > 0.9


def test_a_bvh_file_worked_by_hand(tmp_path):
    path = tmp_path / "one.bvh"
    path.write_text(BVH)
    found = read_bvh(path)
    assert found.names == ("Hips", "Spine")
    assert found.fps == pytest.approx(20)
    np.testing.assert_allclose(found.positions[0, 1], (0, 140, 0), atol=1e-9)
    np.testing.assert_allclose(found.positions[1, 1], (10 - 50, 90, 0), atol=1e-9)  # turned left


def test_a_damaged_bvh_file_is_named(tmp_path):
    path = tmp_path / "bad.bvh"
    path.write_text(BVH.replace("Frames: 2", "Frames: 3"))
    with pytest.raises(UserError, match=r"bad\.bvh"):
        read_bvh(path)


def skeleton_bvh(seconds: float = 1.0) -> str:
    """A whole person in BVH, in centimetres, standing."""
    lines = [
        "HIERARCHY",
        "ROOT Hips",
        "{",
        "OFFSET 0 0 0",
        "CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation",
    ]

    def chain(names: list[str], offsets: list[str]) -> None:
        for name, offset in zip(names, offsets, strict=True):
            lines.extend(
                [
                    f"JOINT {name}",
                    "{",
                    f"OFFSET {offset}",
                    "CHANNELS 3 Zrotation Xrotation Yrotation",
                ]
            )
        lines.extend(["End Site", "{", "OFFSET 0 0 0", "}"] + ["}"] * len(names))

    for side, sign in (("Left", ""), ("Right", "-")):
        chain(
            [f"{side}UpLeg", f"{side}Leg", f"{side}Foot"], [f"{sign}10 0 0", "0 -40 0", "0 -42 0"]
        )
        chain(
            [f"{side}Arm", f"{side}ForeArm", f"{side}Hand"],
            [f"{sign}18 50 0", "0 -28 0", "0 -26 0"],
        )
    chain(["Neck", "Head"], ["0 52 0", "0 10 0"])
    frames = round(seconds * 30)
    rows = ["0 90 0 0 0 0" + " 0 0 0" * 14] * frames
    return "\n".join([*lines, "}", "MOTION", f"Frames: {frames}", "Frame Time: 0.0333333", *rows])


def test_a_users_recordings_are_read_by_the_names_of_their_joints(tmp_path):
    (tmp_path / "salute").mkdir()
    (tmp_path / "salute" / "one.bvh").write_text(skeleton_bvh())
    (recording,) = read_own(tmp_path)
    assert recording.action == "salute"
    assert recording.seconds == pytest.approx(1.0, abs=2 / FPS)
    leg = np.linalg.norm(recording.joints[0, 11] - recording.joints[0, 15])
    assert leg == pytest.approx(0.84, abs=0.01)
    assert recording.joints[0, 5, 0] > 0 > recording.joints[0, 6, 0]
    assert recording.joints[0, 0, 2] > recording.joints[0, 3, 2]


def test_an_unknown_skeleton_says_which_joint_is_missing(tmp_path):
    (tmp_path / "salute").mkdir()
    (tmp_path / "salute" / "one.bvh").write_text(skeleton_bvh().replace("LeftForeArm", "Tentacle"))
    with pytest.raises(UserError, match="LeftForeArm or LeftElbow"):
        read_own(tmp_path)


ASF = """:version 1.10
:units
  length 1
  angle deg
:root
  order TX TY TZ RX RY RZ
  axis XYZ
:bonedata
  begin
    id 1
    name lfemur
    direction 0 -1 0
    length 2
    axis 0 0 0 XYZ
    dof rx ry rz
  end
  begin
    id 2
    name ltibia
    direction 0 -1 0
    length 3
    axis 0 0 0 XYZ
    dof rx
  end
:hierarchy
  begin
    root lfemur
    lfemur ltibia
  end
"""


def test_an_amc_file_worked_by_hand(tmp_path):
    from marey.synthetic.poses.asf_amc import read_amc

    (tmp_path / "body.asf").write_text(ASF)
    (tmp_path / "one.amc").write_text(
        ":FULLY-SPECIFIED\n:DEGREES\n1\nroot 0 9 0 0 0 0\nlfemur 90 0 0\nltibia 0\n"
    )
    found = read_amc(tmp_path / "one.amc")
    place = dict(zip(found.names, found.positions[0], strict=True))
    # rx 90 turns "down" to "back" (y to z): the thigh's end, where the shank starts, is at z = -2
    np.testing.assert_allclose(place["lfemur"], (0, 9, 0), atol=1e-9)
    np.testing.assert_allclose(place["ltibia"], (0, 9, -2), atol=1e-9)


def test_an_amc_file_without_its_skeleton_is_named(tmp_path):
    from marey.synthetic.poses.asf_amc import read_amc

    (tmp_path / "one.amc").write_text("1\nroot 0 0 0 0 0 0\n")
    with pytest.raises(UserError, match=r"one\.amc: expected one \.asf"):
        read_amc(tmp_path / "one.amc")
