"""Skeleton templates: definition, checks, and mapping between them by keypoint name."""
