"""Offline tools: checkpoints to ONNX graphs to TensorRT engines, and the checks of both.

May import: `triton`, `media`, `skeletons`, `core`; Typer for its commands. `verify` and `mediapipe` the
standard library alone, because they run where nothing is installed.
"""
