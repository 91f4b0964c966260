"""The eraser process: carries out retention."""
