"""iStar: expression of super-pixels of 8 µm from the spots of the same slide (Nature Biotechnology 2024)."""

from __future__ import annotations

from napari_he2st.zoo.blocks.superpixels import SuperPixels
from napari_he2st.zoo.recipe import Recipe


class IStar(SuperPixels):
    """The median of five perceptrons on the features of two vision transformers, one above the other.

    Notes
    -----
    HIPT's upper transformer sees the region that is encoded at once, and not the slide as a whole, so that a
    slide of any size can be predicted; features at a region's border are those of a larger image, where the
    original lets them fade. Spots are matched to the cells whose centre they cover, wherever the lattice lies.
    """

    recipe = Recipe("adam", lr=1e-4, epochs=400, batch_of=lambda spots: max(1, min(128, spots // 16)))
