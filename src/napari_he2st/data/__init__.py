"""Files in and out: slides, measured expression, exports (no torch)."""
