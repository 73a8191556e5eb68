"""Walks: what the bytes of a container say that FFmpeg does not.

FFmpeg passes over damaged elements of a container, up to the next place that it can read or to the end of the
file, without a word. A walk follows the elements from front to back beside it, and so finds what was passed
over. One module for each format.
"""
