"""`segladder predict` of few-shot runs: images for which supports show the class, or a video with its first mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from segladder.data.sources.support import Support, read_support, read_supports
from segladder.methods.few_shot.base import PREDICTION_AGGREGATES, Features, FewShotMethod, State
from segladder.protocols.episode_runner import aggregated
from segladder.protocols.inference import resized, scaled_pixels, to_pixels
from segladder.report.pictures.few_shot_panel import few_shot_panel
from segladder.runs.pictures import listed, overlay_path, save, segment_each, write_picture, write_preview


def run(config: DictConfig, method: FewShotMethod, aggregate: str) -> int:
    """Segment what is not done yet of `images` or `video`; returns 1 if an image could not be read."""
    return segment_images(config, method, aggregate) if config.video is None else segment_video(config, method)


def segment_images(config: DictConfig, method: FewShotMethod, aggregate: str) -> int:
    """A mask, an overlay and a panel beside the supports for every image of a folder."""
    paths, out = listed("images", Path(config.images)), Path(config.out)
    supports = read_supports(Path(config.support), config.support_class)
    segmenter = Segmenter(method, supports, aggregate, config)
    shown = [(support.image, support.mask) for support in supports]

    def segmented(path: Path, image: np.ndarray) -> None:
        prediction, probability = segmenter.segment(image)
        panel = few_shot_panel(shown, image, probability, prediction, f"{path.stem}: {method.name}")
        write_picture(out / "panels" / f"{path.stem}.png", Image.fromarray(panel))
        save(out, path, image, prediction)

    return segment_each(paths, out, segmented, config.progress)


def segment_video(config: DictConfig, method: FewShotMethod) -> int:
    """A mask and an overlay for every frame, and an animated preview; the first frame's mask is the one given."""
    frames, out = listed("video", Path(config.video)), Path(config.out)
    support = read_support(frames[0], Path(config.mask), config.support_class)
    segmenter = Segmenter(method, [support], "mean", config)

    def segmented(path: Path, image: np.ndarray) -> None:
        known = path == frames[0]
        save(out, path, image, (support.mask == 1).astype(np.uint8) if known else segmenter.segment(image)[0])

    code = segment_each(frames, out, segmented, config.progress)
    preview = out / "preview.gif"
    write_preview(preview, [path for path in (overlay_path(out, frame) for frame in frames) if path.exists()])
    print(f"preview: {preview}")
    return code


class Segmenter:
    """A few-shot method that has looked at its supports, once for all images.

    Args:
        method: in evaluation mode; used on the device it is on.
        supports: of any sizes.
        aggregate: how they become one answer, as in `EpisodeRunner`.
        config: `input_size`, `scales` and `flip` of the command.
    """

    @torch.inference_mode()
    def __init__(self, method: FewShotMethod, supports: Sequence[Support], aggregate: str, config: DictConfig) -> None:
        self.method, self.aggregate = method, aggregate
        self.input_size, self.scales, self.flip = config.input_size, config.scales, config.flip
        states = [self.state(support) for support in supports]
        areas = [int((support.mask == 1).sum()) if aggregate == "area_mean" else 1 for support in supports]
        weights = torch.tensor([areas], device=method.device) / sum(areas)
        alone = torch.ones(1, 1, device=method.device)
        if aggregate in PREDICTION_AGGREGATES:
            self.states = [method.combine([state], alone) for state in states]
        else:
            self.states = [method.combine(states, weights)]

    def state(self, support: Support) -> State:
        """What one support says about its class."""
        method, pixels = self.method, to_pixels([support.image], self.input_size, self.method.device)
        masks = torch.from_numpy((support.mask == 1).astype(np.float32)).to(method.device)[None]  # (1, H, W)
        masks = interpolate(masks[None], pixels.shape[2:], mode="nearest")[0]  # (1, h, w)
        images = method.normalize(pixels)
        features: Features = method.encode(images) if method.reads_support_features else ()
        return method.condition(images if method.reads_support_images else None, features, masks)

    @torch.inference_mode()
    def segment(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prediction (1 = the class) uint8 (H, W) and probability of the class float32 (H, W) of one image."""
        pixels, size = to_pixels([image], self.input_size, self.method.device), (image.shape[0], image.shape[1])
        views = []  # each (K or 1, H, W)
        for scale in self.scales:
            scaled = pixels if scale == 1 else scaled_pixels(pixels, scale)
            views.append(self.probabilities(scaled, size))
            if self.flip:
                views.append(self.probabilities(scaled.flip(3), size).flip(2))
        prediction, probability = aggregated(torch.stack(views).mean(0).cpu().numpy(), self.aggregate)
        return prediction.astype(np.uint8), probability

    def probabilities(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """P(class) (K, H, W) at `size` for aggregates of predictions, otherwise (1, H, W), for pixels (1, 3, h, w)."""
        features = self.method.encode(self.method.normalize(pixels))
        inner = (pixels.shape[2], pixels.shape[3])
        logits = [resized(self.method.decode(features, state, inner).float(), size) for state in self.states]
        return torch.cat(logits).softmax(1)[:, 1]
