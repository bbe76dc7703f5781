"""Registries find their modules once, and whole."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from napari_he2st.core.registry import Registry


def test_no_thread_finds_it_half_loaded(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "slowly_loaded"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in "abc":
        text = f"import time\ntime.sleep(0.05)\nfrom registry_of_test import register\nregister('{name}', '')(print)\n"
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry = Registry("thing", "slowly_loaded")
    monkeypatch.setitem(sys.modules, "registry_of_test", registry)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: registry.names(), range(4)))
    assert found == [["a", "b", "c"]] * 4
