"""What holds for every exporter."""

from __future__ import annotations

import pytest

from napari_he2st.core.errors import OutputError, SchemaError, UnknownNameError
from napari_he2st.data.export import EXPORTERS, export

FORMATS = EXPORTERS.names()


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("kind", ["measured", "predicted"])
def test_every_format_writes_and_leaves_its_input_alone(expression, slide, tmp_path, to, kind):
    adata = expression(kind)
    before = adata.copy()
    out = tmp_path / f"out{EXPORTERS[to].facts['suffix']}"
    assert export(adata, to, out, slide=slide) == out
    assert out.stat().st_size > 0
    assert (adata.X != before.X).nnz == 0
    assert adata.uns == before.uns
    assert list(adata.obs) == list(before.obs)


@pytest.mark.parametrize("to", FORMATS)
def test_an_output_that_exists_needs_force(expression, tmp_path, to):
    out = tmp_path / f"out{EXPORTERS[to].facts['suffix']}"
    out.write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        export(expression(), to, out)
    assert out.read_text() == "precious"
    export(expression(), to, out, force=True)
    assert out.is_dir() or out.read_bytes() != b"precious"


def test_the_input_is_never_overwritten(expression, slide, tmp_path):
    adata = expression()
    with pytest.raises(OutputError, match="overwrite its own input"):
        export(adata, "png", slide.path, slide=slide, force=True)
    source = tmp_path / "in.h5ad"
    export(adata, "h5ad", source)
    with pytest.raises(OutputError, match="overwrite its own input"):
        export(adata, "h5ad", source, force=True, inputs=(source,))


def test_nothing_is_left_behind_when_writing_fails(expression, tmp_path, monkeypatch):
    monkeypatch.setattr("anndata.AnnData.write_h5ad", _full_disk)
    with pytest.raises(OutputError, match="No space left"):
        export(expression(), "h5ad", tmp_path / "out.h5ad")
    assert list(tmp_path.iterdir()) == []


def _full_disk(self, path, *args, **kwargs):
    path.write_bytes(b"half")
    raise OSError(28, "No space left on device")


def test_unknown_names(expression, tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean csv"):
        export(expression(), "csb", tmp_path / "out")
    with pytest.raises(UnknownNameError, match=r"option of png named 'genes'.*Did you mean gene"):
        export(expression(), "png", tmp_path / "out.png", genes="ERBB2")


def test_only_our_schema_is_written(expression, tmp_path):
    adata = expression()
    del adata.uns["he2st"]
    with pytest.raises(SchemaError):
        export(adata, "csv", tmp_path / "out.csv")


def test_options_become_form_fields():
    options = EXPORTERS["png"].options
    assert {name: option.default for name, option in options.items()} == {"gene": None, "dpi": 200, "cmap": "viridis"}
    assert options["dpi"].annotation is int
    assert EXPORTERS["h5ad"].options == {}
