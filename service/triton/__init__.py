"""NVIDIA Triton: client, catalog of the served models, and the bundled server.

May import: `telemetry`, `settings`, `core`, `errors`. The only package that imports tritonclient.
"""
