"""Values over time: smoothing, range of motion, repetitions.

May import: numpy and the rest of `core`.
"""
