"""Whatever is wrong with a file, it is refused or read with gaps: no crash, no hang, no flood of memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.tiny.formats import write_czi, write_ome_zarr, write_vendor
from tests.tiny.slides import tissue_image, write_shared_tables, write_slide

GROWTH_MB = 700
"""Peak memory above that of reading the same slides whole; a decoded tile may have 256 MB."""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small slide of every format that can be written here, and the real DICOM slide where there is one."""
    folder = tmp_path_factory.mktemp("fuzz") / "slides"
    folder.mkdir()
    image = tissue_image(300, 200)
    for kind, compression in (
        ("tiff", "jpeg"),
        ("tiff", "deflate"),
        ("tiff", "lzw"),
        ("tiff", "webp"),
        ("svs", "APERIO_JP2000_RGB"),
        ("ome", "jpeg"),
    ):
        write_slide(folder / f"{kind}-{compression}.tif", image, kind=kind, compression=compression)
    write_shared_tables(folder / "tables.tif", image)
    for suffix in ("png", "jpg", "bmp"):
        Image.fromarray(image).save(folder / f"plain.{suffix}")
    Image.fromarray(image).save(folder / "strips.tif")
    for version in ("0.4", "0.5"):
        write_ome_zarr(folder / f"{version}.zarr", image, version=version)
    for vendor in ("philips", "leica", "trestle", "hamamatsu"):
        write_vendor(folder / f"{vendor}.tif", image, vendor)
    with contextlib.suppress(ImportError):
        write_czi(folder / "a.czi", image)
    real = Path(os.environ.get("HE2ST_DATA", "none")) / "wsi" / "multi_frame_jpeg2000_camelyon_challenge_image.dcm"
    if real.exists():
        shutil.copy(real, folder / "real.dcm")
    return folder


def fuzz(slides: Path, seed: int, count: int, capsys: pytest.CaptureFixture) -> None:
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), str(slides), str(seed), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + count)
    assert done.returncode == 0, f"the process died: {done.stderr[-3000:]}"
    outcome = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        sys.stdout.write(f"\n{count} damaged slides: {outcome['said']}, {outcome['grown_mb']:.0f} MB\n")
    assert outcome["failures"] == []
    assert sum(outcome["said"].values()) == count
    assert outcome["grown_mb"] < GROWTH_MB


def test_damaged_slides(slides: Path, capsys: pytest.CaptureFixture) -> None:
    fuzz(slides, seed=0, count=120, capsys=capsys)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_damaged_slides(slides: Path, capsys: pytest.CaptureFixture) -> None:
    for seed in range(1, 11):
        fuzz(slides, seed=seed, count=1000, capsys=capsys)
