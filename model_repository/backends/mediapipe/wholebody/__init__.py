"""Whole body from MediaPipe's own networks: one crop of one person in, 634 keypoints out.

    keypoints   names and index tables of the native skeleton
    rois        which rotated square of the crop each network looks at
    landmarks   what the landmark networks' numbers mean
    ssd         what the detectors' numbers mean
    networks    the tflite files, verified and compiled by OpenVINO
    pipeline    the chain: pose, then hands and face from the pose
    assembly    the parts of one person, in 2D and in one 3D frame

Arrows go down the list `pipeline -> assembly | networks -> ssd | landmarks | rois | keypoints`. Nothing
here knows Triton: `model.py`, one folder up, is the shell that does.
"""
