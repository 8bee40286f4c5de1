"""Running a few-shot method over episodes with each image encoded once, whichever roles it plays."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segladder.data.labels.kinds import of_supports
from segladder.data.sources.base import Source
from segladder.data.sources.decoding import image_size
from segladder.data.sources.scene import size_error
from segladder.data.training.episodes import Episode, Need
from segladder.errors import ConfigError
from segladder.methods.base import Method
from segladder.methods.few_shot.base import STATE_AGGREGATES, Features, FewShotMethod, State
from segladder.protocols.feature_store import FeatureStore, joined, of_one_shape, stacked
from segladder.protocols.fields import check_joins
from segladder.protocols.inference import resized

PADDING = (124, 116, 104)
BLACK = (0, 0, 0)
FEATURES_MB = 4096.0  # of encoded images that are kept in memory
STEP = 8  # of the sides of `floored`


@dataclass(frozen=True)
class InputSize:
    """How images reach the network: `native`, resized to a `square`, or `padded` to one with the long side resized.

    `floored` is PFENet's way, which BAM shares (`Resize` of their `util/transform.py`): the long side is resized to
    `side`, larger or smaller, then both sides are rounded down to multiples of 8. What is left of the square is black.
    Its answers are those of the whole square at the image's longer side, cut to the image.
    """

    fit: str
    side: int | None

    def image(self, image: np.ndarray) -> np.ndarray:
        """An image uint8 (H, W, 3) as the network sees it."""
        return self._fitted(image, cv2.INTER_LINEAR, BLACK if self.fit == "floored" else PADDING)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask uint8 (H, W) at the network's input size; padding is background."""
        return self._fitted(mask, cv2.INTER_NEAREST, (0,))

    def flow(self, flow: np.ndarray) -> np.ndarray:
        """Relative flow float32 (H, W, 2) at the network's input size; padding stays."""
        return self._fitted(flow, cv2.INTER_LINEAR, (0, 0))

    def inner(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width that the picture itself takes in the input, without padding, for an image of `size`.

        With `short` the short side has `side` pixels, and the picture is the whole input.
        """
        if self.fit == "short" and self.side is not None:
            return self.side * size[0] // min(size), self.side * size[1] // min(size)
        if self.fit == "native" or self.side is None:
            return size
        if self.fit == "square":
            return self.side, self.side
        factor = self.side / max(size)
        if self.fit == "floored":
            height, width = (self.side if n == max(size) else int(n * factor) for n in size)
            return max(STEP, height // STEP * STEP), max(STEP, width // STEP * STEP)
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    @property
    def is_padded(self) -> bool:
        """Whether something of the input is no picture."""
        return self.fit in ("padded", "floored")

    def _fitted(self, array: np.ndarray, interpolation: int, padding: Sequence[int]) -> np.ndarray:
        size = (array.shape[0], array.shape[1])
        height, width = self.inner(size)
        if (height, width) != size:
            array = cv2.resize(array, (width, height), interpolation=interpolation)
        if not self.is_padded or self.side is None:
            return array
        below, right = self.side - height, self.side - width
        return cv2.copyMakeBorder(array, 0, below, 0, right, cv2.BORDER_CONSTANT, value=tuple(padding))


@dataclass(frozen=True)
class Answer:
    """What a method said in an episode.

    Attributes:
        prediction: whether a pixel belongs to the episode's class, bool (H, W).
        probability: of that, float32 (H, W).
        truth: class indices of the query, uint8 (H, W).
    """

    episode: Episode
    prediction: np.ndarray
    probability: np.ndarray
    truth: np.ndarray


class Maps(NamedTuple):
    """What a method said in B episodes whose queries have one size, on the device that it is on.

    Attributes:
        predictions: whether a pixel belongs to the episode's class, bool (B, H, W).
        probabilities: of that, float32 (B, H, W).
    """

    episodes: Sequence[Episode]
    predictions: Tensor
    probabilities: Tensor


def few_shot_method(method: Method, protocol: str, does: str = "draws episodes") -> FewShotMethod:
    """The method, known to answer episodes. Raises ConfigError where it does not."""
    if method.answers != "episodes":
        raise ConfigError(f"protocol={protocol} {does}, but method={method.name} is {method.supervision}, not few_shot")
    return cast(FewShotMethod, method)


class EpisodeRunner:
    """Answers episodes; keeps features and masks of images and states of supports as long as episodes need them.

    Args:
        method: in evaluation mode; used on the device it is on.
        source: the data set.
        size: how images reach the network.
        aggregate: how K supports become one answer, of `STATE_AGGREGATES` or `PREDICTION_AGGREGATES`.
        batch_size: images encoded and episodes decoded at once.
        at_input: answer at the size of the network's input instead of the query's own.
        annotation: what the method is given of a support's mask, see `of_supports`.
    """

    def __init__(
        self,
        method: FewShotMethod,
        source: Source,
        size: InputSize,
        aggregate: str,
        batch_size: int,
        at_input: bool = False,
        annotation: str = "mask",
    ) -> None:
        check_joins(method, aggregate)
        self.method, self.source, self.size, self.at_input = method, source, size, at_input
        self.aggregate, self.batch_size, self.annotation = aggregate, batch_size, of_supports(annotation)
        self.features = FeatureStore(FEATURES_MB)
        self.states = FeatureStore(FEATURES_MB / 4)
        self.masks: dict[Need, np.ndarray] = {}
        self.uses: Counter[Need] = Counter()  # episodes to come that need an image, or a support's state
        self.sizes: dict[str, tuple[int, int]] = {}  # height and width of each query
        self.areas: dict[tuple[str, int], int] = {}  # annotated pixels of each support met
        self.seconds = 0.0  # spent on encoding and decoding
        self.encoded = 0  # images that went through `encode`

    def answers(self, episodes: Sequence[Episode]) -> Iterator[Answer]:
        """Answers to all episodes, in the order of their queries' sizes."""
        for maps in self.batches(episodes):
            arrays = (each.cpu().numpy() for each in (maps.predictions, maps.probabilities))
            for episode, prediction, probability in zip(maps.episodes, *arrays, strict=True):
                yield Answer(episode, prediction, probability, self.truth(episode.query))

    def batches(self, episodes: Sequence[Episode], later: Iterable[Episode] = ()) -> Iterator[Maps]:
        """What `answers` gives, of several episodes at once; what `later` ones need too is kept for them."""
        self.uses = Counter(need for episode in chain(episodes, later) for need in episode.needs)
        groups: dict[tuple[int, int], list[Episode]] = {}
        for episode in episodes:
            groups.setdefault(self._query_size(episode.query), []).append(episode)
        for size, group in sorted(groups.items()):
            for start in range(0, len(group), self.batch_size):
                chunk = group[start : start + self.batch_size]
                before = time.perf_counter()
                self.encode([i for e in chunk for i in self._images_of(e)])
                maps = self.probabilities(chunk, self._scored(size))  # (B, K or 1, H, W)
                if maps.is_cuda:
                    torch.cuda.synchronize(maps.device)
                self.seconds += time.perf_counter() - before
                yield Maps(chunk, *aggregated_all(maps, self.aggregate))
                self._drop_used(chunk)

    def _query_size(self, image_id: str) -> tuple[int, int]:
        if image_id not in self.sizes:
            width, height = image_size(self.source.image_path(image_id))
            self.sizes[image_id] = height, width
        return self.sizes[image_id]

    def _drop_used(self, episodes: Sequence[Episode]) -> None:
        for need in (need for episode in episodes for need in episode.needs):
            self.uses[need] -= 1
            if not self.uses[need]:
                self.features.drop(need)
                self.states.drop(need)
                self.masks.pop(need, None)

    def truth(self, image_id: str) -> np.ndarray:
        """Class indices uint8 (H, W) at the size that is scored."""
        mask = self.mask(image_id)
        height, width = self._scored((mask.shape[0], mask.shape[1]))
        if (height, width) == mask.shape:
            return mask
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)

    def _scored(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.size.inner(size) if self.at_input else size

    def probabilities(self, episodes: Sequence[Episode], size: tuple[int, int]) -> Tensor:
        """P(class) float32 (B, K, H, W) at `size` for aggregates of predictions, otherwise (B, 1, H, W)."""
        features = stacked([self.features.get(e.query) for e in episodes], self.method.device)
        alternatives = [self._state(e) for e in episodes]  # per episode: one state, or one for each support
        return torch.stack([self.of_states(features, s, size) for s in zip(*alternatives, strict=True)], 1)

    def of_states(self, features: Features, states: Sequence[State], size: tuple[int, int]) -> Tensor:
        """P(class) float32 (B, H, W) of queries with a state each; states of one shape share a pass."""
        maps: dict[int, Tensor] = {}
        for places in of_one_shape(states):
            queries = tuple(maps_of_all[places] for maps_of_all in features)
            logits = self.logits(queries, joined([states[place] for place in places]), size)
            maps.update(zip(places, logits.softmax(1)[:, 1], strict=True))
        return torch.stack([maps[place] for place in range(len(states))])

    def logits(self, features: Features, state: State, size: tuple[int, int]) -> Tensor:
        """Logits float32 (B, 2, H, W) at `size` of images whose native size that is."""
        inner = self.size.inner(size)
        if not self.size.is_padded or self.size.side is None:
            return resized(self.method.decode(features, state, inner).float(), size)
        whole = self.method.decode(features, state, (self.size.side, self.size.side)).float()
        if self.size.fit == "floored" and size != inner:
            enlarged = interpolate(whole, (max(size), max(size)), mode="bilinear", align_corners=True)
            return enlarged[..., : size[0], : size[1]]
        return resized(whole[..., : inner[0], : inner[1]], size)

    def encode(self, ids: Sequence[str]) -> None:
        """Encode the images not met before, those of one size together."""
        groups: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = {}
        for image_id in dict.fromkeys(ids):
            if image_id not in self.features:
                image = self.size.image(self.source.image(image_id))
                groups.setdefault(image.shape, []).append((image_id, image))
        for group in groups.values():
            for start in range(0, len(group), self.batch_size):
                chunk = group[start : start + self.batch_size]
                features = self.method.encode(self._normalized([image for _, image in chunk]))
                for index, (image_id, _) in enumerate(chunk):
                    plain = (f[index].clone(memory_format=torch.contiguous_format) for f in features)  # quick to stack
                    self.features.put(image_id, tuple(plain))
                self.encoded += len(chunk)

    def mask(self, image_id: str) -> np.ndarray:
        """Class indices uint8 (H, W), kept for episodes to come. Raises DataError for another size than the query's."""
        if image_id in self.masks:
            return self.masks[image_id]
        mask = self.source.mask(image_id)
        if mask.shape != (size := self.sizes.get(image_id, mask.shape)):
            raise size_error(self.source.label_place(image_id), mask.shape, size)
        if self.uses[image_id]:
            self.masks[image_id] = mask
        return mask

    def support_mask(self, image_id: str, class_index: int) -> np.ndarray:
        """What the method is given of a support: 1 = annotated as the class, uint8 (H, W) at native size."""
        return self.annotation.of_object((self.mask(image_id) == class_index).astype(np.uint8))

    def _images_of(self, episode: Episode) -> list[str]:
        return [episode.query, *(episode.supports if self.method.reads_support_features else ())]

    def _normalized(self, images: Sequence[np.ndarray]) -> Tensor:
        pixels = torch.from_numpy(np.stack(images)).to(self.method.device).permute(0, 3, 1, 2)
        return self.method.normalize(pixels)

    def _state(self, episode: Episode) -> list[State]:
        """One state of all supports, or one for each."""
        states = [self._support_state(image_id, episode.class_index) for image_id in episode.supports]
        areas = [self.areas[i, episode.class_index] for i in episode.supports]
        return self.method.joined_supports(states, areas, self.aggregate)

    def _support_state(self, image_id: str, class_index: int) -> State:
        key = (image_id, class_index)
        if key not in self.states:
            mask = self.support_mask(image_id, class_index)
            self.areas[key] = int(mask.sum())
            masks = torch.from_numpy(self.size.mask(mask)).to(self.method.device).float()[None]  # (1, h, w)
            images = None
            if self.method.reads_support_images:
                images = self._normalized([self.size.image(self.source.image(image_id))])
            features: Features = ()
            if self.method.reads_support_features:
                features = stacked([self.features.get(image_id)], self.method.device)
            self.states.put(key, self.method.condition(images, features, masks))
        return tuple(part.to(self.method.device) for part in self.states.get(key))  # the file gives it to the CPU


def aggregated_all(maps: Tensor, aggregate: str) -> tuple[Tensor, Tensor]:
    """`aggregated` of several episodes, (B, K, H, W); what joins predictions does so on the CPU."""
    if aggregate in STATE_AGGREGATES:
        return maps[:, 0] > 0.5, maps[:, 0]
    found = zip(*(aggregated(each, aggregate) for each in maps.cpu().numpy()), strict=True)
    predictions, probabilities = (torch.from_numpy(np.stack(each)).to(maps.device) for each in found)
    return predictions, probabilities


def aggregated(maps: np.ndarray, aggregate: str) -> tuple[np.ndarray, np.ndarray]:
    """Prediction bool (H, W) and probability (H, W) of the maps P(class) (K, H, W) that K supports gave."""
    if aggregate == "vote":  # of half of them or more
        return 2 * (maps > 0.5).sum(0) >= len(maps), maps.mean(0)
    if aggregate == "relative_vote":  # HSNet's: of half as many as agree anywhere in the image, or more
        votes = (maps > 0.5).sum(0)
        return 2 * votes >= max(1, votes.max()), maps.mean(0)
    if aggregate in ("or", "max"):
        return maps.max(0) > 0.5, maps.max(0)
    if aggregate == "logit_mean":
        clipped = np.clip(maps, 1e-7, 1 - 1e-7)
        probability = 1 / (1 + np.exp(-np.log(clipped / (1 - clipped)).mean(0)))
        return probability > 0.5, probability
    return maps[0] > 0.5, maps[0]


def merged(answers: Sequence[Answer]) -> np.ndarray:
    """Class indices uint8 (H, W) of a query's answers, one for each class it was asked for (Zhang et al. 2020, SG-One).

    A pixel is the class of the highest probability among the answers that hold it for theirs, background if none does;
    the first of equals.
    """
    probabilities = np.stack([np.where(a.prediction, a.probability, -1) for a in answers])  # (N, H, W)
    classes = np.array([a.episode.class_index for a in answers], np.uint8)
    return np.where(probabilities.max(0) >= 0, classes[probabilities.argmax(0)], np.uint8(0))


def merged_all(predictions: Tensor, probabilities: Tensor) -> Tensor:
    """`merged` of N queries asked for M classes, (N, M, H, W): the class's number from 1, or 0, uint8 (N, H, W)."""
    if predictions.shape[1] == 1:
        return predictions[:, 0].to(torch.uint8)
    surest, way = torch.where(predictions, probabilities, -1).max(1)
    return torch.where(surest >= 0, way + 1, 0).to(torch.uint8)
