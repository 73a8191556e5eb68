"""Ultralytics' `predict` for `scripts/bench --ultralytics`, in an environment with nothing of ours in it.

Arguments: the checkpoint and the number of threads. It prints its versions, then for each line "SECONDS FILE"
on its input the latencies, in seconds, of so many seconds of calls on the bytes of the JPEG file.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path


def main() -> None:
    """Measure what is asked for until the input ends."""
    with contextlib.redirect_stdout(sys.stderr):
        import cv2
        import numpy
        import torch  # type: ignore[import-not-found,unused-ignore]
        import ultralytics  # type: ignore[import-not-found,unused-ignore]

        torch.set_num_threads(int(sys.argv[2]))
        network = ultralytics.YOLO(sys.argv[1])
    print(f"Ultralytics {ultralytics.__version__}, torch {torch.__version__}", flush=True)
    for line in sys.stdin:
        seconds, _, name = line.strip().partition(" ")
        content = numpy.frombuffer(Path(name).read_bytes(), numpy.uint8)
        latencies: list[float] = []
        with contextlib.redirect_stdout(sys.stderr):
            network.predict(cv2.imdecode(content, cv2.IMREAD_COLOR), verbose=False)
            end = time.perf_counter() + float(seconds)
            while time.perf_counter() < end:
                started = time.perf_counter()
                network.predict(cv2.imdecode(content, cv2.IMREAD_COLOR), verbose=False)
                latencies.append(time.perf_counter() - started)
        print(" ".join(f"{value:.6f}" for value in latencies), flush=True)


if __name__ == "__main__":
    main()
