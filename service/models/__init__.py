"""Checkpoints in, served models out: read a checkpoint, write its ONNX graph, fill the model repository."""
