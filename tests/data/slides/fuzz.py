"""Opens and reads damaged copies of slides; run as a process of its own, since a crash has to be noticed.

``python fuzz.py FOLDER SEED COUNT`` prints a JSON line: how many copies opened, were refused, had damaged tiles,
and what else happened.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from napari_he2st.core.errors import He2stError
from napari_he2st.data.slides import Slide, probe

SECONDS = 30
"""More than this for one file counts as a hang, and ends the process with a trace."""

PREFIX_WEIGHT = 0.5
"""Half of the damage falls into the first kilobytes, where formats keep what they say of themselves."""


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """A copy with one to eight wounds: bytes changed, blocks blanked, doubled or cut, huge numbers, the end lost."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        size = len(out)
        if size < 16:
            break
        limit = min(size, 4096) if rng.random() < PREFIX_WEIGHT else size
        at = int(rng.integers(0, limit - 8))
        length = int(min(rng.integers(1, 257), size - at))
        kind = rng.integers(0, 7)
        if kind == 0:
            out[at] = int(rng.integers(0, 256))
        elif kind == 1:
            out[at : at + length] = bytes(length)
        elif kind == 2:
            out[at : at + length] = rng.bytes(length)
        elif kind == 3:
            out[at : at + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\x00\x10\0\0"])
        elif kind == 4:
            del out[at : at + length]
        elif kind == 5:
            out[at:at] = out[at : at + length]
        elif rng.random() < 0.3:
            del out[int(rng.integers(0, size)) :]
    return bytes(out)


def damaged(source: Path, target: Path, rng: np.random.Generator) -> Path:
    """A damaged copy of a file, or of a folder in which one file is damaged."""
    if target.exists():
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    if source.is_file():
        target.write_bytes(mutate(source.read_bytes(), rng))
        return target
    shutil.copytree(source, target)
    files = sorted(file for file in target.rglob("*") if file.is_file())
    texts = [file for file in files if file.name.startswith((".z", "zarr"))]
    chosen = files[rng.integers(len(files))] if rng.random() < 0.3 else texts[rng.integers(len(texts))]
    chosen.write_bytes(mutate(chosen.read_bytes(), rng))
    return target


def attempt(path: Path) -> str:
    """Open a slide and read some of it."""
    try:
        probe(path)
        with Slide.open(path, mpp=0.5) as slide:
            if max(slide.size) < 20_000:
                slide.thumbnail(200)
            width, height = slide.size
            centres = [[width / 3, height / 2], [width / 2, height / 2], [width - 10, height - 10]]
            (batch,) = slide.read_tiles(centres, 64, 0.5)
            slide.pyramid()[-1][:64, :64].compute()
            return "opened" if batch.ok.all() else "opened, with damaged tiles"
    except He2stError:
        return "refused"


def main(folder: Path, seed: int, count: int) -> None:
    """Try ``count`` damaged copies of the slides in a folder, in turn."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
    sources = sorted(folder.iterdir())
    work = folder.parent / f"damaged-{seed}"
    work.mkdir()
    said: Counter[str] = Counter()
    failures: list[str] = []
    for source in sources:  # libraries load before memory is compared
        attempt(source)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        source = sources[number % len(sources)]
        path = damaged(source, work / source.name, np.random.default_rng((seed, number)))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            said[attempt(path)] += 1
        except Exception as error:
            failures.append(f"{source.name}, seed {seed}, number {number}: {type(error).__name__}: {error}")
        faulthandler.cancel_dump_traceback_later()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    sys.stdout.write(json.dumps({"said": said, "failures": failures, "grown_mb": grown}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
