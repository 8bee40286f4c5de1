"""`segladder export`: a run as an ONNX graph, or packed into one file to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from omegaconf import DictConfig

from segladder.door.exporting import export
from segladder.door.graph import Pixels
from segladder.runs.composition import check_keys


class Keys(TypedDict):
    """The keys of the command."""

    run: str
    out: str
    pixels: Pixels


def run(config: DictConfig) -> int:
    """Write `out` and say what it holds."""
    check_keys(config, Keys)
    print(export(Path(config.run), Path(config.out), config.pixels))
    return 0
