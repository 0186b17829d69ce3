"""Clips and scenes of captured human motion, rendered on demand: labels, masks and boxes without a
download.

Each action is ONE recording, so a high score on these clips measures 15 recordings. The splits
differ by construction (`marey.synthetic.motion.PARTITIONS`) in: camera azimuth (40 of every 60
degrees are train, 10 val, 10 test) and elevation (to 20 / 24 / 30 degrees), body height, girth and
limb length, speed, phase of the recording, joint noise, and the kinds of background (train
gradient, noise, stripes, rectangles; val checker; test discs, waves). Colours, light, camera motion
and compression are free in every split. Every parameter comes from one seed: same seed, same bytes.

Rendering needs the extra `mocap` (`pybullet`); reading what was rendered does not.
"""
