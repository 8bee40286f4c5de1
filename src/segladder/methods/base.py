"""What every method shares: pixels to network input, optimiser, schedule. Methods add `loss` and `predict`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypedDict, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pydantic import Field
from torch import Tensor, nn

from segladder.data.training.dataset import ObjectLabels
from segladder.errors import ConfigError, DataError
from segladder.nets import answering
from segladder.nets.answering import Precision as Precision
from segladder.nets.losses import Pictures
from segladder.settings import Name, NotNegative, Share

Factor = Annotated[float, Field(ge=0, le=1e6)]


class Optimizer(TypedDict, total=False):
    """What a method's optimiser is; empty where nothing learns."""

    name: Literal["adamw", "sgd", "adam"]
    lr: Annotated[float, Field(gt=0, le=1e6)]
    weight_decay: NotNegative
    momentum: Annotated[float, Field(ge=0, lt=1)]
    head_lr: Factor
    bias_lr: Factor


class Schedule(TypedDict, total=False):
    """How the learning rate goes; empty where nothing learns."""

    name: Literal["poly", "one_cycle", "constant"]
    power: NotNegative
    warmup: Share


class Batch(TypedDict, total=False):
    """What one step of training is shown: B images, or B episodes. Which entries there are is up to the labels.

    Attributes:
        id: B names, of the images or the queries.
        image: (B, 3, H, W): raw pixels uint8, or the backbone's input once normalised.
        mask: uint8 (B, H, W) of class indices, 255 ignored; in an episode 1 = its class.
        inside: bool (B, H, W), false where augmentation filled up or cut out what is no pixel of the image.
        flow: float32 (B, 2, H, W), how the pixels of videos move, relative to the fastest of a frame: right and down.
        objects: of each image.
        tags: float32 (B, K - 1) of 0 and 1.
        support_image: of S supports an episode, (B, S, 3, H, W), as `image`.
        support_mask: uint8 (B, S, H, W), 1 = the episode's class, 255 ignored.
        support_inside: bool (B, S, H, W), as `inside`.
        support_ids: B lists of S names.
        class_index: (B,) the episodes' classes.
    """

    id: list[str]
    image: Tensor
    mask: Tensor
    inside: Tensor
    flow: Tensor
    objects: list[ObjectLabels]
    tags: Tensor
    support_image: Tensor
    support_mask: Tensor
    support_inside: Tensor
    support_ids: list[list[str]]
    class_index: Tensor


class Objects(NamedTuple):
    """The single objects that a method finds in one image, in any order; they may overlap.

    Attributes:
        masks: bool (N, H, W).
        classes: class indices, int64 (N,), none of them the background.
        scores: how sure each is, float32 (N,) in 0..1.
    """

    masks: Tensor
    classes: Tensor
    scores: Tensor


class Method(pl.LightningModule):
    """A segmentation method as a LightningModule.

    `loss` receives a `Batch` whose images are already normalised to the network's input; `predict` takes raw pixels.

    Args:
        name: public name, the file name of its yaml.
        supervision: `full`, `image_level`, `few_shot`, `zero_shot` or `none`.
        trains: whether `segladder train` optimises it.
        optimizer: `name` (adamw, sgd, adam), `lr`, `weight_decay`, `momentum`, and the factors `head_lr` (parameters
            outside the backbone) and `bias_lr`; biases and normalisation weights are never decayed.
        schedule: `name` (poly, one_cycle, constant), `power`, `warmup` as a share of all steps.
        mean: input mean per channel, in 0..1.
        std: input standard deviation per channel, in 0..1.
    """

    learns_from: ClassVar[str] = "pixels"  # what its labels must show, see `Labels.shows`
    reads_objects: ClassVar[bool] = False  # whether training items hold single objects, not their classes' pixels alone
    reads_flow: ClassVar[bool] = False  # whether it is shown how the pixels of videos move, in `predict` too
    reads_class_vectors: ClassVar[bool] = False  # whether it is told its classes by semantic vectors
    needs_background: ClassVar[bool] = False  # whether it tells objects from a background, as no other class is told
    takes: ClassVar[
        tuple[str, ...]
    ] = ()  # what it uses of `parent=RUN`: `class_scores`, `masks`, `features`, `network`
    needs_parent: ClassVar[bool] = False
    answers: ClassVar[str] = "dense"  # all classes at once, or `episodes`: the class that supports show
    scores_tags: ClassVar[bool] = False  # whether it says where the classes of known tags are, `class_scores`
    tells_tags: ClassVar[bool] = False  # whether it tells the tags of an image, `tag_logits`
    tells_objects: ClassVar[bool] = False  # whether it tells the single objects of an image apart, `objects`
    scores_features: ClassVar[bool] = False  # whether it scores the places of its feature map, `feature_scores`
    studies: ClassVar[str] = ""  # what it looks at once where others are optimised, `study`: `images` or `labels`
    learns_unseen: bool = False  # whether labels of unseen classes, where training has some, teach it
    cuts: ClassVar[bool] = False  # whether it cuts images into segments that have one class each, `segments`
    study_images: int = 0  # how many images `study` looks at
    naming_images: int = 0  # how many drawn masks it is given for names of what it found: an oracle's

    pixel_mean: Tensor
    pixel_std: Tensor
    resolved: Mapping[str, Any]  # what settings such as `auto` came to, by their key; the record holds that

    def __init__(
        self,
        *,
        name: Name,
        supervision: str,
        trains: bool,
        optimizer: Optimizer,
        schedule: Schedule,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.name = name
        self.supervision = supervision
        self.trains = trains
        self.optimizer_settings: dict[str, Any] = dict(optimizer)
        self.schedule_settings: dict[str, Any] = dict(schedule)
        self.resolved = {}
        self.fused = False  # set by the strategy
        self.memory_format = torch.contiguous_format  # in training; set by the strategy
        self.tf32: bool | None = None  # set by the strategy, see `answering.float32_products`
        self.answers_in: Precision = "32-true"
        self.compiled = False  # set where it is
        self.register_buffer("pixel_mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a batch as scalars; the entry `loss` is minimised, the others are logged."""

    @abstractmethod
    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        """Class scores (B, K, H, W) float32 at input size for raw pixels (B, 3, H, W) in 0..255.

        Few-shot methods also take the supports' pixels (B, K, 3, h, w) and masks (B, K, h, w), and score two classes.
        Methods that read flow take that of each image, (B, 2, H, W), as a batch has it.
        """

    def feature_scores(self, images: Tensor) -> Tensor:
        """Class scores (B, K, h, w) at the size of its feature map, for raw pixels (B, 3, H, W) in 0..255.

        Raises:
            ConfigError: the method has none.
        """
        raise ConfigError(f"method={self.name} has no scores of its feature map")

    def study(self, images: Iterable[np.ndarray], named: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Learn by looking once.

        What studies `images` finds in them what the classes might be; masks of others, an oracle's, name that. What
        studies `labels` has training images with what the run's labels show of them.

        Args:
            images: uint8 (H, W, 3).
            named: images with masks uint8 (H, W), 255 ignored.

        Raises:
            ConfigError: the method has nothing to find, or finds nothing in them.
        """
        raise ConfigError(f"method={self.name} studies no images")

    def segments(self, images: Tensor) -> Tensor:
        """The segment of each pixel, int64 (B, H, W) from 0 in each image, for raw pixels (B, 3, H, W) in 0..255.

        Raises:
            ConfigError: the method has none.
        """
        raise ConfigError(f"method={self.name} cuts no image into segments")

    def objects(self, images: Tensor, size: tuple[int, int]) -> list[Objects]:
        """The objects of each image at `size` (H, W), for raw pixels (B, 3, h, w) in 0..255.

        Raises:
            ConfigError: the method tells no objects apart.
        """
        raise ConfigError(f"method={self.name} does not tell single objects apart")

    def inherit(self, parent: Method) -> None:
        """Take over what `takes` names `features` from the trained method of the parent run.

        Raises:
            ConfigError: the method takes none, or the parent has none that fit.
        """
        raise ConfigError(f"parent: method={self.name} takes no features of another run")

    def normalize(self, images: Tensor) -> Tensor:
        """Raw pixels (B, 3, H, W) in 0..255 to the backbone's input, float32, in its memory format."""
        images = (images.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        return images.contiguous(memory_format=self.input_format)

    def computing(self) -> AbstractContextManager[None]:
        """How it computes while it answers, see `answering.computing`."""
        return answering.computing(self.pixel_mean.device, self.tf32, self.answers_in, self.compiled)

    @property
    def input_format(self) -> torch.memory_format:
        """How the network's input lies in memory: as the strategy says, unless it answers on a device; `evaluating`."""
        plain = not self.training and answering.wants_plain(self.pixel_mean.device)
        return torch.contiguous_format if plain else self.memory_format

    def normalized(self, batch: Batch) -> Batch:
        """A batch whose images are the backbone's input."""
        return {**batch, "image": self.normalize(batch["image"])}

    def pictures(self, batch: Batch) -> Pictures:
        """What a loss may know of the images of a normalised batch."""
        return self.pictured(batch["image"], batch.get("inside"))

    def pictured(self, images: Tensor, inside: Tensor | None = None) -> Pictures:
        """What a loss may know of normalised images (B, 3, H, W), of which `inside` (B, H, W) is no padding."""
        return Pictures(images, self.pixel_mean, self.pixel_std, inside)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One optimisation step's loss; logs every part of it."""
        losses = self.loss(self.normalized(checked(batch)))
        self.log_dict({f"train/{key}": value.detach() for key, value in losses.items()}, batch_size=len(batch["image"]))
        return losses["loss"]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log the loss of a batch as `val/loss`; of use in a trainer of one's own."""
        with differentiating():  # some losses follow gradients
            tensors = {k: v.clone() if isinstance(v, Tensor) else v for k, v in checked(batch).items()}
            losses = self.loss(self.normalized(cast(Batch, tensors)))
        self.log("val/loss", losses["loss"].detach(), batch_size=len(batch["image"]), sync_dist=True)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trainable parameters grouped by learning rate and decay: backbone or head, weight or bias/norm."""
        settings = self.optimizer_settings
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        backbone = {id(p) for module in self.backbones() for p in module.parameters()}
        for parameter in self.parameters():
            if parameter.requires_grad:
                factor = 1.0 if id(parameter) in backbone else settings.get("head_lr", 1.0)
                if parameter.ndim == 1:
                    factor *= settings.get("bias_lr", 1.0)
                decay = settings["weight_decay"] if parameter.ndim > 1 else 0.0
                groups.setdefault((settings["lr"] * factor, decay), []).append(parameter)
        return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]

    def backbones(self) -> Iterator[nn.Module]:
        """The pretrained parts, which learn at the base rate while everything else learns at `head_lr` times it."""
        backbone = getattr(self, "backbone", None)
        if isinstance(backbone, nn.Module):
            yield backbone

    def configure_optimizers(self) -> Any:
        """Optimiser and per-step schedule from the method's settings."""
        settings = self.optimizer_settings
        extra = {"momentum": settings.get("momentum", 0.0)} if settings["name"] == "sgd" else {}
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}[settings["name"]]
        fused = self.fused and not self.trainer.gradient_clip_val  # which Lightning does not allow together
        optimizer = kind(self.parameter_groups(), lr=settings["lr"], fused=fused or None, **extra)
        total = int(self.trainer.estimated_stepping_batches)
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, total, **self.schedule_settings))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}


def checked(batch: Batch) -> Batch:
    """The batch of a loader. Raises DataError for one that holds no raw pixels: others' loaders give 0..1 or tuples."""
    if not isinstance(batch, Mapping) or "image" not in batch:
        raise DataError(f"batch: {type(batch).__name__}, expected a dictionary with image, and mask or tags")
    images = batch["image"]
    if images.is_floating_point() and images.numel() and images.min() >= 0 and 0 < images.max() <= 1:
        raise DataError(f"batch: image is {images.dtype} in 0..1, expected raw pixels in 0..255, such as uint8")
    return batch


@contextmanager
def evaluating(method: nn.Module) -> Iterator[None]:
    """The mode to answer in, on the device that the method is on: whoever asks a method anything does so in this block.

    Evaluation mode, on CUDA the plain memory format, and the method's own arithmetic. Afterwards, also after an error,
    a method that was training is as it was. One that was not keeps the format: it may answer again.
    """
    training, changed = method.training, answering.lay_out(method)
    method.eval()
    try:
        with method.computing() if isinstance(method, Method) else nullcontext():
            yield
    finally:
        method.train(training)
        if training:
            answering.restore(changed)


@contextmanager
def differentiating() -> Iterator[None]:
    """Autograd within the block, whatever mode the caller is in; tensors made in inference mode are to be cloned there.

    With `torch.autograd.grad` the parameters' own gradients stay as they are.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield


def rate(step: int, total: int, name: str, power: float = 0.9, warmup: float = 0.0) -> float:
    """Learning-rate factor at `step` of `total`: linear warm-up, then `poly`, `one_cycle` (cosine) or `constant`."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    progress = min(1.0, (step - rise) / max(1.0, total - rise))
    if name == "poly":
        return float((1 - progress) ** power)
    if name == "one_cycle":
        return 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi))))
    return 1.0
