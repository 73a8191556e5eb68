"""Drawing on RGB images: persons, angles, text."""
