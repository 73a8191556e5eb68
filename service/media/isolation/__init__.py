"""Decoding in processes of their own, which the kernel or the gateway ends when they cost too much.

`processes` and `images` run in the gateway; `host` and `child` are what the processes run; `wire` is both.
"""
