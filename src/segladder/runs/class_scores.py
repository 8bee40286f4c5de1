"""Class scores of a parent run: computed once for each image, and kept in the run's folder for every later stage."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segladder.data.labels.kinds import kinds
from segladder.errors import ConfigError, DataError
from segladder.files import write_text, written
from segladder.foreign import NO_ARCHIVE, content
from segladder.methods.base import Method, evaluating
from segladder.methods.full.base import DenseMethod
from segladder.methods.image_level.base import SCORE_STRIDE, TagMethod
from segladder.nets.answering import in_float32
from segladder.protocols.inference import resized, scaled_pixels
from segladder.report import record as records
from segladder.runs.folder import content_of

FOLDER = "class_scores"


class StoredScores:
    """The class scores of a run, read from RUN/class_scores/KEY/ID.npz or computed and written there.

    A file holds the scores of the classes that are present, in half precision; scores come back rounded to it whether
    they were read or computed. KEY stands for the run's weights and the views (scales, flip); a file of another image
    of the same id, or of other tags, is computed anew.

    Args:
        folder: of the run.
        load: a run's folder to its trained method.

    Raises:
        ConfigError: no finished run there, or one without class scores.
    """

    def __init__(self, folder: Path, load: Callable[[Path], Method]) -> None:
        self.folder = folder
        self.load = load
        self.content = content_of(folder)

    @cached_property
    def method(self) -> TagMethod | DenseScores:
        """What scores classes: the run's trained method, or the answers of one that had points, scribbles or boxes.

        Its weights can be differentiated through, whoever asks first.
        """
        with torch.inference_mode(False):
            method = self.load(self.folder)
        kind = kinds().get(records.read(self.folder).label_kind)
        if isinstance(method, DenseMethod) and kind is not None and kind.partial:
            return DenseScores(method)
        if not isinstance(method, TagMethod):
            partial = ", ".join(name for name, each in kinds().items() if each.partial)
            raise ConfigError(
                f"parent={self.folder}: method={method.name} gives no class scores, expected cam or alike, or a network"
                f" that had one of {partial}"
            )
        return method

    def __call__(
        self, ids: Sequence[str], images: Tensor, tags: Tensor | None, scales: Sequence[float], flip: bool
    ) -> Tensor:
        """Scores as of `TagMethod.class_scores`; kept on disk for images with an id and known tags."""
        if not ids or tags is None:
            return self._computed(ids, images, tags, scales, flip)
        place = self._place(scales, flip)
        files = [place / f"{image_id}.npz" for image_id in ids]
        digests = [digest_of(image.cpu().numpy()) for image in images]
        found = [read_scores(*each) for each in zip(files, tags.cpu(), digests, strict=True)]
        missing = [i for i, scores in enumerate(found) if scores is None]
        shapes = {scores.shape for scores in found if scores is not None}
        if len(shapes) > 1:  # not all of this method
            missing = list(range(len(ids)))
        if missing:
            computed = self._computed([ids[i] for i in missing], images[missing], tags[missing], scales, flip).cpu()
            if not shapes <= {computed.shape[1:]} and len(missing) < len(ids):
                missing, computed = list(range(len(ids))), self._computed(ids, images, tags, scales, flip).cpu()
            for i, scores in zip(missing, computed, strict=True):
                write_scores(files[i], scores, tags[i].cpu(), digests[i])
                found[i] = scores.half().float()
        return torch.stack([scores for scores in found if scores is not None]).to(images.device)

    def _computed(self, ids: Sequence[str], images: Tensor, *views: Any) -> Tensor:
        with torch.inference_mode(False):
            method = self.method.to(images.device)
        network = method.method if isinstance(method, DenseScores) else method
        with in_float32(images.device), evaluating(network), torch.inference_mode():  # they are kept, whoever asks
            return method.class_scores(ids, images, *views).float()

    def _place(self, scales: Sequence[float], flip: bool) -> Path:
        views = {"content": self.content, "scales": list(scales), "flip": flip}
        place = self.folder / FOLDER / records.hash_of(views)
        manifest, text = place / "views.json", json.dumps(views, indent=1) + "\n"
        if not manifest.exists():
            write_text(manifest, text)
        elif manifest.read_text(encoding="utf-8") != text:
            raise DataError(f"{manifest}: of other class scores; remove the folder to compute them again")
        return place


@dataclass(frozen=True)
class DenseScores:
    """The probabilities of a network that scores all classes, the background among them where there is one.

    Attributes:
        method: trained, in evaluation mode.
    """

    method: DenseMethod

    def to(self, device: torch.device) -> DenseScores:
        """Move the networks to a device and return self."""
        self.method.to(device)
        return self

    def class_scores(
        self, ids: Sequence[str], images: Tensor, tags: Tensor | None, scales: Sequence[float], flip: bool
    ) -> Tensor:
        """Mean probabilities of all views on a grid of stride 4, 0 for classes that the tags leave out (B, K, h, w)."""
        height, width = images.shape[-2:]
        grid = -(-height // SCORE_STRIDE), -(-width // SCORE_STRIDE)
        total = images.new_zeros((), dtype=torch.float32)
        for scale in scales:
            pixels = scaled_pixels(images, scale)
            total = total + self._probabilities(pixels, grid)
            if flip:
                total = total + self._probabilities(pixels.flip(3), grid).flip(3)
        scores = total / (len(scales) * (1 + flip))
        if tags is None:
            return scores
        background = tags.new_ones(len(tags), scores.shape[1] - tags.shape[1])  # no column where there is none
        held = torch.cat([background, tags], 1)  # (B, K)
        return scores * held[:, :, None, None]

    def _probabilities(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        return resized(self.method.predict(pixels).softmax(1), grid)


def digest_of(values: np.ndarray) -> str:
    """A hash of the pixels of an image uint8 (3, H, W), or of scores."""
    return hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest()


def read_scores(path: Path, tags: Tensor, digest: str) -> Tensor | None:
    """Scores (C or K, h, w) float32 of one image, None where none were written for these tags (C,) and pixels."""
    try:
        with np.load(io.BytesIO(content(path)), allow_pickle=False) as stored:
            scores, background = stored["scores"], int(stored["channels"]) - len(tags)
            of_this = str(stored["image"]) == digest and str(stored["digest"]) == digest_of(scores)
            of_this &= np.array_equal(stored["classes"], classes := np.flatnonzero(tags.numpy()))
    except NO_ARCHIVE:
        return None
    fits = scores.dtype == np.float16 and scores.ndim == 3 and min(scores.shape[1:]) > 0
    if not (of_this and fits and background in (0, 1) and len(scores) == background + len(classes)):
        return None
    whole = torch.zeros(background + len(tags), *scores.shape[1:])
    whole[[*range(background), *(classes + background)]] = torch.from_numpy(scores).float()
    return whole


def write_scores(path: Path, scores: Tensor, tags: Tensor, digest: str) -> None:
    """Write the scores (C or K, h, w) of one image with these tags (C,) and pixels, atomically."""
    classes = np.flatnonzero(tags.numpy())
    background = len(scores) - len(tags)
    kept = scores[[*range(background), *(classes + background)]].half().numpy()
    with written(path) as partial:
        np.savez_compressed(
            partial,
            allow_pickle=False,
            classes=classes,
            scores=kept,
            channels=len(scores),
            image=digest,
            digest=digest_of(kept),
        )
