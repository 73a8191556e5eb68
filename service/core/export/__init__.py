"""People written as files that training tools read: COCO keypoints, Ultralytics YOLO pose, CSV.

Each format is one module with one function, from pictures and their skeleton to files in memory.
"""
