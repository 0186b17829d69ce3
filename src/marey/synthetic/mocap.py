"""Clips and scenes of captured human motion, rendered on demand: labels, masks and boxes without a download.

Each action is ONE recording, so a high score on these clips measures 15 recordings. What is held out, by construction
(`mocap_motion.PARTITIONS`): camera azimuth (40 of every 60 degrees are train, 10 val, 10 test) and elevation (to 20 /
24 / 30 degrees), body height, girth and limb length, speed, phase of the recording, joint noise, and the kinds of
background (train gradient, noise, stripes, rectangles; val checker; test discs, waves). Colours, light, camera motion
and compression are free in every split. Every parameter comes from one seed: same seed, same bytes.

Rendering needs the extra `mocap` (`pybullet`); reading what was rendered does not.
"""

from __future__ import annotations

from marey.synthetic.clip import RenderedClip, render_clip
from marey.synthetic.dataset import PackedClips, RenderPlan, render_dataset, render_videos
from marey.synthetic.motion import RECORDINGS, REVERSALS, list_actions, reversed_name
from marey.synthetic.scenes import RenderedScene, render_ava, render_scene

__all__ = ["RECORDINGS", "REVERSALS", "PackedClips", "RenderPlan", "RenderedClip", "RenderedScene", "list_actions",
           "render_ava", "render_clip", "render_dataset", "render_scene", "render_videos", "reversed_name"]
