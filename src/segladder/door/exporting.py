"""A run's weights for use elsewhere: an ONNX graph or a packed run, by the ending of the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from segladder.door.graph import Pixels, write_graph
from segladder.door.model import load
from segladder.door.packing import SUFFIX, pack
from segladder.errors import ConfigError
from segladder.settings import check_value


def export(run: Path, out: Path, pixels: str = "uint8") -> str:
    """Write a run to `out`, FILE.onnx or FILE.zip; returns what was written in words.

    Raises:
        ConfigError: another ending, no run, or one that cannot be written so.
    """
    if out.suffix == SUFFIX:
        pack(run, out)
        return f"{out}: {out.stat().st_size / 1e6:.1f} MB, for segladder.load, evaluate and predict"
    if out.suffix != ".onnx":
        raise ConfigError(f"out={out}: expected a name that ends in .onnx or {SUFFIX}")
    check_value(Pixels, pixels, "pixels")
    model = load(run, "cpu")
    difference = write_graph(model, out, cast(Pixels, pixels))
    return (
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, pixels {pixels} (B, 3, H, W) to probabilities of"
        f" {len(model.classes)} classes; onnxruntime differs by {difference:.1g} at most"
    )
