"""Drawing on RGB images: persons, angles, text.

May import: numpy, cv2 and the rest of `core`.
"""
