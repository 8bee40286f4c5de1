"""A dense method as an ONNX graph: raw pixels in, class probabilities out, any size."""

from __future__ import annotations

import json
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from segladder.door.model import Model, require_images_alone
from segladder.errors import ConfigError
from segladder.files import written
from segladder.methods.base import Method
from segladder.methods.image_level.base import LaterStage

Pixels = Literal["uint8", "float32"]
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TRACED = (2, 3, 96, 128)  # a shape that is no network's own
TRIED = ((1, 3, 96, 128), (2, 3, 131, 97))
TOLERANCE = 1e-3


class Deployed(nn.Module):
    """Raw pixels (B, 3, H, W) to probabilities (B, K, H, W); normalisation is part of it."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, pixels: Tensor) -> Tensor:
        """The softmax of the method's scores."""
        return self.method.predict(pixels).softmax(1)


def write_graph(model: Model, out: Path, pixels: Pixels = "uint8") -> float:
    """Write FILE.onnx, once onnxruntime agrees with the method on images of two sizes.

    Args:
        model: dense, on the CPU.
        out: its file.
        pixels: type of the input `pixels`, (B, 3, H, W) in 0..255.

    Returns:
        The largest difference between probabilities.

    Raises:
        ConfigError: few-shot methods, methods that answer with what a parent knows, that read videos or have operations
            that ONNX has not; the extra `export` is not installed.
    """
    method = model.method
    require_images_alone(method)
    if method.answers != "dense" or isinstance(method, LaterStage):
        kind = "is shown its classes by supports" if method.answers != "dense" else "answers with what its parent knows"
        raise ConfigError(f"out={out}: method={method.name} {kind}, expected a method that answers for all classes")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(f"out={out}: needs {missing[0]}: pip install 'segladder[export]'")
    deployed = Deployed(method.eval().to("cpu"))
    with written(out) as partial:
        exported(deployed, pixels, model).save(partial)
        difference = largest_difference(deployed, partial, pixels)
        if not difference <= TOLERANCE:
            raise ConfigError(f"out={out}: onnxruntime differs from method={method.name} by {difference:.2g}")
    return difference


def exported(deployed: Deployed, pixels: Pixels, model: Model) -> torch.onnx.ONNXProgram:
    """The graph, which any batch, height and width may enter. Raises ConfigError where ONNX cannot hold it."""
    size = torch.export.Dim.DYNAMIC
    for noisy in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                deployed,
                (drawn(TRACED, pixels),),
                dynamo=True,
                verbose=False,
                input_names=["pixels"],
                output_names=["probabilities"],
                dynamic_shapes=({0: size, 2: size, 3: size},),
            )
    except Exception as error:  # of torch's tracer, which has dozens
        fault = " ".join(str(error.__cause__ or error).split())[:160]
        raise ConfigError(f"method={model.method.name}: does not fit into an ONNX graph ({fault})") from error
    assert program is not None
    program.model.metadata_props.update(classes=json.dumps(model.classes), method=model.method.name)
    return program


def largest_difference(deployed: Deployed, path: Path, pixels: Pixels) -> float:
    """Between the probabilities of onnxruntime and those of torch, over the shapes of `TRIED`."""
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences = []
    for shape in TRIED:
        images = drawn(shape, pixels)
        with torch.inference_mode():
            expected = deployed(images).numpy()
        (found,) = session.run(None, {"pixels": images.numpy()})
        differences.append(np.abs(found - expected).max() if found.shape == expected.shape else np.inf)
    return float(max(differences))


def drawn(shape: tuple[int, ...], pixels: Pixels) -> Tensor:
    """Pixels of no picture."""
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return images if pixels == "uint8" else images.float()
