"""Slides to measure on: a pyramid of four real sections, and a huge sparse one that is generated.

``HE2ST_DATA=… python -m benchmarks.slides FILE.tif`` writes the former.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile

from napari_he2st.data.slides.pyramid import halve

SIZE, TILE, MPP = 20_480, 256, 0.5
SPARSE_SIZE = 100_000
SECTIONS = ["C/C5/5714_HE_BT_E1", "C/C2/5714_HE_BT_C2", "B/B4/BT10737_D2_HE", "C/C3/5714_HE_BT_D1"]


def write_real(path: Path) -> Path:
    """A 20,480² Aperio-like pyramid of four sections; needs the folder that HE2ST_DATA names."""
    folder = Path(os.environ["HE2ST_DATA"])
    image = np.full((SIZE, SIZE, 3), 244, dtype=np.uint8)
    for i, name in enumerate(SECTIONS):
        section = cv2.imread(str(folder / "her2st" / "ST-imgs" / f"{name}.jpg"))[:9600, :9600, ::-1]
        y, x = (i // 2) * SIZE // 2 + 320, (i % 2) * SIZE // 2 + 320
        image[y : y + section.shape[0], x : x + section.shape[1]] = section
    description = f"Aperio Image Library v12.0.0\n{SIZE}x{SIZE} (256x256) JPEG/RGB Q=85|AppMag = 20|MPP = {MPP}"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        level = 0
        while level == 0 or image.shape[0] >= 640:
            tif.write(
                image,
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                compressionargs={"level": 85},
                subfiletype=0 if level == 0 else 1,
                description=description if level == 0 else None,
                metadata=None,
            )
            image, level = halve(image), level + 1
    return path


def write_sparse(path: Path) -> Path:
    """A pyramid of 100,000² pixels: stripes of pink noise on a quarter of it, white elsewhere."""
    rng = np.random.default_rng(0)
    noise = rng.integers(100, 230, (TILE // 4, TILE // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    noise[..., 1] //= 2
    white = imagecodecs.jpeg8_encode(np.full((TILE, TILE, 3), 245, np.uint8), level=80)
    tissue = imagecodecs.jpeg8_encode(noise, level=80)
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        side, level = SPARSE_SIZE, 0
        while level == 0 or side > 1024:
            n, stripe = -(-side // TILE), max(1, 32 >> level)
            tiles = (
                tissue if (row // stripe + column // stripe) % 4 == 0 else white
                for row in range(n)
                for column in range(n)
            )
            facts = {"description": f"Aperio Image Library v12\n|AppMag = 40|MPP = {0.25}"} if level == 0 else {}
            tif.write(
                tiles,
                shape=(side, side, 3),
                dtype="uint8",
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(level > 0),
                metadata=None,
                **facts,
            )
            side, level = side // 2, level + 1
    return path


if __name__ == "__main__":
    write_real(Path(sys.argv[1]))
