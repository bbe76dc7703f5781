"""DICOM, OME-Zarr, CZI, and the vendors' files that are left to OpenSlide."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import zarr
from tests.tiny.formats import write_czi, write_ome_zarr, write_vendor
from tests.tiny.slides import halved, tissue_image

from napari_he2st.core.errors import SlideError
from napari_he2st.data.slides import SLIDE_READERS, Slide, is_slide_folder, probe


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_every_reader_says_how_its_formats_were_tried() -> None:
    said = {how for reader in SLIDE_READERS for how in reader.facts["formats"].values()}
    assert said == {"real file", "generated file", "untested here"}


class TestOmeZarr:
    @pytest.mark.parametrize("version", ["0.4", "0.5"])
    @pytest.mark.parametrize("axes", ["tczyx", "cyx", "yxc"])
    def test_pixels_of_all_levels(self, tmp_path: Path, version, axes: str) -> None:
        image = tissue_image(301, 203)
        path = write_ome_zarr(tmp_path / "a.ome.zarr", image, version=version, axes=axes)
        with Slide.open(path) as slide:
            assert (slide.name, slide.size, slide.mpp) == ("a", (301, 203), 0.5)
            assert slide.format == f"OME-Zarr {version}"
            expected = image
            for level in slide.levels:
                pixels = slide.read(0, 0, level.width, level.height, mpp=0.5 * level.downsample)
                assert (pixels == expected).all()
                expected = halved(expected)

    def test_the_layout_of_bioformats2raw(self, tmp_path: Path) -> None:
        image = tissue_image(100, 80)
        path = write_ome_zarr(tmp_path / "a.zarr", image, version="0.4", nested=True)
        with Slide.open(path) as slide:
            assert (slide.read(0, 0, 100, 80, mpp=0.5) == image).all()

    def test_at_an_address(self, tmp_path: Path) -> None:
        image = tissue_image(200, 150)
        write_ome_zarr(tmp_path / "a.zarr", image)

        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, *args) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with Slide.open(f"http://127.0.0.1:{server.server_port}/a.zarr") as slide:
                assert (slide.name, slide.mpp) == ("a", 0.5)
                assert (slide.read(0, 0, 200, 150, mpp=0.5) == image).all()
                address = slide.fingerprint
            with pytest.raises(SlideError, match=r"ome-zarr: .*nothing\.zarr"):
                Slide.open(f"http://127.0.0.1:{server.server_port}/nothing.zarr")
        finally:
            server.shutdown()
            server.server_close()
        with Slide.open(tmp_path / "a.zarr") as slide:
            assert slide.fingerprint == address

    def test_other_content_has_another_fingerprint(self, tmp_path: Path) -> None:
        found = set()
        for seed in range(2):
            path = write_ome_zarr(tmp_path / f"{seed}.zarr", tissue_image(200, 150, seed=seed))
            with Slide.open(path) as slide:
                found.add(slide.fingerprint)
        assert len(found) == 2

    def test_without_units_there_is_no_pixel_size(self, tmp_path: Path) -> None:
        facts = probe(write_ome_zarr(tmp_path / "a.zarr", tissue_image(100, 80), mpp=None))
        assert (facts["mpp"], facts["bytes"]) == (None, None)

    def test_a_damaged_chunk_does_not_stop_the_run(self, tmp_path: Path) -> None:
        path = Path(write_ome_zarr(tmp_path / "a.zarr", tissue_image(1200, 400), chunk=512, levels=1))
        (path / "0" / "c" / "0" / "0" / "0" / "0" / "0").write_bytes(b"broken")
        with Slide.open(path) as slide:
            (batch,) = slide.read_tiles([[100, 100], [800, 100]], 64, 0.5)
        assert batch.ok.tolist() == [False, True]

    def test_levels_stay_inside(self, tmp_path: Path) -> None:
        path = write_ome_zarr(tmp_path / "a.zarr", tissue_image(100, 80))
        group = zarr.open_group(path, mode="r+")
        ome = group.attrs["ome"]
        ome["multiscales"][0]["datasets"][0]["path"] = "../b.zarr/0"
        group.attrs["ome"] = ome
        with pytest.raises(SlideError, match="outside of the image"):
            Slide.open(path)

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        path = write_ome_zarr(tmp_path / "a.zarr", tissue_image(100, 80), levels=1)
        zarr.open_group(path, mode="r+").create_array(
            "0", shape=(1, 3, 1, 80, 100), chunks=(1, 1, 1, 64, 64), dtype="uint16", overwrite=True
        )
        with pytest.raises(SlideError, match="uint16"):
            Slide.open(path)

    def test_other_folders_are_no_slides(self, tmp_path: Path) -> None:
        zarr.open_group(tmp_path / "spatial.zarr", mode="w").attrs.update({"spatialdata_attrs": {}})
        assert not is_slide_folder(tmp_path / "spatial.zarr")
        with pytest.raises(SlideError, match="folder, not a slide"):
            Slide.open(tmp_path / "spatial.zarr")


class TestCzi:
    def test_pixels_levels_and_scale(self, tmp_path: Path) -> None:
        pytest.importorskip("pylibCZIrw", reason="needs the extra czi")
        image = tissue_image(1500, 700)
        with Slide.open(write_czi(tmp_path / "a.czi", image, corner=(-40, 300))) as slide:
            assert slide.format == "Zeiss CZI"
            assert slide.mpp == pytest.approx(0.5)
            assert [v.downsample for v in slide.levels] == [1, 2]
            assert (slide.read(0, 0, 1500, 700, mpp=0.5) == image).all()
            assert difference(slide.read(0, 0, 750, 350, mpp=1.0), halved(image)) < 8

    def test_without_a_scale(self, tmp_path: Path) -> None:
        pytest.importorskip("pylibCZIrw", reason="needs the extra czi")
        assert probe(write_czi(tmp_path / "a.czi", tissue_image(90, 70), mpp=None))["mpp"] is None

    @pytest.mark.parametrize("keep", [40, 600])
    def test_truncated(self, tmp_path: Path, keep: int) -> None:
        pytest.importorskip("pylibCZIrw", reason="needs the extra czi")
        path = write_czi(tmp_path / "a.czi", tissue_image(90, 70))
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(SlideError, match="not a readable CZI file"):
            Slide.open(path)


class TestDicom:
    @pytest.fixture
    def real(self, he2st_data: Path) -> Path:
        pytest.importorskip("wsidicom", reason="needs the extra slides")
        return he2st_data / "wsi" / "multi_frame_jpeg2000_camelyon_challenge_image.dcm"

    def test_a_real_slide(self, real: Path) -> None:
        with Slide.open(real) as slide:
            assert (slide.format, slide.size) == ("DICOM WSI", (1696, 812))
            assert slide.mpp == pytest.approx(28.97, abs=0.01)
            assert slide.info()["compression"] == "JPEG 2000, lossless"
            ours = slide.read(0, 0, 1696, 812, mpp=slide.mpp)
        import openslide

        peer = np.asarray(openslide.OpenSlide(real).read_region((0, 0), 0, (1696, 812)))[:, :, :3]
        assert difference(ours, peer) < 0.5

    def test_levels_that_lie_in_files_of_their_own(self, real: Path, tmp_path: Path) -> None:
        import wsidicom

        with wsidicom.WsiDicom.open(real) as wsi:
            wsi.save(tmp_path, add_missing_levels=True)
        files = sorted(tmp_path.glob("*.dcm"), key=lambda file: -file.stat().st_size)
        assert len(files) > 1
        with Slide.open(files[0]) as slide, Slide.open(real) as single:
            assert [v.downsample for v in slide.levels][:3] == [1, 2, 4]
            fine = single.read(400, 200, 256, 256, mpp=2 * single.mpp)
            assert difference(slide.read(400, 200, 256, 256, mpp=2 * slide.mpp), fine) < 6

    def test_frames_that_cannot_be_placed(self, he2st_data: Path) -> None:
        with pytest.raises(SlideError, match="dicom: .*"):
            Slide.open(he2st_data / "wsi" / "small_dicom.dcm", mpp=4.6)


@pytest.mark.parametrize(
    ("vendor", "objective", "levels"),
    [("philips", None, 1), ("leica", 20, 1), ("trestle", 20, 2), ("hamamatsu", 20, 5)],
)
def test_vendors_through_openslide(tmp_path: Path, vendor: str, objective: float | None, levels: int) -> None:
    image = tissue_image(640, 512)
    with Slide.open(write_vendor(tmp_path / "a.tif", image, vendor)) as slide:
        assert slide.format == f"OpenSlide {vendor}"
        width = 1280 if vendor == "leica" else 640  # the whole glass
        assert (slide.size, len(slide.levels)) == ((width, 512), levels)
        assert slide.mpp == pytest.approx(0.5, rel=1e-3)
        assert slide.info()["objective_power"] == objective
        assert difference(slide.read(0, 0, 640, 512, mpp=slide.mpp), image) < 4
