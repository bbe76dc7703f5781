"""Reads damaged copies of small sections of every layout; run as a process of its own, since a crash has to be noticed.

``python -m tests.data.truth.fuzz FOLDER COUNT`` prints a JSON line: how many copies were read, were refused, and what
else happened.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.data.truth import cell_folders as mini
from tests.data.truth import test_collections as collections

from napari_he2st.core.errors import He2stError
from napari_he2st.core.schema import check_expression
from napari_he2st.data.truth import detect, read_section

SECONDS = 10
"""More CPU time than this for one folder counts as a hang, and ends the process with a trace."""

MEMORY_GIB = 6
"""The process may not reserve more: a declared size must not be believed."""


def _plain(write: Callable[[Path], object]) -> Callable[[Path], object]:
    def into(folder: Path) -> None:
        folder.mkdir(parents=True)
        write(folder)

    return into


def _h5ad(folder: Path) -> None:
    adata = anndata.AnnData(collections.COUNTS.astype(np.float32))
    adata.obsm["spatial"] = np.stack([collections.X, collections.Y], 1) * 60.0
    adata.write_h5ad(folder / "mini.h5ad")


def _hest(folder: Path) -> None:
    _h5ad(folder)
    (folder / "mini.json").write_text('{"pixel_size_um_estimated": 0.5}')


def _stimage(folder: Path) -> None:
    keys = [f"A_ST_1_{key}" for key in collections.KEYS]
    collections.COUNTS.set_axis(keys).to_csv(folder / "A_ST_1_count.csv")
    table = pd.DataFrame({"yaxis": collections.Y * 60.0, "xaxis": collections.X * 60.0, "r": 15.0}, index=keys)
    table.to_csv(folder / "A_ST_1_coord.csv")


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "visium": lambda folder: mini.spots(folder, hd=False),
    "visium_hd": lambda folder: mini.spots(folder, hd=True),
    "visium_hd_cells": mini.visium_hd_cells,
    "xenium": mini.xenium,
    "xenium transcripts": lambda folder: mini.xenium(folder, matrix="transcripts", aligned=False),
    "cosmx": mini.cosmx,
    "merscope": mini.merscope,
    "stereo_seq bins": lambda folder: mini.stereo_seq(folder, cells=False),
    "stereo_seq cells": lambda folder: mini.stereo_seq(folder, bins=False),
    "cscc": _plain(collections.cscc),
    "breast_st": _plain(collections.breast_st),
    "olfactory_bulb": _plain(collections.olfactory_bulb),
    "st_utility": _plain(collections.st_utility),
    "h5ad": _plain(_h5ad),
    "hest": _plain(_hest),
    "stimage": _plain(_stimage),
}

_HUGE = [b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"100000000", b"1e308", b"-1", b"nan", b"inf"]
_WORDS = [b";", b"\t", b",", b"\n", b"\r", b'"', b"\xff\xfe", b"\xe9", b"", b" ", b"0", b"9" * 400, b"\0", b"[" * 2000]
_SWAPS = [(b",", b";"), (b",", b"\t"), (b"\t", b","), (b"\n", b"\r"), (b".", b","), (b"-1", b"-2")]

WOUND = st.one_of(
    st.tuples(st.just("put"), st.floats(0, 1), st.sampled_from([*_HUGE, *_WORDS])),
    st.tuples(st.just("over"), st.floats(0, 1), st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from(_HUGE))),
    st.tuples(st.just("cut"), st.floats(0, 1), st.integers(1, 400).map(bytes)),
    st.tuples(st.just("double"), st.floats(0, 1), st.integers(1, 400).map(bytes)),
    st.tuples(st.just("end"), st.floats(0, 1), st.just(b"")),
    st.tuples(st.just("swap"), st.integers(0, len(_SWAPS) - 1).map(float), st.just(b"")),
)


def wounded(data: bytes, wounds: list[tuple[str, float, bytes]]) -> bytes:
    """A damaged copy."""
    for kind, where, what in wounds:
        at = int(where * len(data))
        if kind == "put":
            data = data[:at] + what + data[at:]
        elif kind == "over":
            data = data[:at] + what + data[at + len(what) :]
        elif kind == "cut":
            data = data[:at] + data[at + len(what) :]
        elif kind == "double":
            data = data[: at + len(what)] + data[at:]
        elif kind == "end":
            data = data[:at]
        else:
            old, new = _SWAPS[int(where)]
            data = data.replace(old, new)
    return data


def attempt(folder: Path) -> str:
    """Look at a folder and read what it holds; anything but a section or our own error is a finding."""
    try:
        detection = detect(folder)
        section = read_section(folder, detection.sections[0], mpp=0.5, stand_in=True)
        check_expression(section.adata)
    except He2stError as error:
        return "refused" if str(error) else "refused without words"
    except MemoryError:
        return "MemoryError"
    except Exception as error:
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        line = "" if at is None else f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}"
        return f"{type(error).__name__} {line}: {error}"[:300]
    return "read"


def main(folder: Path, count: int) -> None:
    """Damage and read ``count`` folders; print what happened."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_GIB << 30, MEMORY_GIB << 30))
    faulthandler.register(signal.SIGPROF, chain=True)
    originals = {}
    for name, write in LAYOUTS.items():
        original = folder / name.replace(" ", "_")
        write(original)
        originals[name] = [original, *sorted(path for path in original.rglob("*") if path.is_file())]
    counts: Counter[str] = Counter()
    slowest = 0.0

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.sampled_from(sorted(LAYOUTS)), st.integers(0, 20), st.lists(WOUND, min_size=1, max_size=4))
    def try_one(layout: str, number: int, wounds: list[tuple[str, float, bytes]]) -> None:
        nonlocal slowest
        original, *files = originals[layout]
        chosen = files[number % len(files)]
        with tempfile.TemporaryDirectory(dir=folder) as place:
            copy = Path(place) / original.name
            shutil.copytree(original, copy)
            (copy / chosen.relative_to(original)).write_bytes(wounded(chosen.read_bytes(), wounds))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            start = time.process_time()
            outcome = attempt(copy)
            slowest = max(slowest, time.process_time() - start)
            signal.setitimer(signal.ITIMER_PROF, 0)
        counts[outcome if outcome in ("read", "refused") else f"{layout}: {outcome}"] += 1

    try_one()
    print(json.dumps({"counts": counts, "total": counts.total(), "slowest_cpu_s": round(slowest, 2)}))  # noqa: T201 - its result


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
