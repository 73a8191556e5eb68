"""Accuracy of a model on a set of annotated images, judged by pycocotools (extra `evaluate`).

No gRPC here: detections come in as COCO results. May import: `skeletons`, `core`.
"""
