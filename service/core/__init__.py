"""Pure functions of arrays: no I/O, no async, no protobuf, no logging.

May import: numpy, `service.errors`, and cv2 to warp and to draw.

Images are RGB uint8 (H, W, 3); sizes are (width, height) and end in `_wh`; coordinates are pixels of the
upright original.
"""
