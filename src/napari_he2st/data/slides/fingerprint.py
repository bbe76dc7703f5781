"""A hash of a slide's content that survives moving and renaming the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

_END_BYTES = 64 * 1024
_SAMPLES, _SAMPLE_BYTES = 32, 16 * 1024


def fingerprint_of(path: Path | str, identity: str = "") -> str:
    """SHA-256 (first 32 hexadecimal digits) over the size, both ends and samples of a file.

    Whole slides have gigabytes, so not every byte is read: 64 KiB at each end, where headers and tables
    lie, and 32 samples of 16 KiB in between, which fall into compressed tiles. Compressed pixels that are
    edited change their length and so the size; an edit of uncompressed pixels between the samples is not seen.

    Parameters
    ----------
    path
        The file. Of a folder or an address, ``identity`` alone is hashed.
    identity
        More text that belongs to the content, such as a format's own hash over several files.
    """
    if isinstance(path, str) or path.is_dir():
        return hashlib.sha256(identity.encode()).hexdigest()[:32]
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}:{identity}".encode())
    with path.open("rb") as file:
        digest.update(file.read(_END_BYTES))
        for i in range(1, _SAMPLES + 1):
            file.seek(max(0, size * i // (_SAMPLES + 1) - _SAMPLE_BYTES // 2))
            digest.update(file.read(_SAMPLE_BYTES))
        file.seek(max(0, size - _END_BYTES))
        digest.update(file.read(_END_BYTES))
    return digest.hexdigest()[:32]
