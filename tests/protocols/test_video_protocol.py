"""One-shot video: scores against frame-by-frame prediction, sequences shared among processes, other data for a run."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from dummy_data import VIDEOS, save_mask, write_list, write_videos, write_voc
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from torch import nn

from segladder.data.labels.kinds.masks import Masks
from segladder.data.sources.davis import Davis
from segladder.data.sources.voc import VOC
from segladder.errors import ConfigError, DataError
from segladder.methods.base import Method
from segladder.methods.few_shot.base import FewShotMethod
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.formulas import region_similarities
from segladder.metrics.video import contour_accuracy
from segladder.protocols import video
from segladder.protocols.video import AutomaticVideoProtocol, VideoProtocol
from segladder.runs import build

LENGTHS = VIDEOS


def region_similarity(prediction, truth):
    return (prediction & truth).sum() / (prediction | truth).sum()


def statistics(values):
    """Mean, recall and decay, quarters that share their ends."""
    ends = np.floor(np.linspace(0, len(values) - 1, 5) + 0.5).astype(int)
    values = np.array(values)
    return values.mean(), (values > 0.5).mean(), values[: ends[1] + 1].mean() - values[ends[3] :].mean()


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Davis:
    return Davis(write_videos(tmp_path_factory.mktemp("videos")))


def configured(*overrides: str):
    with initialize_config_module("segladder.conf", version_base="1.3"):
        return compose(
            "train", ["data=davis", "protocol=davis2016", "method=prototype", "backbone.width=8", *overrides]
        )


def protocol(*overrides: str) -> VideoProtocol:
    return instantiate(configured(*overrides).protocol)


def method() -> FewShotMethod:
    return build.method(configured(), 2).eval()


class Static(FewShotMethod):
    """Answers with the support's own mask, wherever the object went."""

    def __init__(self) -> None:
        settings = {"name": "static", "supervision": "few_shot", "trains": False, "optimizer": {}, "schedule": {}}
        super().__init__(2, nn.CrossEntropyLoss(), mean=(0.0,) * 3, std=(1.0,) * 3, **settings)

    def encode(self, images):
        return (images[:, :1],)

    def condition(self, support_images, support_features, support_masks):
        return (support_masks[:, None],)

    def decode(self, query_features, state, size):
        mask = nn.functional.interpolate(state[0], size, mode="nearest")
        return torch.cat([0.5 - mask, mask - 0.5], 1)


def value(result, name: str) -> float:
    return result.metrics[name]["value"]


def predicted(method: FewShotMethod, source: Davis, support: str, query: str) -> np.ndarray:
    """The mask of one frame, without any of the protocol's code."""
    pixels = [torch.from_numpy(source.image(i)).permute(2, 0, 1)[None] for i in (query, support)]
    mask = torch.from_numpy(source.mask(support))[None, None]
    with torch.inference_mode():
        return method.predict(pixels[0], pixels[1][None], mask).argmax(1)[0].numpy()


def test_scores_are_those_of_frames_segmented_one_by_one(videos):
    segmenter, result = method(), protocol().score(method(), videos, batch_size=4)
    expected: dict[str, list[float]] = {}
    for sequence, row in zip(videos.sequences(), result.per_class, strict=True):
        first, *later = videos.frames(sequence)
        pairs = [(predicted(segmenter, videos, first, frame), videos.mask(frame)) for frame in later]
        for measure, score in (("J", region_similarity), ("F", contour_accuracy)):
            scores = [score(*pair) for pair in pairs]
            for suffix, kept in (("", scores), ("_without_last", scores[:-1])):
                names = (f"{measure}{suffix}", f"{measure}_recall{suffix}", f"{measure}_decay{suffix}")
                for name, number in zip(names, statistics(kept), strict=True):
                    expected.setdefault(name, []).append(number)
                    assert row[name] == pytest.approx(number, abs=1e-9)
        assert (row["class"], row["iou"], row["frames"]) == (sequence, row["J"], len(later))
    for name, numbers in expected.items():
        assert value(result, name) == pytest.approx(np.mean(numbers), abs=1e-9)
    assert set(result.metrics) == {"mIoU", *expected}
    np.testing.assert_equal(result.metrics["mIoU"], result.metrics["J"])  # nan is nan


def test_the_support_frame_is_not_scored_and_the_last_counts_in_one_variant(videos):
    result = protocol().score(Static(), videos)
    assert len(result.counts) == sum(LENGTHS.values()) - len(LENGTHS)
    assert not any(name.endswith("/00000") for name in result.counts.images) and "dog/00008" in result.counts.images
    assert value(result, "J_without_last") > value(result, "J")  # the object moves away
    assert value(result, "J_decay") > 0
    shares = [row["J"] for row in result.per_class]
    frame = result.counts.select([result.counts.images.index("swan/00001")])
    first, second = (videos.mask(f"swan/0000{number}") > 0 for number in (0, 1))
    assert region_similarities(frame) == pytest.approx((first & second).sum() / (first | second).sum())
    assert value(result, "J") == pytest.approx(np.mean(shares)) and np.isnan(result.metrics["J"]["low"])  # of 3 videos


def test_a_picture_shows_the_annotated_first_frame(videos):
    result = protocol().score(Static(), videos)
    shown = protocol().shown(Static(), videos, Asked("bear/00003", unit="bear"), result)
    assert np.array_equal(shown.image, videos.image("bear/00003"))
    assert np.array_equal(shown.truth, videos.mask("bear/00003"))
    assert np.array_equal(shown.prediction, videos.mask("bear/00000"))
    inside = videos.mask("bear/00000") == 1
    assert shown.beside["support"][~inside].mean() < 0.6 * videos.image("bear/00000")[~inside].mean()
    heat = shown.beside["probability"]
    assert heat[inside].mean() > heat[~inside].mean()  # viridis grows lighter


def test_several_processes_score_like_one(videos, monkeypatch):
    alone = protocol().score(Static(), videos)
    parts: list = []
    monkeypatch.setattr(video, "gathered", lambda item: parts.append(item) or list(parts))
    for rank in (0, 1):
        monkeypatch.setattr(video, "shard", lambda rank=rank: (rank, 2))
        together = protocol().score(Static(), videos)  # the last with the sequences of both
    assert [len({asked.unit for asked in part.asked}) for part in parts] == [2, 1]
    np.testing.assert_equal(together.metrics, alone.metrics)  # nan is nan
    assert together.per_class == alone.per_class
    assert together.counts.asked == alone.counts.asked


def test_chosen_frames_stand_for_their_sequences(videos):
    result = protocol().score(Static(), videos, ids=["dog/00002", "dog/00004"])
    assert [(row["class"], row["frames"]) for row in result.per_class] == [("dog", 8)]
    assert protocol().selection_score(Static(), videos, ["dog/00002"], 8) == value(result, "J")


def test_a_video_of_which_one_frame_was_drawn_counts_where_it_is_asked_about():
    counts = Counts(2)
    counts.add(Asked("dog/00001", unit="dog"), np.array([[5, 0], [1, 4]]), contours=0.5)
    result = protocol().result(counts, ["dog", "bear"])
    assert [row["class"] for row in result.per_class] == ["dog"]
    assert value(result, "J") == pytest.approx(0.8) and np.isnan(value(result, "J_without_last"))
    assert protocol().result(Counts(2), ["bear"]).per_class == []


def test_every_frame_with_an_object_can_be_trained_on(tmp_path):
    source = Davis(write_videos(tmp_path))
    write_list(tmp_path / "ImageSets" / "2016" / "train.txt", ["dog"])
    save_mask(source.mask_path("dog/00003"), np.zeros((64, 80), np.uint8))
    view = protocol().training(source)
    training = build.training(configured("loader.workers=0"), source, view, Masks())
    assert sorted(training.module.dataset.ids) == [frame for frame in source.frames("dog") if frame != "dog/00003"]


def test_faults_are_named(tmp_path, videos):
    short = Davis(write_videos(tmp_path / "short", {"cow": 2}))
    with pytest.raises(DataError, match="cow: 2 frames, expected 3 or more"):
        protocol().score(Static(), short)
    with pytest.raises(DataError, match="cow: 2 frames, expected 3 or more"):
        protocol().check_items(short)  # before training
    empty = Davis(write_videos(tmp_path / "empty", {"cow": 4}))
    save_mask(empty.mask_path("cow/00000"), np.zeros((64, 80), np.uint8))
    with pytest.raises(DataError, match=r"cow/00000.png: empty mask"):
        protocol().score(Static(), empty)
    with pytest.raises(DataError, match=r"cow/00000.png: empty mask"):
        protocol().check_items(empty)
    protocol().check_items(videos)
    with pytest.raises(ConfigError, match=r"protocol.resolution=1080p, but data.resolution=480p"):
        protocol("data.resolution=1080p").score(Static(), videos)
    with pytest.raises(ConfigError, match="scores videos, but data=voc holds single images"):
        protocol().score(Static(), VOC(write_voc(tmp_path)))
    with pytest.raises(ConfigError, match="protocol=davis2016 scores few_shot methods, but method=fcn8s is full"):
        protocol().check_method("fcn8s", "full")


def test_resolutions_never_share_a_hash():
    square = ("protocol.fit=square", "protocol.input_side=64")
    assert len({protocol(*words).hash for words in ((), ("data.resolution=240p",), square)}) == 3


class Blob(Method):
    """Calls an object what is red, and what moves to the right where it reads flow."""

    def __init__(self, reads_flow: bool) -> None:
        settings = {"name": "blob", "supervision": "full", "trains": False, "optimizer": {}, "schedule": {}}
        super().__init__(mean=(0.0,) * 3, std=(1.0,) * 3, **settings)
        self.reads_flow = reads_flow

    def loss(self, batch):
        return {}

    def predict(self, images, flow=None):
        score = images[:, :1].float() - images[:, 1:2].float() - 120
        if self.reads_flow:
            score = torch.minimum(score, 100 * flow[:, :1])
        return torch.cat([torch.zeros_like(score), score], 1)


def automatic(*overrides: str) -> AutomaticVideoProtocol:
    return instantiate(configured("protocol=davis2016_automatic", *overrides).protocol)


@pytest.mark.parametrize("reads_flow", [False, True])
def test_without_a_support_the_same_frames_are_scored(videos, reads_flow):
    asked, blob = automatic(), Blob(reads_flow)
    asked.check_built(blob)
    result = asked.score(blob, videos, batch_size=4)
    expected = protocol().score(Static(), videos)
    assert result.counts.images == expected.counts.images
    for row in result.per_class:
        found = []
        for frame in videos.frames(row["class"])[1:]:
            image = videos.image(frame).astype(int)
            prediction = image[..., 0] - image[..., 1] > 120
            if reads_flow:
                prediction &= videos.flow(frame)[..., 0] > 0
            found.append(region_similarity(prediction, videos.mask(frame)))
        assert row["J"] == pytest.approx(np.mean(found), abs=1e-9)
    shown = asked.shown(blob, videos, Asked("bear/00003", unit="bear"), result)
    assert set(shown.beside) == {"probability", *(["flow"] if reads_flow else [])}
    assert np.array_equal(shown.truth, videos.mask("bear/00003"))


def test_the_first_mask_of_each_video_is_paid_for(videos):
    (work,) = protocol().supports(videos)
    assert (work.images, work.held) == (len(videos.sequences("val")), len(videos.sequences("val")))


def test_no_support_is_paid_for_and_single_images_have_no_flow(videos):
    assert automatic().supports(videos) == []
    with pytest.raises(ConfigError, match="protocol=davis2016_automatic scores full, image_level, none methods"):
        automatic().check_method("sg_one", "few_shot")
    semantic = instantiate(configured("protocol=semantic").protocol)
    semantic.check_built(Blob(reads_flow=False))
    with pytest.raises(ConfigError, match="protocol=semantic shows single images, but method=blob reads the optical"):
        semantic.check_built(Blob(reads_flow=True))


def test_folds_over_videos_are_one_measurement(videos):
    parts = ["data.parts=2", "data.train_split=rest", "data.val_split=part"]
    folds = [automatic(*parts, f"fold={fold}") for fold in (0, 1)]
    assert folds[0].hash == folds[1].hash and [each.place().fold for each in folds] == [0, 1]
    assert automatic().place().fold is None and automatic().hash != folds[0].hash
    found = []
    for fold, asked in enumerate(folds):
        source = Davis(videos.root, parts=2, part=fold, train_split="rest", val_split="part")
        assert asked.scored_somewhere(source) == videos.split("all")
        assert not {*asked.training(source).ids(source)} & {*source.split("part")}
        found += [row["class"] for row in asked.score(Blob(False), source).per_class]
    assert sorted(found) == sorted(LENGTHS)


def test_folds_are_the_parts_of_the_data(videos):
    asked = automatic("data.parts=2", "data.train_split=rest", "data.val_split=part", "fold=1")
    dealt = Davis(videos.root, parts=2, part=0)
    for source in (videos, dealt):
        with pytest.raises(ConfigError, match=r"fold=1 of 2: scores that part.*give data.parts=2 data.part=1"):
            asked.training(source)
    with pytest.raises(ConfigError, match=r"protocol.split=val; give data.parts=2 data.part=0.*protocol.folds=null"):
        automatic("data.parts=2").training(dealt)


def test_named_frames_alone_are_looked_at_and_the_object_may_come_later(tmp_path):
    source = Davis(write_videos(tmp_path))
    save_mask(source.mask_path("dog/00000"), np.zeros((64, 80), np.uint8))
    whole = automatic().score(Blob(False), source)
    found = automatic().score(Blob(False), source, ids=["dog/00002", "dog/00004"])
    assert found.counts.images == ["dog/00002", "dog/00004"] and {"dog/00001", "dog/00008"} <= {*whole.counts.images}


@pytest.mark.parametrize("size", [("square", 48), ("padded", 64)])
def test_fitted_frames_are_scored_at_their_own_size(videos, size):
    asked = automatic(f"protocol.fit={size[0]}", f"protocol.input_side={size[1]}")
    plain = value(automatic().score(Blob(True), videos), "J")
    assert value(asked.score(Blob(True), videos), "J") == pytest.approx(plain, abs=0.12)


EPISODES = ("protocol.min_object=none", "protocol.episodes=6", "protocol.seeds=[0]", "protocol.beside=0")


@pytest.fixture(scope="module")
def runs(segladder, tmp_path_factory):
    """A few-shot and a dense run on shapes."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["data.train_size=160", "data.val_size=60", "data.size=64", "backbone.width=8", "loader.workers=0"]
    small += ["logger=none", "trainer.progress=false", "trainer.panels=0", "trainer.steps=1"]
    few_shot = ["method=prototype", "protocol=strict", *EPISODES]
    assert segladder("train", *small, *few_shot, f"hydra.run.dir={folder / 'few_shot'}") == 0
    assert segladder("train", *small, f"hydra.run.dir={folder / 'dense'}") == 0
    return folder


def test_a_run_is_scored_on_other_data(segladder, runs, videos, capsys):
    words = ["protocol=davis2016", "data=davis", f"data.root={videos.root}", "progress=false", "panels=1"]
    assert segladder("evaluate", f"run={runs / 'few_shot'}", *words) == 0
    (path,) = runs.glob("few_shot/evaluations/davis2016-*/record.json")
    record = json.loads(path.read_text())
    assert (record["data"]["name"], record["data"]["classes"]) == ("davis", ["background", "object"])
    assert (record["fold"], record["shots"], record["protocol"]["fields"]["resolution"]) == (None, 1, "480p")
    expected = protocol().score(method(), videos)
    assert record["metrics"]["J"]["value"] == pytest.approx(value(expected, "J"), abs=1e-6)
    assert "data=davis" in record["command"] and len(list(path.parent.glob("panels/*.png"))) == 4
    assert segladder("leaderboard", f"runs={runs}", "format=markdown") == 0
    assert f"davis2016 {record['protocol']['hash']} on davis" in capsys.readouterr().out


def test_a_moved_root_needs_no_name(segladder, shapes_root, runs, tmp_path):
    os.symlink(shapes_root, tmp_path / "moved")
    words = ["protocol=strict", f"data.root={tmp_path / 'moved'}", *EPISODES, "progress=false", "panels=0"]
    assert segladder("evaluate", f"run={runs / 'few_shot'}", *words) == 0
    (path,) = runs.glob("few_shot/evaluations/strict-*/record.json")
    first, again = (json.loads(p.read_text()) for p in (runs / "few_shot" / "record.json", path))
    assert again["data"].pop("val_images") and again["data"] == first["data"]
    assert again["metrics"] == first["metrics"]


def test_data_that_do_not_fit_end_in_one_line(segladder, runs, tmp_path, videos, capsys):
    davis, dense, few_shot = f"data.root={videos.root}", f"run={runs / 'dense'}", f"run={runs / 'few_shot'}"
    for words, line in (
        ([dense, "data=davis", davis], "data=davis: the run's protocol is for shapes; give protocol=NAME"),
        ([dense, "data=voc", f"data.root={write_voc(tmp_path)}", "protocol=semantic"], "data=voc: holds aeroplane, "),
        ([dense, "data=davis", davis, "protocol=davis2016"], "protocol=davis2016 scores few_shot methods"),
        ([few_shot, "protocol=davis2016"], "protocol=davis2016 scores davis, but data=shapes"),
    ):
        assert segladder("evaluate", *words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and line in error, error


@pytest.mark.real_data
def test_real_videos_are_scored_frame_by_frame(real_data):
    source = Davis(real_data("davis2016"), resolution="240p", val_split="all")
    frames = source.frames("dog")
    result = protocol("data.resolution=240p", "data.val_split=all").score(Static(), source, ids=frames)
    first, *later = (source.mask(frame) for frame in frames)
    assert value(result, "J") == pytest.approx(np.mean([region_similarity(first, mask) for mask in later]))
    assert value(result, "F_without_last") == pytest.approx(np.mean([contour_accuracy(first, m) for m in later[:-1]]))
