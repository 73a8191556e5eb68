"""Persons written as files that training tools read: COCO keypoints, Ultralytics YOLO pose, CSV.

May import: numpy and the rest of `core`.

Each format is one module with one function, from images and their skeleton to files in memory.
"""
