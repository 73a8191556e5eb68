"""What the gateway tells of itself while it works; `metrics` counts it."""

from __future__ import annotations

from collections.abc import Mapping


class Observer:
    """Is told what happens. This one keeps nothing."""

    def received(self, size: int) -> None:
        """A message of so many bytes came in."""

    def call_ended(self, rpc: str, code: str, reason: str, seconds: float, *, shed: bool) -> None:
        """A call is over.

        Args:
            rpc: name of the method.
            code: canonical code, as OK.
            reason: of the error; empty without one.
            seconds: from its first byte to its last.
            shed: it was refused because there was too much to do.
        """

    def picture(self, stages_ms: Mapping[str, float], persons: int, *, frame: bool) -> None:
        """The people on a picture were found.

        Args:
            stages_ms: milliseconds by stage.
            persons: how many.
            frame: it belongs to a video or a stream.
        """

    def drawn(self, milliseconds: float) -> None:
        """A picture was drawn on."""

    def triton(self, *, up: bool, models: Mapping[str, bool]) -> None:
        """Triton was looked at: whether it answers, and which of its models are ready."""
