"""Exports: people as files that training tools read, COCO keypoints, Ultralytics YOLO pose and CSV.

Each format is one module with one function, from images and their skeleton to files in memory.
"""
