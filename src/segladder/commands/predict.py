"""`segladder predict`: a palette mask and an overlay for every image below a folder, or of a video."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
from omegaconf import DictConfig
from pydantic import Field

from segladder.door.model import require_images_alone
from segladder.door.packing import opened
from segladder.errors import ConfigError
from segladder.foreign import content
from segladder.methods.base import Method, Precision, evaluating
from segladder.methods.few_shot.base import FewShotMethod
from segladder.protocols.inference import dense_answers
from segladder.report.record import Record
from segladder.runs import few_shot_prediction
from segladder.runs.composition import check_keys
from segladder.runs.loading import chosen_device, load_run
from segladder.runs.pictures import listed, save, segment_each
from segladder.settings import Device, Positive, Scales

WAYS = {  # what a run needs beside `run` and `out`
    "dense": ({"images": "DIR"},),
    "episodes": ({"support": "DIR", "images": "DIR"}, {"video": "DIR", "mask": "FILE"}),
}
SETTINGS = ("support_class", "input_size", "scales", "flip", "precision")  # that change results, like the files shown
FILES = ("images", "support", "video", "mask")


class Keys(TypedDict):
    """The keys of the command."""

    run: str
    images: str | None
    support: str | None
    support_class: Annotated[int, Field(ge=1, le=254)] | None
    video: str | None
    mask: str | None
    out: str
    input_size: Positive | None
    scales: Scales
    flip: bool
    probabilities: bool
    precision: Precision
    device: Device | None
    progress: bool


def run(config: DictConfig) -> int:
    """Segment what is not done yet; an image that cannot be read is named, the others go on. Returns 1 if any was."""
    check_keys(config, Keys)
    device = chosen_device(config.device)
    with opened(Path(config.run)) as folder:
        run_config, record, method = load_run(folder)
    check_inputs(config, method)
    require_images_alone(method)
    shown = {key: config[key] for key in SETTINGS} | {key: absolute(config[key]) for key in FILES}
    made_by = {"run": record.id, "weights": record.checkpoint.get("sha256"), "shows": shows(config)} | shown
    method.to(device)
    method.answers_in = config.precision
    with evaluating(method):
        if isinstance(method, FewShotMethod):
            return few_shot_prediction.run(config, method, run_config.protocol.get("aggregate", "mean"), made_by)
        return segment_all(config, method, record, made_by)


def segment_all(config: DictConfig, method: Method, record: Record, made_by: Mapping[str, Any]) -> int:
    """Segment what is not done yet with a method that knows its classes; returns 1 if an image could not be read."""
    out = Path(config.out)

    def segmented(name: str, image: np.ndarray) -> None:
        classes, probabilities = dense_answers(method, [image], few_shot_prediction.views_of(config))
        save(out, name, image, classes[0], probabilities[0] if config.probabilities else None, record.colours)

    images = listed("images", Path(config.images))
    return segment_each(images, out, segmented, made_by, config.progress, config.probabilities)


def shows(config: DictConfig) -> str | None:
    """A hash of the files that show what to find: the supports, or the mask of a video's first frame."""
    given = [Path(config[key]) for key in ("support", "mask") if config[key] is not None]
    files = [file for place in given for file in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    digests = [hashlib.sha256(content(file)).hexdigest() for file in files if file.is_file()]
    return hashlib.sha256("".join(digests).encode()).hexdigest() if digests else None


def absolute(path: str | None) -> str | None:
    """A path from the root on."""
    return None if path is None else str(Path(path).resolve())


def check_inputs(config: DictConfig, method: Method) -> None:
    """Raise ConfigError unless what is given is what such a method segments."""
    ways = WAYS[method.answers]
    given = [key for key in ("support", "images", "video", "mask") if config[key] is not None]
    if not any(set(given) == set(way) for way in ways):
        expected = " or ".join(" ".join(f"{key}={kind}" for key, kind in way.items()) for way in ways)
        got = " ".join(f"{key}={config[key]}" for key in given) or "none of them"
        raise ConfigError(f"run={config.run} is {method.supervision}: expected {expected}, got {got}")
    if config.support_class is not None and method.answers != "episodes":
        raise ConfigError(
            f"support_class={config.support_class}: run={config.run} is {method.supervision}, it has no supports"
        )
