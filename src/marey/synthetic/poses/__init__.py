"""Windows of keypoints as a pose network reports them, from captured and composed motions."""
