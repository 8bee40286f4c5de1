"""What tells the rows of a leaderboard apart: the settings of a run and of the runs that it builds on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, takewhile
from typing import Any

from segladder.report.record import Record

NOT_THE_METHOD = (  # settings in which runs of one row may differ
    *("seed", "pool_seed", "fold", "runs", "resume", "tag", "logger", "hydra", "protocol", "experiment"),
    *("parent", "start", "stages"),  # lineage and pretraining say what a run builds on
    *("labels.name", "labels.seed", "labels.noise.seed"),  # the rung says the first; the others draw, as seed does
    "labels.noise.source",  # the cost says
    *("method.backbone", "method.features.backbone", "method.criterion"),  # copies of `backbone` and `loss`
    "backbone.weights",  # the column pretraining, without the folder of a file
    *("embeddings.seed", "embeddings.cache_dir"),
    *("data.folds", "data.fold_of_images", "data.part", "data.root", "data.cache", "data.cache_dir", "loader.workers"),
    *("trainer.progress", "trainer.panels", "trainer.checkpoint_every", "trainer.score_batch"),
)
CAREFUL = {"seed": 0, "dropped": 0.0, "confused": 0.0, "corners": None, "boundary": 0.0, "effort": 1.0}
AMOUNTS = ("pool", "labels.amount")  # settings that say how many labels there are, as shots do
LATER: dict[str, Any] = {  # keys that older records lack, with the value their runs had
    "backbone.dilated": True,
    "data.tags": "masks",
    "loader.augment.extra": [],
    "loader.balanced": False,
    "strategy.nodes": 1,
    "strategy.tf32": False,
    "data.folds_of_images": None,
    **{f"labels.noise.{key}": value for key, value in CAREFUL.items()},
}
SHAPES_TRAINING = (  # fields of the protocol that a run was trained under, which may be another than scores it
    *("shots", "class_draw", "train_images", "novel_pixels", "min_object", "min_area"),
    *("split_name", "unseen", "unseen_pixels", "background", "transductive"),
)
SHAPES_CHOICE = ("input_size", "fit", "input_side")  # where a score chooses the weights
UNKNOWN = "unknown"
VIEWS = ("input_size", "scales", "flip")  # of a parent's protocol: how its class scores are made


def is_amount(key: str) -> bool:
    """Whether a setting, of a run or of its parent, says how many labels there are."""
    return key.removeprefix("parent.") in AMOUNTS


def _read_by(record: Record) -> dict[str, Any]:
    """A record's configuration without the nodes that its run did not read."""
    knows_names = record.supervision == "zero_shot" or "embeddings" in record.label_access
    unread = set() if knows_names else {"embeddings"}
    unread |= {"pseudo_masks"} if record.config.get("parent") is None else set()
    return {key: value for key, value in record.config.items() if key not in unread}


class Settings:
    """What tells records of one kind apart. Parts of configurations that records share are looked through once.

    Args:
        known: all records by id, which stay as they are.
    """

    def __init__(self, known: Mapping[str, Record]) -> None:
        self._known = known
        self._flat: dict[tuple[str, int], dict[str, Any]] = {}
        self._whole: dict[tuple[Any, ...], dict[str, Any]] = {}

    def of(self, record: Record) -> dict[str, Any]:
        """Values by key, one object for records that share all; keys of the runs it builds on begin with `parent.`.

        `parent` itself is `unknown` where the record of one is not at hand.
        """
        settings = dict(LATER)
        for key, value in _read_by(record).items():
            settings |= self._of_part(key, value)
        settings |= _trained_on(record)
        settings["presence"] = record.protocol.get("presence", "always")
        settings["precision"] = record.protocol.get("precision", "32-true")  # of the answers
        if not knows_parents(record, self._known):
            settings["parent"] = UNKNOWN
        for parent in _built_on(record, self._known):
            views = {f"protocol.{key}": parent.protocol.get("fields", {}).get(key) for key in VIEWS}
            settings |= {f"parent.{key}": value for key, value in (self.of(parent) | views).items()}
        return self._whole.setdefault((*settings, *map(id, settings.values())), settings)

    def _of_part(self, key: str, value: Any) -> dict[str, Any]:
        part = key, id(value)
        if part not in self._flat:
            self._flat[part] = settings_of({key: value})
        return self._flat[part]


def _built_on(record: Record, known: Mapping[str, Record]) -> list[Record]:
    """The runs a record builds on; a run that was scored again is not one of them."""
    parents = [known[parent] for parent in record.parents if parent in known]
    return [
        above
        for parent in parents
        for above in (_built_on(parent, known) if parent.lineage == record.lineage else [parent])
    ]


def knows_parents(record: Record, known: Mapping[str, Record]) -> bool:
    """Whether the records of all runs that a record builds on are at hand; those before them may not be."""
    parents = [known.get(parent) for parent in record.parents]
    return all(
        parent is not None and (parent.lineage != record.lineage or knows_parents(parent, known)) for parent in parents
    )


def _trained_on(record: Record) -> dict[str, Any]:
    """What shaped a run's training, and its fold where its score is that of no fold (a video's)."""
    fold = {"fold": record.config.get("fold")} if record.fold is None else {}
    if not record.config.get("method", {}).get("trains", True):
        return fold
    under = record.config.get("protocol") or {}
    names = SHAPES_TRAINING + (() if record.label_access.get("selection") == "fixed" else SHAPES_CHOICE)
    return fold | {f"protocol.{name}": under.get(name) for name in names}


def telling_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values differ between settings, but not those that follow from others.

    Where `loss.name` differs, `loss.gamma` may follow from it; and `parent.pool` from `pool` where both are the same.
    What a run builds on tells it apart only where it is known: its records may be elsewhere.
    """
    keys = sorted({key for setting in settings for key in setting})
    values = {key: [repr(value_of(setting, key)) for setting in settings] for key in keys}
    told = [key for key in keys if len(set(values[key]) - {repr(UNKNOWN)}) > 1]

    def follows(key: str) -> bool:
        own = values.get(key.removeprefix("parent."), []) if key.startswith("parent.") else []
        if own and all(value in (repr(UNKNOWN), theirs) for value, theirs in zip(values[key], own, strict=True)):
            return True
        name = f"{key.split('.')[0]}.name"
        if name not in told or key == name:
            return False
        return len(set(zip(values[name], values[key], strict=True))) == len(set(values[name]))

    return [key for key in told if not follows(key)]


def value_of(setting: Mapping[str, Any], key: str) -> Any:
    """What a run has for a key; `unknown` where it is of a run before it whose record is not at hand."""
    if key in setting:
        return setting[key]
    above = accumulate(takewhile("parent".__eq__, key.split(".")), "{}.{}".format)
    return UNKNOWN if any(run in setting for run in above) else None


def typed(value: Any) -> str:
    """A value as one would write it on the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def settings_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Configuration values by dotted key, without those in which runs of one row may differ."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in NOT_THE_METHOD or key == "_target_":
            continue
        flat |= settings_of(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def draw_of(record: Record) -> tuple[Any, ...]:
    """What decides which labels a run of some settings had: the seeds of their draws, and the training labels seen."""
    labels = record.config.get("labels", {})
    seeds = labels.get("seed"), labels.get("noise", {}).get("seed")
    drawn = record.protocol.get("pool_seed", record.config.get("pool_seed"))
    return drawn, *seeds, record.data.get("train_fingerprint")
