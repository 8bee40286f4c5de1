"""`segladder predict` of few-shot runs: images for which supports show classes, or a video with its first mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from segladder.data.sources.support import Support, read_support, read_supports
from segladder.methods.few_shot.base import Features, FewShotMethod, State
from segladder.protocols.episode_runner import aggregated
from segladder.protocols.inference import Views, resized, scaled_pixels, to_pixels
from segladder.report.pictures.few_shot_panel import few_shot_panel
from segladder.runs.pictures import listed, overlay_path, save, segment_each, write_picture, write_preview


def run(config: DictConfig, method: FewShotMethod, aggregate: str, made_by: Mapping[str, Any]) -> int:
    """Segment what is not done yet of `images` or `video`; returns 1 if an image could not be read.

    Args:
        config: of `segladder predict`.
        method: in evaluation mode.
        aggregate: how supports of one class become one answer.
        made_by: as of `segment_each`.
    """
    if config.video is None:
        return segment_images(config, method, aggregate, made_by)
    return segment_video(config, method, made_by)


def segment_images(config: DictConfig, method: FewShotMethod, aggregate: str, made_by: Mapping[str, Any]) -> int:
    """A mask, an overlay and a panel beside the supports for every image of a folder."""
    images, out = listed("images", Path(config.images)), Path(config.out)
    supports = read_supports(Path(config.support), config.support_class)
    segmenter = Segmenter(method, supports, aggregate, views_of(config))
    shown = [(support.image, support.mask) for support in supports]

    def segmented(name: str, image: np.ndarray) -> None:
        prediction, probabilities = segmenter.segment(image)
        panel = few_shot_panel(shown, image, probabilities, prediction, f"{name}: {method.name}")
        write_picture(out / "panels" / f"{name}.png", Image.fromarray(panel))
        save(out, name, image, prediction, probabilities if config.probabilities else None)

    return segment_each(images, out, segmented, made_by, config.progress, config.probabilities)


def segment_video(config: DictConfig, method: FewShotMethod, made_by: Mapping[str, Any]) -> int:
    """A mask and an overlay for every frame, and an animated preview; the first frame's mask is the one given."""
    frames, out = listed("video", Path(config.video), below=False), Path(config.out)
    known = next(iter(frames))
    support = read_support(frames[known], Path(config.mask), config.support_class)
    segmenter = Segmenter(method, [support], "mean", views_of(config))
    first = (support.mask == 1).astype(np.uint8)

    def segmented(name: str, image: np.ndarray) -> None:
        given = first, first[None].astype(np.float32)
        prediction, probabilities = given if name == known else segmenter.segment(image)
        save(out, name, image, prediction, probabilities if config.probabilities else None)

    code = segment_each(frames, out, segmented, made_by, config.progress, config.probabilities)
    preview = out / "preview.gif"
    write_preview(preview, [path for path in (overlay_path(out, frame) for frame in frames) if path.exists()])
    print(f"preview: {preview}")
    return code


class Segmenter:
    """A few-shot method that has looked at its supports, once for all images.

    Args:
        method: in evaluation mode; used on the device it is on.
        supports: of any sizes; each value stands for a class of its own.
        aggregate: how those of one class become one answer, as in `EpisodeRunner`.
        views: how images and supports are looked at.

    Attributes:
        values: of the classes in predictions: 1 where there is one class, else as in the supports' masks.
    """

    @torch.inference_mode()
    def __init__(self, method: FewShotMethod, supports: Sequence[Support], aggregate: str, views: Views) -> None:
        self.method, self.aggregate, self.views = method, aggregate, views
        classes = sorted({support.value for support in supports})
        self.states = [self.states_of([s for s in supports if s.value == k]) for k in classes]
        self.values = classes if len(classes) > 1 else [1]

    def states_of(self, supports: Sequence[Support]) -> list[State]:
        """What supports of one class say about it: one state, or one for each where predictions are joined."""
        areas = [int((support.mask == 1).sum()) for support in supports]
        return self.method.joined_supports([self.state(support) for support in supports], areas, self.aggregate)

    def state(self, support: Support) -> State:
        """What one support says about its class."""
        method, pixels = self.method, to_pixels([support.image], self.views.input_size, self.method.device)
        masks = torch.from_numpy((support.mask == 1).astype(np.float32)).to(method.device)[None]  # (1, H, W)
        masks = interpolate(masks[None], pixels.shape[2:], mode="nearest")[0]  # (1, h, w)
        images = method.normalize(pixels)
        features: Features = method.encode(images) if method.reads_support_features else ()
        return method.condition(images if method.reads_support_images else None, features, masks)

    @torch.inference_mode()
    def segment(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prediction uint8 (H, W), of `values`, and the probability of each class float32 (N, H, W) of one image.

        Each class is asked for against the background. A pixel is the class of the highest probability among those
        that hold it for theirs, background if none does; the first of equals.
        """
        pixels, size = to_pixels([image], self.views.input_size, self.method.device), (image.shape[0], image.shape[1])
        seen = []  # a view each: for each class (K or 1, H, W)
        for scale in self.views.scales:
            scaled = scaled_pixels(pixels, scale)
            seen.append(self.probabilities(scaled, size))
            if self.views.flip:
                seen.append([maps.flip(2) for maps in self.probabilities(scaled.flip(3), size)])
        maps = [torch.stack(of_class).mean(0).cpu().numpy() for of_class in zip(*seen, strict=True)]
        found, probabilities = map(np.stack, zip(*(aggregated(each, self.aggregate) for each in maps), strict=True))
        surest = np.where(found, probabilities, -1).argmax(0)  # (H, W)
        prediction = np.where(found.any(0), np.array(self.values, np.uint8)[surest], np.uint8(0))
        return prediction, probabilities.astype(np.float32)

    def probabilities(self, pixels: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """For each class P(class) at `size` by each of its states, (K or 1, H, W), for pixels (1, 3, h, w)."""
        features = self.method.encode(self.method.normalize(pixels))
        inner = (pixels.shape[2], pixels.shape[3])

        def asked(states: Sequence[State]) -> Tensor:
            logits = [resized(self.method.decode(features, state, inner).float(), size) for state in states]
            return torch.cat(logits).softmax(1)[:, 1]

        return [asked(states) for states in self.states]


def views_of(config: DictConfig) -> Views:
    """How a command looks at images."""
    return Views(config.input_size, tuple(config.scales), config.flip)
