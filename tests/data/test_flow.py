"""Optical flow of videos: what moves, how augmentation moves it, folds over videos, and what has no flow."""

import numpy as np
import pytest
import torch
from dummy_data import VIDEOS, picture, save_image, save_mask, write_videos, write_voc

from segladder.data.labels.kinds.masks import Masks
from segladder.data.sources.davis import Davis
from segladder.data.sources.flow import dense_flow, relative
from segladder.data.sources.voc import VOC
from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.dataset import FlowDataset
from segladder.errors import ConfigError, DataError
from segladder.ops.flow import flow_colours

RIGHT, DOWN = 4, 3


def textured(size=(96, 128)):
    return picture(3, (size[0] + 20, size[1] + 20), values=())[0]


@pytest.fixture
def moving(tmp_path):
    """Three frames in which everything moves to the right and down."""
    wide = textured()
    for frame in range(3):
        top, left = 10 - DOWN * frame, 12 - RIGHT * frame
        image = wide[top : top + 96, left : left + 128]
        save_image(tmp_path / "JPEGImages" / "480p" / "all" / f"{frame:05d}.jpg", image)
        save_mask(tmp_path / "Annotations" / "480p" / "all" / f"{frame:05d}.png", np.eye(96, 128, dtype=np.uint8))
    return Davis(tmp_path, train_split="all", val_split="all")


def middle(flow):
    return np.median(flow[20:-20, 20:-20], axis=(0, 1))


def test_flow_is_where_pixels_go():
    wide = textured()
    flow = dense_flow(wide[10:106, 12:140], wide[10 - DOWN : 106 - DOWN, 12 - RIGHT : 140 - RIGHT])
    assert flow.dtype == np.float32 and middle(flow) == pytest.approx((RIGHT, DOWN), abs=0.2)
    assert np.linalg.norm(relative(flow), axis=2).max() == pytest.approx(1)
    assert not relative(np.zeros((4, 5, 2), np.float32)).any()


def test_the_last_frame_looks_back(moving):
    first, last = moving.flow("all/00000"), moving.flow("all/00002")
    assert [moving.next_frame(f"all/0000{n}") for n in range(3)] == ["all/00001", "all/00002", "all/00001"]
    for flow, sign in ((first, 1), (last, -1)):
        assert np.arctan2(*(sign * middle(flow))) == pytest.approx(np.arctan2(RIGHT, DOWN), abs=0.1)


def test_a_mirrored_frame_moves_the_other_way(moving):
    ids = moving.frames("all")
    plain, mirrored = (FlowDataset(moving, ids, Masks(), TrainAugmentation(flip=flip))[0, 5] for flip in (0, 1))
    assert torch.equal(mirrored["image"], plain["image"].flip(2))
    assert torch.equal(mirrored["flow"], plain["flow"].flip(2) * torch.tensor([-1, 1])[:, None, None])
    hues = [flow_colours(item["flow"][None])[0, :, 20:-20, 20:-20].mean((1, 2)) for item in (plain, mirrored)]
    assert hues[0][0] > 200 > hues[0][2] and hues[1][0] < 100  # right and down is red to yellow, left is none of it


def test_flow_stays_with_the_pixels_it_is_of(moving):
    """A flow that says where each pixel was taken from says so after any crop and size."""
    augment = TrainAugmentation(scale=(0.6, 1.7), crop=64, flip=0.5)
    rows, columns = np.mgrid[0:96, 0:128].astype(np.float32)
    image = np.stack([rows, columns, np.full_like(rows, 200)], -1).astype(np.uint8)
    for seed in range(20):
        shown, _ = augment(image, None, seed)
        flow = augment.moved_flow(np.stack([columns, rows], -1), seed)
        inside = shown[..., 2] == 200
        assert np.abs(np.abs(flow[..., 1]) - shown[..., 0])[inside].max() <= 1
        assert np.abs(np.abs(flow[..., 0]) - shown[..., 1])[inside].max() <= 1
        assert not flow[shown[..., 2] == augment.fill[2]].any()


def test_cached_flow_is_the_same(moving, tmp_path):
    items = []
    for cache in ("none", "memmap"):
        moving.cache, moving.cache_dir = cache, tmp_path / "cache"
        items.append(FlowDataset(moving, moving.frames("all"), Masks())[1])
    assert torch.equal(items[0]["flow"], items[1]["flow"]) and items[0]["flow"].shape == (2, 96, 128)
    assert len(list((tmp_path / "cache").glob("davis-flow/*.u8"))) == 1


def test_what_has_no_flow_is_named(tmp_path, moving):
    single = Davis(write_videos(tmp_path / "single", {"cow": 1}))
    with pytest.raises(DataError, match=r"cow/00000.jpg: cow/00000 is the only frame of its video"):
        FlowDataset(single, ["cow/00000"], Masks())
    with pytest.raises(ConfigError, match="data=voc holds single images, no videos"):
        FlowDataset(VOC(write_voc(tmp_path)), ["2007_train00"], Masks())
    with pytest.raises(ConfigError, match=r"loader.augment.extra: moves no optical flow"):
        FlowDataset(moving, ["all/00000"], Masks(), TrainAugmentation(extra=[{"name": "HorizontalFlip"}]))
    save_image(moving.image_path("all/00001"), textured()[:50])
    with pytest.raises(DataError, match=r"all/00001.jpg: all/00001 is 148x50, expected 128x96 like all/00000"):
        moving.flow("all/00000")
    for frame in ("all/00000", "all/00001"):
        save_image(moving.image_path(frame), textured()[:8, :8])
    with pytest.raises(DataError, match=r"all/00000.jpg: all/00000 is 8x8, expected 12 or more for its flow"):
        moving.flow("all/00000")


def test_every_video_is_in_one_part(tmp_path):
    root = write_videos(tmp_path)
    parts = [Davis(root, parts=2, part=part) for part in (0, 1)]
    assert [each.sequences("part") for each in parts] == [["bear", "swan"], ["dog"]]
    assert [each.sequences("rest") for each in parts] == [["dog"], ["bear", "swan"]]
    assert len(parts[0].split("part")) == VIDEOS["bear"] + VIDEOS["swan"]
    with pytest.raises(ConfigError, match=r"data.part=2: davis is dealt into data.parts=2, expected 0..1"):
        Davis(root, parts=2, part=2)
    with pytest.raises(DataError, match="3 sequences, expected at least one for each of 4 parts"):
        Davis(root, parts=4, part=3).split("part")
    with pytest.raises(DataError, match=r"part.txt: no such list.*data.parts"):
        Davis(root).split("part")
