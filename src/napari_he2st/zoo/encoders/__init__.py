"""Patch encoders: one table (``encoders.toml``) and a few loaders.

>>> from napari_he2st.zoo.encoders.build import build
>>> build("efficientnet-lite0")(tiles)  # uint8 (n, 3, px, px) -> float32 (n, 1280)
"""
