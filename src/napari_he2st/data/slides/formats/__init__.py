"""One file per slide format; each registers a function with ``@slide_reader``."""
