"""ONNX graphs, compiled by OpenVINO once for each shape of their inputs.

    machine     CPUs that this process may use
    shapes      shapes of inputs: free dims filled, sizes compared, arrays padded
    config      `config.pbtxt`, read and checked
    compiler    a graph compiled for one shape, and run
    workers     the threads that hand items to OpenVINO, and which run at the same time
    plans       the compiled shapes of one graph: prepared, made on demand, evicted

Imports run from `plans` up this list; `workers` imports none of it. Nothing here knows Triton: `model.py`,
one folder up, is the shell that does.
"""
