"""Whole body from MediaPipe's own networks: an image with persons in, 634 keypoints each out.

    keypoints   names and index tables of the native skeleton
    rois        which rotated square of the image each network looks at
    landmarks   what the landmark networks' numbers mean
    ssd         what the detectors' numbers mean
    networks    the tflite files, verified and compiled by OpenVINO
    association whose body, hand, face or foot was found
    fusion      one body out of the first stage's and the pose network's
    hands       looks for a hand at an arm
    faces       looks for a face on a head
    pipeline    the chain of one person: pose, body, hands, face
    assembly    the parts of one person, in 2D and in one 3D frame
    estimator   persons of a batch of images, side by side

Imports run from `estimator` up this list. Nothing here knows Triton: `model.py`, one folder up, is the shell
that does.
"""
