"""Reading one file: every fault becomes a DataError that names it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from segladder.errors import DataError


def read_image(path: Path) -> np.ndarray:
    """Decode an RGB image, uint8 (H, W, 3). Raises DataError for a missing, truncated or foreign file."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}, expected an image") from error
    truncated = data[:2].tobytes() == b"\xff\xd8" and b"\xff\xd9" not in data[-4096:].tobytes()  # cv2 fills it with gray
    image = None if truncated or not data.size else cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path}: damaged or truncated ({data.size} bytes), expected a whole JPEG or PNG")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_mask(path: Path) -> np.ndarray:
    """Decode a palette or gray PNG as class values, uint8 (H, W). Raises DataError for any other kind of file."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L"):
                raise DataError(f"{path}: mode {image.mode}, expected a palette (P) or gray (L) PNG of class values")
            return np.array(image, np.uint8)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, expected a mask") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{path}: damaged or truncated mask ({error})") from error
