"""Values over time: smoothing, range of motion, repetitions."""
