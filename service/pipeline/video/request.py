"""Options of the analysis of one video."""

from __future__ import annotations

from dataclasses import dataclass

from service.core.drawing.poses import OverlayStyle
from service.core.model import PoseModel
from service.media.frame_sampler import Sampling
from service.pipeline.estimator import DetectionOptions
from service.pipeline.sequence_analyzer import SequenceConfig


@dataclass(frozen=True)
class VideoRequest:
    """Options of the analysis of one video.

    Attributes:
        model: estimates the poses.
        options: of the detection.
        sampling: which frames are analysed.
        sequence: tracking, smoothing and measurements.
        overlay: style of the annotated video; None for no such video.
        strict: end with an error at the first damage of the file.
        max_seconds: of the part that is analysed, where that is less than of any video; None: no difference.
    """

    model: PoseModel
    options: DetectionOptions
    sampling: Sampling
    sequence: SequenceConfig
    overlay: OverlayStyle | None
    strict: bool
    max_seconds: float | None = None

    @property
    def keeps_images(self) -> bool:
        """Whether frames are needed after they were fitted into the input of the first model."""
        return self.overlay is not None or self.model.detector is not None
