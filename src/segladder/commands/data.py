"""`segladder data`: check every file of a data set, prepare or convert it, or show what annotators make of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from segladder.data.conversion.naming import Spec
from segladder.data.inspection.checks import SplitReport, check_items, check_splits, only_ignored
from segladder.data.labels.kinds.base import Labels
from segladder.data.sources.base import Source
from segladder.data.sources.voc import VOC
from segladder.errors import ConfigError
from segladder.foreign import printable
from segladder.machine import cores
from segladder.mask_values import IGNORE
from segladder.runs.composition import check_keys
from segladder.runs.instantiation import instantiated
from segladder.runs.keys import Loader
from segladder.settings import Count, Node, Positive, Seed

if TYPE_CHECKING:
    from segladder.data.conversion.base import Found
    from segladder.data.conversion.conversion import Done

MOST_FAULTS = 100  # and remarks that are printed
MOST_LINES = 20  # of what is left out


Convert = TypedDict("Convert", {"from": str | None}, total=False)  # a word that Python keeps for itself


class Keys(Convert, total=False):
    """The keys of the command, and those that a data set brings along."""

    action: Literal["check", "prepare", "preview", "audit", "agreement", "convert"]
    workers: Count | None
    download: bool
    out: str | None
    format: str | None
    classes: Mapping[str, Spec] | list[str] | None
    count: Positive
    columns: Positive
    seed: Seed
    fold: Count
    labels: Node
    data: Node
    loader: Loader
    protocol: Any
    embeddings: Any


class AuditKeys(Keys, total=False):
    """The keys of `action=audit`, which alone reads a protocol; to look at one imports torch, which takes seconds."""

    protocol: Node


def run(config: DictConfig) -> int:
    """Carry out `action` on the data set and return the exit code: 1 if something is wrong with it."""
    check_keys(config, AuditKeys if config.get("action") == "audit" else Keys)
    if config.action == "convert":
        return convert(config)
    actions = {"check": check, "prepare": prepare, "preview": preview, "audit": audit, "agreement": agreement}
    return actions[config.action](config, instantiated(config.data, "data"))


def check(config: DictConfig, source: Source) -> int:
    """Decode every file of both splits; print one line per fault and remark, then what is there."""
    reports = check_splits(source)
    with progress_bar() as bar:
        for report in reports:
            task = bar.add_task(report.name, total=len(report.ids))
            for item in check_items(source, report.ids, worker_count(config)):
                report.items.append(item)
                bar.advance(task)
            if fault := only_ignored(source, report.ids):
                report.faults.append(fault)
    faults = [line for report in reports for line in (*report.faults, *(f for i in report.items for f in i.faults))]
    remarks = [line for report in reports for item in report.items for line in item.remarks]
    for kind, lines in (("fault", faults), ("remark", remarks)):
        each = list(dict.fromkeys(lines))
        for line in each[:MOST_FAULTS]:
            print(f"{kind}: {printable(line)}")
        if len(each) > MOST_FAULTS:
            print(f"{kind}: ... and {len(each) - MOST_FAULTS:,} more")
    Console().print(class_table(source, reports))
    for report in reports:
        alone = sum(item.tags_alone for item in report.items)
        told = f", {alone} with tags alone" if alone else ""
        print(f"{report.name}: {len(report.ids)} ids, {size_range(report)}{told}")
    print(f"{source.name}: {len(set(faults))} faults, {len(set(remarks))} remarks")
    return 1 if faults else 0


def class_table(source: Source, reports: list[SplitReport]) -> Table:
    """Images that hold each class, and its share of all pixels, per split."""
    table = Table("class", title=f"{escape(printable(source.title))}: images with the class, share of pixels")
    for report in reports:
        table.add_column(f"{report.name} images", justify="right")
        table.add_column("pixels", justify="right")
    for index, name in (*enumerate(source.classes), (IGNORE, "ignored")):
        cells = []
        for report in reports:
            share = report.pixels[index] / max(1, report.pixels.sum())
            cells += [f"{report.images[index]:,}", f"{share:.2%}"]
        table.add_row(escape(printable(name)), *cells)
    return table


def size_range(report: SplitReport) -> str:
    """Smallest and largest width and height of a split."""
    sizes = [item.size for item in report.items if item.size is not None]
    if not sizes:
        return "no image decoded"
    heights, widths = zip(*sizes, strict=True)
    return f"width {min(widths)}..{max(widths)}, height {min(heights)}..{max(heights)}"


def prepare(config: DictConfig, source: Source) -> int:
    """Render or download what the data set needs and turn SBD's .mat files into PNGs."""
    if source.prepare():
        print(f"{source.name}: ready")
        return 0
    if not isinstance(source, VOC):
        raise ConfigError(f"action=prepare: {source.name} needs none; prepare is for VOC with SBD and for shapes")
    return prepare_voc(config, source)


def prepare_voc(config: DictConfig, source: VOC) -> int:
    """Download VOC and SBD if `download=true`, then write SegmentationClassAug."""
    from segladder.data.inspection.prepare import convert_all, converted_folder, download, unconverted

    if config.download:
        source.sbd = source.sbd or download(source)
    paths = unconverted(source)
    faults = []
    with progress_bar() as bar:
        task = bar.add_task("SBD to PNG", total=len(paths))
        for fault in convert_all(source, paths, worker_count(config)):
            faults += [fault] if fault else []
            bar.advance(task)
    for fault in faults:
        print(f"fault: {printable(fault)}")
    print(f"{converted_folder(source)}: {len(paths) - len(faults)} masks written, {len(faults)} faults")
    return 1 if faults else 0


def preview(config: DictConfig, source: Source) -> int:
    """Write a contact sheet of training images and labels as the network is shown them."""
    from segladder.data.inspection.preview import contact_sheet
    from segladder.data.training.augmentation import TrainAugmentation
    from segladder.data.training.datamodule import item_seed
    from segladder.data.training.dataset import SegmentationDataset

    ids = source.split(source.train_split)
    count = min(config.count, len(ids))
    chosen = [ids[number * len(ids) // count] for number in range(count)]  # spread over the split
    settings: Any = OmegaConf.to_container(config.loader.augment, resolve=True)
    dataset = SegmentationDataset(source, chosen, pixel_labels(config, source), TrainAugmentation(**settings))
    items = []
    for index, image_id in enumerate(chosen):
        item = dataset[index, item_seed(config.seed, 0, index)]
        items.append((image_id, item["image"].permute(1, 2, 0).numpy(), item["mask"].numpy()))
    out = Path(config.out or "preview.png")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"out={out}: expected a file ending in .png or .jpg")
    out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(items, source.classes, config.columns, source.colours).save(out)
    print(f"{out}: {len(items)} of {len(ids)} images of {source.train_split}")
    return 0


def convert(config: DictConfig) -> int:
    """Write the images and masks of a folder in the layout of `data=folder`; print what was found and what to do next.

    Returns 1 if something was left out.
    """
    from segladder.data.conversion.conversion import Conversion, Done
    from segladder.data.conversion.naming import given

    for key in ("from", "out"):
        if config[key] is None:
            raise ConfigError(f"{key}: is missing, expected segladder data action=convert from=DIR out=DIR")
    classes: Any = OmegaConf.to_container(config.classes) if OmegaConf.is_config(config.classes) else config.classes
    done = Done()
    with progress_bar() as bar:

        def watch(things: Iterable[Any], words: str, count: int) -> Iterable[Any]:
            return bar.track(things, count, description=words)

        conversion = Conversion.of(Path(config["from"]), Path(config.out), config.format, given(classes), watch)
        for step in watch(conversion.write(), "converting", len(conversion.reading.entries)):
            done = step
    for line in done.left_out[:MOST_LINES]:
        print(f"left out: {printable(line)}")
    if len(done.left_out) > MOST_LINES:
        print(f"left out: ... {len(done.left_out)} in all")
    print(f"{config['from']}: {printable(conversion.reading.words)}")
    if not done.ids:
        print(f"{config.out}: nothing could be converted")
        return 1
    Console().print(converted_classes(conversion.reading.classes, done))
    there = len(done.ids) - done.written
    print(f"{config.out}: {done.written} images written{f', {there} were there' if there else ''}")
    for line in conversion.next_steps(done, config.count, config.columns):
        print(printable(line))
    return 1 if done.left_out else 0


def converted_classes(classes: Sequence[Found], done: Done) -> Table:
    """Each class: its value, what it was, in how many images, its share of all pixels."""
    table = Table("value", "class", "was", Column("images", justify="right"), Column("pixels", justify="right"))
    for found in classes:
        share = done.pixels[found.value] / max(1, done.pixels.sum())
        words = (Text(printable(each)) for each in (found.name, found.looks))
        table.add_row(str(found.value), *words, f"{done.images[found.value]:,}", f"{share:.2%}")
    return table


def agreement(config: DictConfig, source: Source) -> int:
    """Print how far the masks of `labels.noise` agree with the drawn ones of the training split."""
    from segladder.data.inspection.agreement import agreement as measured

    labels = pixel_labels(config, source)
    ids = source.split(source.train_split)
    found = measured(source, ids, labels)
    print(f"{source.name}: {labels.words}, against the drawn masks of {len(ids)} images of {source.train_split}")
    for what, share in (
        ("pixels with the same label", found.same),
        ("of them where either has an object", found.same_of_objects),
        ("mIoU", float(np.nanmean(found.iou))),
    ):
        print(f"  {what:<34} {share:.1%}")
    print("  ADE20K, drawn again by its annotator: 82.4% of the pixels, nearly all of them in objects; by two others")
    print("  41.5% and 25% (Zhou et al. 2019)")
    return 0


def pixel_labels(config: DictConfig, source: Source) -> Labels:
    """The labels of `config.labels`. Raises ConfigError where they show no pixels."""
    labels: Labels = instantiated(config.labels, "labels")
    if labels.needs_background:
        source.require_background(f"labels={labels.words}")
    if labels.shows != "pixels":
        raise ConfigError(f"labels={labels.name}: action={config.action} is for labels that show pixels, such as masks")
    return labels.naming(source.foreground_indices)


def audit(config: DictConfig, source: Source) -> int:
    """Print what a few-shot protocol's training images hold of the novel classes, a row for each fold."""
    from segladder.data.inspection.audit import audit as audited
    from segladder.protocols.few_shot import FewShotProtocol

    protocol = instantiated(config.protocol, "protocol")
    if not isinstance(protocol, FewShotProtocol):
        raise ConfigError(f"action=audit: protocol={protocol.name} has no folds; choose a few-shot protocol")
    train_ids, test_ids = source.split(source.train_split), source.split(protocol.split)
    rows = audited(source, train_ids, test_ids, protocol.folds, protocol.min_object, protocol.min_area, progress=True)
    scored = f"{escape(source.name)}, protocol {protocol.name} {protocol.hash}"
    title = f"{scored}: novel pixels in training: {protocol.novel_pixels}"
    table = Table("fold", "novel classes (test items)", title=title)
    headings = ("training images", "of them with novel objects", "novel items there", "in both lists")
    for heading in (*headings, "test images", "test items"):
        table.add_column(heading, justify="right")
    for row in rows:
        classes = ", ".join(f"{name} ({pairs})" for name, pairs in row.pairs_per_class.items())
        numbers = (row.train_images, row.train_images_with_novel, row.train_pairs_dropped, len(row.shared_ids))
        table.add_row(str(row.fold), escape(classes), *(f"{n:,}" for n in (*numbers, row.test_images, row.test_pairs)))
    Console().print(table)
    if rows and rows[0].shared_ids:
        print(f"in both lists: {', '.join(rows[0].shared_ids[:5])}{' ...' if len(rows[0].shared_ids) > 5 else ''}")
    return 0


def progress_bar() -> Progress:
    """A bar with counts and remaining time; it leaves the screen when done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def worker_count(config: DictConfig) -> int:
    """`workers`, or one process per core that this process may use."""
    return config.workers if config.workers is not None else cores()
