"""Pure functions of arrays: no I/O, no async, no protobuf, no logging.

numpy throughout; cv2 only to warp and to draw. Pictures are RGB uint8 (H, W, 3); sizes are
(width, height) and end in `_wh`; coordinates are pixels of the upright original.
"""
