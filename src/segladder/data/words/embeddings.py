"""Semantic vectors of classes: from word-vector files, attribute tables or CLIP's text encoder, and two controls."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segladder.configuration import conf_folder
from segladder.data.sources.shapes import SHAPES_CLASSES, attribute_table
from segladder.data.words.word_vectors import FORMATS, Rows, close_words, read_rows
from segladder.errors import ConfigError, DataError
from segladder.files import written
from segladder.foreign import NO_ARCHIVE
from segladder.machine import cache_folder
from segladder.settings import Seed

VOC_TABLE = "data/attributes/voc.csv"  # in conf/
BUILT_IN = ("shapes_attributes", "voc_attributes")
TABLES = (".csv", ".npz")  # list classes rather than a language's words; may lack the background
PROMPT = "a photo of a {}"


@dataclass(frozen=True)
class Embeddings:
    """A vector per class.

    Attributes:
        names: of the classes, the background first.
        vectors: float32 (K, D); zeros for a background that no source describes.
        sources: one dict per source: `source`, its number of `dimensions`, the `words` that stand for each class and
            the `sha256` of a file.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    sources: tuple[dict[str, Any], ...]

    def save(self, path: str | Path, **beside: Any) -> None:
        """Write a `.npz` that `load` and `embeddings.sources` read; it keeps arrays `beside` them too."""
        sources = np.str_(json.dumps(list(self.sources)))
        with written(Path(path)) as partial:
            np.savez(partial, names=np.array(self.names), vectors=self.vectors, sources=sources, **beside)

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read what `save` wrote. Raises DataError for a missing, damaged or foreign file."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                sources = tuple(map(dict, json.loads(str(stored["sources"]))))
                return cls(tuple(stored["names"].tolist()), stored["vectors"].astype(np.float32), sources)
        except NO_ARCHIVE as error:
            raise DataError(f"{path}: no saved embeddings ({error}); build them again") from error


@dataclass(frozen=True)
class EmbeddingSettings:
    """The node `embeddings` of a configuration.

    Args:
        sources: `shapes_attributes`, `voc_attributes`, files (see `read_rows`), `clip:MODEL/WEIGHTS`; several are
            concatenated.
        words: class to the word or words that stand for it, where its own name does not; words of several are averaged.
        normalize: of each source's vectors, then of their concatenation: `none`, `l2` or `max` (largest entry 1).
        control: `none`; `random`, Gaussian vectors of unit length and as many dimensions; `one_hot`.
        seed: of `random`.
        cache_dir: where rows of large files are kept; None is the user's cache folder.
    """

    sources: Sequence[str]
    words: Mapping[str, str] = field(default_factory=dict)
    normalize: Literal["none", "l2", "max"] = "l2"
    control: Literal["none", "random", "one_hot"] = "none"
    seed: Seed = 0
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            choices = f"{', '.join(BUILT_IN)}, files ({', '.join(FORMATS)}) or clip:MODEL/WEIGHTS"
            raise ConfigError(f"embeddings.sources: none given, expected some of {choices}")


def class_embeddings(settings: Mapping[str, Any], classes: Sequence[str]) -> Embeddings:
    """The vectors of some classes.

    Args:
        settings: the arguments of `EmbeddingSettings`.
        classes: names, the background first. Attribute tables and .npz files may lack it; it is then zeros, under the
            controls too.

    Raises:
        ConfigError: an unknown key, choice or kind of source, or an extra that is not installed.
        DataError: a missing or damaged file, a class that a source does not hold (named with close words).
    """
    try:
        chosen = EmbeddingSettings(**dict(settings))
    except TypeError as error:
        raise ConfigError(f"embeddings: {error}") from error
    parts, described = zip(*[_source(str(source), chosen, classes) for source in chosen.sources], strict=True)
    vectors = normalized(np.concatenate([normalized(part, chosen.normalize) for part in parts], 1), chosen.normalize)
    if chosen.control != "none":
        vectors = control_vectors(chosen.control, vectors, chosen.seed)
    return Embeddings(tuple(classes), vectors.astype(np.float32), described)


def normalized(vectors: np.ndarray, how: str) -> np.ndarray:
    """Rows (K, D) divided by their length (`l2`), by their largest absolute entry (`max`) or left; zeros stay."""
    if how == "none":
        return vectors
    sizes = np.linalg.norm(vectors, axis=1) if how == "l2" else np.abs(vectors).max(1)
    return vectors / np.where(sizes > 0, sizes, 1)[:, None]


def control_vectors(control: Literal["none", "random", "one_hot"], vectors: np.ndarray, seed: Seed) -> np.ndarray:
    """Vectors that say nothing about classes: `random` (K, D) of unit length, `one_hot` (K, K); zero rows stay zero."""
    count, width = vectors.shape
    if control == "one_hot":
        drawn = np.eye(count)
    else:
        drawn = normalized(np.random.Generator(np.random.PCG64(seed)).standard_normal((count, width)), "l2")
    return drawn * vectors.any(axis=1, keepdims=True)


def spellings(phrase: str) -> list[str]:
    """How one token of a file may spell several words, best first; just the word itself for one."""
    parts = phrase.split()
    return [joint.join(parts) for joint in ("_", "-", "")] if len(parts) > 1 else [phrase]


def _source(source: str, settings: EmbeddingSettings, classes: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """Vectors (K, D) of one source and what the record says of it."""
    phrases = {name: str(settings.words.get(name, name)) for name in classes}
    if source.startswith("clip:"):
        return _clip(source, phrases)
    if source == "shapes_attributes":
        known = dict(zip(SHAPES_CLASSES[1:], attribute_table(), strict=True))
        return _joined(source, {name: [name] if name in known else [] for name in classes}, Rows(known, ""))
    path = conf_folder() / VOC_TABLE if source == "voc_attributes" else Path(source)
    rows = read_rows(path, _candidates(phrases), cache_folder(settings.cache_dir))
    table = path.suffix in TABLES
    tokens = {name: _tokens(name, phrase, rows, table) for name, phrase in phrases.items()}
    for name, found in tokens.items():
        if not found and not (table and name == classes[0]):
            raise _missing(path, name, phrases[name])
    return _joined(source, tokens, rows)


def _candidates(phrases: Mapping[str, str]) -> set[str]:
    """Every word that could stand for a class, or for a part of its name."""
    return {word for name, phrase in phrases.items() for word in (name, *spellings(phrase), *phrase.split())}


def _tokens(name: str, phrase: str, rows: Rows, table: bool) -> list[str]:
    """The tokens whose mean is a class's vector: one for it all, or one a word; empty if the file has none."""
    joined, closed = spellings(phrase)[:-1] or [phrase], spellings(phrase)[-1]
    whole = next((word for word in ([name] if table else []) + joined if word in rows.vectors), None)
    if whole is not None:
        return [whole]
    parts = phrase.split()
    if all(word in rows.vectors for word in parts):
        return parts
    return [closed] if closed in rows.vectors else []


def _joined(source: str, tokens: Mapping[str, list[str]], rows: Rows) -> tuple[np.ndarray, dict[str, Any]]:
    if missing := [name for name, found in list(tokens.items())[1:] if not found]:
        raise DataError(f"embeddings.sources: {source} does not describe the class {missing[0]}")
    width = len(next(iter(rows.vectors.values())))
    means = [np.mean([rows.vectors[t] for t in found], 0) if found else np.zeros(width) for found in tokens.values()]
    described = {"source": source, "dimensions": width, "words": {n: " ".join(found) for n, found in tokens.items()}}
    return np.stack(means), described | ({"sha256": rows.sha256} if rows.sha256 else {})


def _missing(path: Path, name: str, phrase: str) -> DataError:
    """The error for a class that a file does not hold."""
    sought = dict.fromkeys([spellings(phrase)[0], *phrase.split()])
    close = [word for spelling in sought for word in close_words(path, spelling)]
    hint = f"close to it are {', '.join(dict.fromkeys(close))}" if close else "nothing is spelled like it"
    return DataError(f"{path}: no vector for {phrase}; {hint}; set embeddings.words.{name}=WORD")


def _clip(source: str, phrases: Mapping[str, str]) -> tuple[np.ndarray, dict[str, Any]]:
    """CLIP's text features of a prompt per class. CLIP has seen pictures of unseen classes: not strict zero-shot."""
    try:
        import open_clip
        import torch
    except ImportError as error:
        raise ConfigError(f"embeddings.sources: {source} needs pip install 'segladder[text]'") from error
    model_name, _, weights = source.removeprefix("clip:").partition("/")
    if ":" in model_name or (weights and Path(weights).exists()):  # a repository, a folder or a file
        raise ConfigError(f"embeddings.sources: {source}: expected names that open_clip knows, clip:MODEL/WEIGHTS")
    model = open_clip.create_model(model_name, pretrained=weights or None).eval()
    texts = {name: PROMPT.format(re.sub(r"[_\s]+", " ", phrase)) for name, phrase in phrases.items()}
    with torch.inference_mode():
        vectors = model.encode_text(open_clip.get_tokenizer(model_name)(list(texts.values()))).float().numpy()
    return vectors, {"source": source, "dimensions": vectors.shape[1], "words": texts, "strict": False}
