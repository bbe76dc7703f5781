"""The byte-pair tokeniser of CLIP."""

from __future__ import annotations

import gzip
import re
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from napari_he2st.core.errors import WeightsError
from napari_he2st.zoo.weights import WeightSource, find_weights

_VOCABULARY = WeightSource(
    file="bpe_simple_vocab_16e6.txt.gz",
    sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
    package="open_clip",
    distribution="open-clip-torch",
)
_N_MERGES = 49152 - 256 - 2
_END = "</w>"
_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


class Tokeniser:
    """Texts to token numbers: letters in lower case, one digit or other signs at a time, joined pair by pair.

    Parameters
    ----------
    merges
        Pairs that are joined, the most frequent first; without any, every byte is a token.

    Attributes
    ----------
    start, end
        Numbers of the two tokens around a text; 0 fills up behind.
    """

    def __init__(self, merges: list[tuple[str, str]]) -> None:
        self._letters = _letters_of_bytes()
        tokens = [*self._letters.values(), *(letter + _END for letter in self._letters.values())]
        tokens += [a + b for a, b in merges]
        self._number = {token: number for number, token in enumerate(tokens)}
        self._rank = {pair: rank for rank, pair in enumerate(merges)}
        self.start, self.end = len(tokens), len(tokens) + 1

    def __len__(self) -> int:
        return self.end + 1

    def words(self, text: str) -> list[int]:
        """Token numbers of a text, without start and end."""
        found = []
        for word in _WORD.findall(" ".join(text.split()).lower()):
            found += self._word(word)
        return found

    def fill(self, texts: list[list[int]], length: int) -> Tensor:
        """Token numbers between start and end, cut or filled up to one length: int64 (n, length)."""
        rows = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, numbers in zip(rows, texts, strict=True):
            whole = [self.start, *numbers[: length - 2], self.end]
            row[: len(whole)] = torch.tensor(whole)
        return rows

    def __call__(self, texts: list[str], length: int) -> Tensor:
        """Texts as tokens, int64 (n, length)."""
        return self.fill([self.words(text) for text in texts], length)

    def _word(self, word: str) -> list[int]:
        parts = [self._letters[byte] for byte in word.encode()]
        parts[-1] += _END
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            pair = min(pairs, key=lambda pair: self._rank.get(pair, len(self._rank)))
            if pair not in self._rank:
                break
            joined: list[str] = []
            for part in parts:
                if joined and (joined[-1], part) == pair:
                    joined[-1] += part
                    # "aaa" joins its first two letters only: what was just joined matches no pair again.
                else:
                    joined.append(part)
            parts = joined
        return [self._number[part] for part in parts]


def _letters_of_bytes() -> dict[int, str]:
    """A printable letter for every byte, in CLIP's order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def bytes_tokeniser() -> Tokeniser:
    """One token per byte, which needs no vocabulary."""
    return Tokeniser([])


@cache
def clip_tokeniser() -> Tokeniser:
    """CLIP's own, 49,408 tokens.

    Raises
    ------
    WeightsError
        Its vocabulary is not there: it comes with the package open-clip-torch, or from the user as
        ``clip-vocabulary``.
    """
    path = find_weights("clip-vocabulary", _VOCABULARY)
    try:
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")
        merges = [(a, b) for a, b in (line.split() for line in lines[1 : _N_MERGES + 1])]
    except (OSError, EOFError, ValueError) as error:
        raise WeightsError(f"CLIP's vocabulary is damaged ({error})", where=path) from error
    return Tokeniser(merges)
