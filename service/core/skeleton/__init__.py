"""Skeleton templates: definition, validation, and mapping between them by keypoint name.

May import: numpy and the rest of `core`.
"""
