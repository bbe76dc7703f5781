"""The packaged section."""

from __future__ import annotations

import hashlib
import time

from napari_he2st.core.schema import check_expression
from napari_he2st.data.samples import sample_folder, sample_section


def test_the_packaged_section_reads_whole_and_fast():
    sample_section()  # imports
    start = time.process_time()
    section = sample_section()
    assert time.process_time() - start < 1.5
    check_expression(section.adata)
    assert (section.name, section.layout, section.patient) == ("C5", "legacy_st", "C")
    assert section.adata.shape == (181, 15721)
    assert section.slide_path == sample_folder() / "C5.jpg"
    assert section.missing == []
    assert {"ERBB2", "CDH1", "EPCAM"} <= set(section.adata.var_names)


def test_the_packaged_files_are_small_unchanged_and_have_their_notice():
    folder = sample_folder()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6
    assert hashlib.sha256((folder / "C5.jpg").read_bytes()).hexdigest() == IMAGE_SHA256
    notice = (folder / "NOTICE.md").read_text(encoding="utf-8")
    for said in ("10.1038/s41467-021-26271-2", "3957257", "**not** covered by the BSD licence", "Andersson"):
        assert said in notice


IMAGE_SHA256 = "34028ea41e376396b50c42b0a11a7e689c85be4a8022e668d0a09cc128c04c65"
