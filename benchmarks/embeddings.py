"""Reading 21 words from a large file of word vectors, against a plain reader that keeps and parses every line."""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np

from segladder.data.sources.voc import VOC_CLASSES
from segladder.data.words.word_vectors import read_rows

Reader = Callable[[Path], dict[str, np.ndarray]]

WIDTH = 300
WORDS, QUICK_WORDS = 1_000_000, 50_000
REFERENCE_WORDS = 50_000  # it takes the same time for each word


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    words = QUICK_WORDS if quick else WORDS
    with tempfile.TemporaryDirectory() as folder:
        large, small = (write(Path(folder) / f"{count}.vec", count) for count in (words, REFERENCE_WORDS))
        fast, memory, rows = alone(selected, large)
        slow, plain_memory, plain_rows = alone(plain, small)
        assert all(np.array_equal(rows[word], plain_rows[word]) for word in VOC_CLASSES)
        size = large.stat().st_size / 2**30
    slow *= words / REFERENCE_WORDS
    detail = (
        f"{fast:.1f} s and {memory:.0f} MB more memory for {size:.1f} GB, sha256 included; the plain reader would take"
        f" {slow:.0f} s, and {plain_memory:.0f} MB for {REFERENCE_WORDS} words"
    )
    return [(f"{len(VOC_CLASSES)} of {words} words of {WIDTH} dimensions", "plain Python reader", slow / fast, detail)]


def write(path: Path, words: int) -> Path:
    """A word2vec text file whose last words are VOC's classes."""
    line = " ".join(f"{value:.6f}" for value in np.random.default_rng(0).standard_normal(WIDTH))
    with path.open("w") as file:
        file.write(f"{words} {WIDTH}\n")
        file.writelines(f"word{number} {line}\n" for number in range(words - len(VOC_CLASSES)))
        file.writelines(f"{name} {line}\n" for name in VOC_CLASSES)
    return path


def selected(path: Path) -> dict[str, np.ndarray]:
    """The product's reader, without its cache."""
    return read_rows(path, VOC_CLASSES, path.parent / path.stem).vectors


def plain(path: Path) -> dict[str, np.ndarray]:
    """Every line split and parsed into a dictionary."""
    vectors = {}
    with path.open() as file:
        next(file)
        for line in file:
            word, *values = line.split()
            vectors[word] = np.array([float(value) for value in values], np.float32)
    return vectors


def measured(reader: Reader, path: Path) -> tuple[float, float, dict[str, np.ndarray]]:
    before, started = peak(), perf_counter()
    vectors = reader(path)
    seconds = perf_counter() - started
    return seconds, peak() - before, {word: vectors[word] for word in VOC_CLASSES}


def alone(reader: Reader, path: Path) -> tuple[float, float, dict[str, np.ndarray]]:
    """Seconds, MB of peak memory and the classes' vectors of a reader in a process of its own."""
    context = get_context("fork")
    answers, answer = context.Pipe(duplex=False)
    process = context.Process(target=lambda: answer.send(measured(reader, path)))
    process.start()
    measurement = answers.recv()
    process.join()
    return measurement


def peak() -> float:
    """Peak memory of this process in MB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
