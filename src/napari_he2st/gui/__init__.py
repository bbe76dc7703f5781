"""The window: the only room with Qt, magicgui and napari."""
