"""Word-vector files read in one pass: word2vec text and binary, GloVe text, .npz and .csv; only wanted rows are kept.

Nothing is unpickled, and memory does not grow with the file but for .npz, whose arrays are decoded whole.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import mmap
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segladder.errors import ConfigError, DataError
from segladder.files import written
from segladder.foreign import NO_ARCHIVE

Entries = Iterator[tuple[bytes, Any]]  # a word, and what `FORMATS` says how to parse
DAMAGE = (*NO_ARCHIVE, csv.Error)
CACHED = 1 << 24  # bytes; rows of larger files are kept


@dataclass(frozen=True)
class Rows:
    """Some rows of a file: word to vector float32 (D,), and the sha256 of the whole file."""

    vectors: dict[str, np.ndarray]
    sha256: str


def read_rows(path: Path, wanted: Collection[str], cache_dir: Path) -> Rows:
    """The wanted words that a file holds, of equal words the first.

    Args:
        path: .txt or .vec (word2vec with its line of two numbers, GloVe without; blanks or tabs), .bin (word2vec), .npz
            (`names`, `vectors`), or .csv (a header, then a name and numbers a line; lines with # are comments).
        wanted: words; those the file does not hold are left out.
        cache_dir: rows of large files are kept here, by path, size, time and words.

    Raises:
        ConfigError: another kind of file.
        DataError: the file is missing, damaged or torn.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"embeddings.sources: {path}: expected a file ending in {', '.join(FORMATS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file of word vectors; check embeddings.sources")
    stat = path.stat()
    key = "\n".join([str(path.resolve()), str(stat.st_size), str(stat.st_mtime_ns), *sorted(wanted)])
    cached = cache_dir / f"words-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    if cached.is_file():
        with suppress(*DAMAGE), np.load(cached, allow_pickle=False) as stored:  # a damaged one is written anew
            return Rows(dict(zip(stored["names"].tolist(), stored["vectors"], strict=True)), str(stored["sha256"]))
    rows = Rows(_scanned(path, {word.encode() for word in wanted}), _sha256(path))
    if stat.st_size > CACHED:
        _store(cached, rows)
    return rows


def close_words(path: Path, word: str) -> list[str]:
    """Up to five words of a file that are spelled like `word` and begin with the same letter."""
    entries, _ = FORMATS[path.suffix]
    start, length = word[:1].lower(), len(word)
    vocabulary = (found.decode(errors="replace") for found, _ in entries(path))
    return difflib.get_close_matches(
        word, (w for w in vocabulary if w[:1].lower() == start and abs(len(w) - length) <= 3), n=5
    )


def text_entries(path: Path) -> Entries:
    """Words and lines of word2vec or GloVe text."""
    with path.open("rb") as stream:
        first = stream.readline()
        header = len(first.split()) == 2
        width = int(first.split()[1]) if header else len(first.split()) - 1
        if not header:
            stream.seek(0)
        for line in stream:
            yield (line.split(None, 1) or [b""])[0], (line, width)


def parsed_line(path: Path, entry: tuple[bytes, int]) -> np.ndarray | None:
    """The vector (D,) of a line; None where the word holds spaces, so that its first part is no word of the file."""
    line, width = entry
    fields = line.split()
    if len(fields) > width + 1:
        return None
    if len(fields) <= width:
        raise DataError(f"{path}: {len(fields) - 1} numbers for {fields[0].decode()}, expected {width}; is it whole?")
    return np.array(fields[1:], np.float32)


def binary_entries(path: Path) -> Entries:
    """Words and bytes of word2vec's binary format, from memory-mapped pages."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        position = mapped.find(b"\n") + 1
        count, width = map(int, mapped[:position].split())
        if width < 1:
            raise ValueError(f"vectors of {width} numbers")
        for _ in range(count):
            space = mapped.find(b" ", position)
            end = space + 1 + 4 * width
            if space < 0 or end > len(mapped):
                raise ValueError("it ends before its last word")
            yield mapped[position:space].lstrip(b"\n"), mapped[space + 1 : end]
            position = end


def table_entries(path: Path) -> Entries:
    """Names and numbers of a comma-separated table."""
    with path.open(encoding="utf-8", newline="") as stream:
        lines = csv.reader(line for line in stream if line.strip() and not line.startswith("#"))
        width = len(next(lines, []))
        for fields in lines:
            if len(fields) != width:
                raise ValueError(f"{len(fields)} columns for {fields[0]}, expected {width}")
            yield fields[0].strip().encode(), fields[1:]


def array_entries(path: Path) -> Entries:
    """Names and rows of a .npz."""
    with np.load(path, allow_pickle=False) as stored:
        names, vectors = stored["names"], stored["vectors"]
    if names.ndim != 1 or vectors.ndim != 2 or len(names) != len(vectors):
        raise ValueError(f"names {names.shape} and vectors {vectors.shape}, expected (K,) and (K, D)")
    yield from zip((str(name).encode() for name in names), vectors, strict=True)


def _array(path: Path, values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def _from_bytes(path: Path, values: bytes) -> np.ndarray:
    return np.frombuffer(values, "<f4").astype(np.float32)


FORMATS: dict[str, tuple[Callable[[Path], Entries], Callable[[Path, Any], np.ndarray | None]]] = {
    ".txt": (text_entries, parsed_line),
    ".vec": (text_entries, parsed_line),
    ".bin": (binary_entries, _from_bytes),
    ".csv": (table_entries, _array),
    ".npz": (array_entries, _array),
}


def _scanned(path: Path, wanted: set[bytes]) -> dict[str, np.ndarray]:
    entries, parse = FORMATS[path.suffix]
    found: dict[str, np.ndarray] = {}
    try:
        for word, entry in entries(path):
            if word in wanted and word.decode() not in found and (vector := parse(path, entry)) is not None:
                found[word.decode()] = vector
    except DAMAGE as error:
        raise DataError(f"{path}: damaged or not of the kind its ending says ({error})") from error
    if not all(vector.size for vector in found.values()):
        raise DataError(f"{path}: names without numbers, expected a vector for each")
    if broken := [word for word, vector in found.items() if not np.isfinite(vector).all()]:
        raise DataError(f"{path}: the vector of {broken[0]} is not finite")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _store(path: Path, rows: Rows) -> None:
    if not rows.vectors:
        return
    names = np.array(list(rows.vectors), dtype=np.str_)
    with written(path) as partial:
        np.savez(partial, names=names, vectors=np.stack(list(rows.vectors.values())), sha256=np.str_(rows.sha256))
