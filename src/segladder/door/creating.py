"""Methods and data for somebody else's trainer, from the settings of `segladder train`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.seed import isolate_rng
from torch.utils.data import DataLoader

from segladder.command_line import in_quotes
from segladder.configuration import choices
from segladder.data.inspection.checks import check_training_ready
from segladder.data.training.datamodule import DataModule, item_seed, single_threaded
from segladder.data.training.dataset import Item, TrainingSet
from segladder.errors import ConfigError
from segladder.methods.base import Method
from segladder.protocols.inference import same_size_chunks
from segladder.runs import build
from segladder.runs.choices import check_run
from segladder.runs.composition import composed, explain, is_group, not_a_choice
from segladder.stages.inheritance import asked_labels, shown_labels
from segladder.stages.preparation import check_background, told_of_classes

Key = int | tuple[int, int]
USUAL = {"few_shot": {"protocol": "strict"}, "zero_shot": {"protocol": "zero_shot"}}  # by supervision


def configuration(**given: Any) -> DictConfig:
    """The configuration of `segladder train` with these settings, checked.

    Args:
        given: choices (`backbone="resnet18"`), settings (`seed=3`), settings of a node as a dictionary
            (`trainer={"steps": 5}`); None of a choice leaves it as it is.

    Raises:
        ConfigError: the line that the command line prints.
    """
    overrides = [word for key, value in given.items() for word in words(key, value)]
    if complaint := not_a_choice(overrides):
        raise ConfigError(complaint)
    try:
        config = composed(overrides)
        check_run(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain("train", overrides, error)) from None  # the line says it all
    return config


def words(key: str, value: Any) -> Iterator[str]:
    """A setting as overrides of a command line."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from words(f"{key}.{name}", inner)
    elif is_group(key):
        if value is not None:
            yield f"{key}={value}"
    else:
        yield f"{key}={word(value)}"


def word(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(word, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{word(inner)}' for key, inner in value.items())}}}"
    return in_quotes(str(value))


def create(method: str = "fcn8s", classes: Sequence[str] | None = None, **settings: Any) -> Method:
    """A method as `segladder train` would build it; see `segladder.create`.

    Raises ConfigError for settings that do not fit, a method that needs a parent, or classes that are no list of names.
    """
    config = configuration(method=method, **{**usual_protocol(method), **settings})
    kind = build.method_class(config)
    require_no_parent(config)
    if classes is not None and kind.reads_class_vectors:
        raise ConfigError(f"classes: method={method} knows its classes by vectors; choose data=NAME and data.classes")
    if classes is not None and (isinstance(classes, str) or len(classes) < 2):
        raise ConfigError(f"classes={classes}: expected a list of names, the background first")
    source = build.source(config) if classes is None else None
    told: dict[str, Any] = {}
    if source is not None and kind.needs_background:
        source.require_background(f"method={method}")
    if source is not None and kind.reads_class_vectors:
        told = told_of_classes(config, source, build.protocol(config)).arguments()
    with isolate_rng():
        built = build.method(config, len(source.classes if source is not None else classes or ()), **told)
    built.tf32 = None  # whose process it is decides
    return built


def usual_protocol(method: str) -> dict[str, str]:
    """A protocol that can ask a method, where the one that is there by default cannot."""
    if method not in choices("method"):
        return {}
    return USUAL.get(composed([f"method={method}"]).method.supervision, {})


class LabelledData(DataModule):
    """The training items of a run, and the same of the scored split, as they are, for a `Trainer` of one's own.

    Args:
        training: what a run trains on.
        classes: names, the background first where there is one.
        val: what validation reads.
        val_keys: the items of `val` in each of its batches.
    """

    def __init__(
        self, training: DataModule, classes: Sequence[str], val: TrainingSet, val_keys: list[list[Key]]
    ) -> None:
        super().__init__(training.dataset, training.seed, training.batch_size, training.workers, training.groups)
        self.classes, self.val, self.val_keys = tuple(classes), val, val_keys

    def val_dataloader(self) -> DataLoader[Item]:
        """Batches of whole images of one size; of episodes, those of a fixed draw."""
        return DataLoader(
            self.val,
            batch_sampler=self.val_keys,
            collate_fn=self.val.collate,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=single_threaded,
        )


def datamodule(
    data: str = "shapes", root: str | Path | None = None, method: str = "fcn8s", **settings: Any
) -> LabelledData:
    """The data of `segladder train` as a datamodule; see `segladder.data`."""
    place = {} if root is None else {"data.root": str(root)}
    config = configuration(data=data, method=method, **place, **{**usual_protocol(method), **settings})
    require_no_parent(config)
    source, protocol = build.source(config), build.protocol(config)
    check_background(config, source, protocol)
    labels, view = shown_labels(asked_labels(config, source, protocol)), protocol.training(source)
    check_training_ready(source, labels, None if protocol.on_training_images else protocol.split)
    training = build.training(config, source, view, labels).module
    val = view.dataset(source, source.split(source.val_split), labels, build.recipe(config))
    if build.method_class(config).answers == "episodes":
        keys = fixed_draw(len(val), config.seed, training.batch_size)
    else:
        positions = {image_id: index for index, image_id in enumerate(val.ids)}
        chunks = same_size_chunks(source, val.ids, training.batch_size)
        keys = [[positions[image_id] for image_id in chunk] for chunk in chunks]
    return LabelledData(training, source.classes, val, keys)


def fixed_draw(size: int, seed: int, batch: int) -> list[list[Key]]:
    """Keys of a data set's items in batches, each augmented with a seed that stays."""
    keys: list[Key] = [(index, item_seed(seed, 0, index)) for index in range(size)]
    return [keys[i : i + batch] for i in range(0, size, batch)]


def require_no_parent(config: DictConfig) -> None:
    """Raise ConfigError where something builds on another run, which `segladder train` knows how to do."""
    if config.parent is not None or build.method_class(config).needs_parent:
        name = config.method.name
        raise ConfigError(
            f"method={name} with parent={config.parent or 'RUN'}: use segladder train, which opens the run"
        )
