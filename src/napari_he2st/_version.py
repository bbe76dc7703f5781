"""The version, as the installed metadata states it."""

from importlib.metadata import version

__version__ = version("napari-he2st")
