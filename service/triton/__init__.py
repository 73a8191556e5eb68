"""NVIDIA Triton: client, catalog of the served models, and the bundled server.

The only package that imports tritonclient.
"""
