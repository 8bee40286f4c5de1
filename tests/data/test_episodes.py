"""Episode lists: who holds what, the draw rules, the kinds, and lists that are the same everywhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import get_args

import numpy as np
import pytest
from episode_data import LARGE, SMALL, varied, write_striped
from hypothesis import given, settings
from hypothesis import strategies as st

from segladder.data.sources.items import Items
from segladder.data.sources.voc import VOC
from segladder.data.training.episodes import Kind, Rule, digest, draw, draw_all_ways, sample
from segladder.errors import ConfigError, DataError

FOLD = [1, 2, 3]


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> Items:
    root = write_striped(tmp_path_factory.mktemp("voc"), {"val": varied(40, range(1, 8))})
    source = VOC(root)
    return Items.read(source, source.split("val"), "none")


def made(kept: dict[str, tuple[int, ...]], present: dict[str, tuple[int, ...]] | None = None) -> Items:
    """Items of classes 1..5 that lie on no disk."""
    seen = {**kept, **(present or {})}
    classes = ("background", *"abcde")
    return Items("made", classes, tuple(kept), tuple(kept.values()), tuple(seen[i] for i in kept))


def test_filters_keep_what_is_large_enough_and_remember_what_is_there(tmp_path: Path):
    images = {"first": [(8, LARGE), (12, SMALL)], "second": [(12, LARGE), (15, LARGE)], "empty": []}
    source = VOC(write_striped(tmp_path, {"val": images}), classes=["dog", "cat"])
    ids = source.split("val")
    grid, area = Items.read(source, ids), Items.read(source, ids, "area", min_area=28 * SMALL)
    assert grid.present == area.present == ((1, 2), (1,), ())
    assert grid.kept == ((2,), (1,), ())
    assert area.kept == Items.read(source, ids, "none").kept == ((1, 2), (1,), ())
    assert Items.read(source, ids, "area", min_area=28 * SMALL + 1).kept == grid.kept
    assert area.holders(1) == ["first", "second"]
    assert area.pairs([2, 1]) == [("first", 1), ("first", 2), ("second", 1)]
    with pytest.raises(ConfigError, match="min_object=big"):
        Items.read(source, ids, "big")
    with pytest.raises(DataError, match="absent"):
        Items.read(source, [*ids, "absent"])


def test_no_images_hold_nothing(tmp_path: Path):
    assert Items.read(VOC(write_striped(tmp_path, {})), []).kept == ()


@pytest.mark.parametrize("rule", get_args(Rule))
@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("repeats", [False, True])
def test_episodes_keep_what_their_kind_promises(items, rule, kind, repeats):
    kept, present = (dict(zip(items.ids, held, strict=True)) for held in (items.kept, items.present))
    episodes = draw(items, FOLD, 3, 60, 7, rule, kind, repeats)
    for episode in episodes:
        assert episode.query not in episode.supports and len(episode.supports) == 3
        assert repeats or len(set(episode.supports)) == 3
        assert all(episode.class_index in kept[i] for i in episode.supports)
        if kind == "negative":
            assert kept[episode.query] and episode.class_index not in present[episode.query]
        else:
            assert episode.class_index in kept[episode.query]
        assert kind in ("standard", "negative") or len(kept[episode.query]) > 1
        assert kind == "swap" or episode.class_index in FOLD
    assert 60 <= len(episodes) < 63 and (kind == "swap" or len(episodes) == 60)
    assert not repeats or any(len(set(e.supports)) < 3 for e in episodes)


def test_hard_counts_classes_outside_the_fold():
    items = made({"one": (1,), "pair": (1, 4), "other": (1,)})
    assert {e.query for e in draw(items, [1], 1, 20, 0, kind="hard")} == {"pair"}


def test_negative_queries_hold_not_one_pixel_of_the_class():
    kept = {"a": (1,), "b": (1,), "speck": (2,), "none": (), "other": (2,)}
    items = made(kept, {"speck": (1, 2)})
    assert {e.query for e in draw(items, [1], 1, 20, 0, kind="negative")} == {"other"}


def test_swap_takes_each_class_of_the_query_and_clean_supports_first():
    images = {"q": (1, 4), "a0": (1,), "a1": (1,), "d0": (4,), "mixed": (1, 4), "speck": (4,), "rare": (1, 5)}
    episodes = draw(made(images, {"speck": (1, 4)}), [1], 2, 40, 0, kind="swap")
    assert len(episodes) == 40
    for first, second in zip(episodes[::2], episodes[1::2], strict=True):
        assert first.query == second.query in ("q", "mixed")
        assert (first.class_index, second.class_index) == (1, 4)
        assert set(first.supports) < {"a0", "a1", "rare"}
        assert second.supports[0] == "d0" and second.supports[1] in {"speck", "q", "mixed"}


def test_balanced_takes_classes_in_turn_and_item_follows_their_frequency():
    items = made({f"a{i}": (1,) for i in range(90)} | {f"b{i}": (2,) for i in range(10)})
    counts = {rule: Counter(e.class_index for e in draw(items, [2, 1], 1, 1001, 0, rule)) for rule in get_args(Rule)}
    assert counts["balanced"] == {2: 501, 1: 500}
    assert 400 < counts["class"][2] < 600
    assert 60 < counts["item"][2] < 140 and 60 < counts["image"][2] < 140
    assert [e.class_index for e in draw(items, [2, 1], 1, 4, 0, "balanced")] == [2, 1, 2, 1]


def test_image_rule_gives_images_equal_chances_whatever_they_hold():
    items = made({"all": (1, 2, 3), "one": (1,), "two": (2,), "three": (3,)})
    share = {
        rule: Counter(e.query for e in draw(items, [1, 2, 3], 1, 1200, 0, rule))["all"] for rule in ("image", "item")
    }
    assert 240 < share["image"] < 360 and 530 < share["item"] < 670  # a quarter, a half


def test_sequential_goes_round():
    items = made({"x": (2, 1), "y": (3,), "z": (1, 2)})
    queries = [(e.query, e.class_index) for e in draw(items, [2, 1], 1, 6, 0, "sequential")]
    assert queries == [("x", 1), ("x", 2), ("z", 1), ("z", 2), ("x", 1), ("x", 2)]


def test_more_shots_and_more_episodes_extend_a_list(items):
    for kind in get_args(Kind):
        few, many = draw(items, FOLD, 1, 20, 3, kind=kind), draw(items, FOLD, 4, 30, 3, kind=kind)
        for first, second in zip(few, many, strict=False):
            assert (first.query, first.class_index, first.seed) == (second.query, second.class_index, second.seed)
            assert first.supports == second.supports[:1]


def test_seeds_and_folds_draw_lists_of_their_own(items):
    lists = [draw(items, classes, 1, 30, seed) for seed in (0, 1) for classes in (FOLD, FOLD[::-1], [4, 5])]
    assert len({digest(episodes) for episodes in lists}) == 6
    assert digest(lists[0]) == digest(draw(items, FOLD, 1, 30, 0))


def test_lists_are_the_same_on_every_machine(items):
    drawn = {kind: digest(draw(items, FOLD, 2, 100, 0, kind=kind)) for kind in get_args(Kind)}
    assert drawn == {
        "standard": "ec4ad5c8adb7d761",
        "hard": "2f06083aa0f7bf5a",
        "negative": "aca7f3079e4840fd",
        "swap": "3853ac15a16cf996",
    }


def test_too_few_images_of_a_class_are_named():
    items = made({"x": (1,), "y": (1,), "z": (2,)})
    with pytest.raises(DataError, match=r"made: class b has 1 of 3 images, 1-shot episodes need 2"):
        draw(items, [1, 2], 1, 5, 0)
    with pytest.raises(DataError, match=r"class a has 2 of 3 images, 2-shot"):
        draw(items, [1], 2, 5, 0)
    assert draw(items, [1], 2, 5, 0, repeats=True)


def test_a_class_without_enough_images_says_what_to_add_where_the_rule_is_why():
    """`data=shapes protocol=strict`: the 1/32 rule leaves hardly an object of small pictures."""
    present = {"x": (1, 2), "y": (2,), "z": (2,)}
    small = made({"x": (1, 2), "y": (), "z": ()}, present)
    said = r"b has 1 of 3 images, .*; 2 more hold objects too small for .*; add protocol\.min_object=none$"
    with pytest.raises(DataError, match=said):
        draw(small, [2], 1, 5, 0)
    with pytest.raises(DataError, match=r"1-shot episodes need 2; leave it out with data\.classes$"):
        draw(made(present), [1], 1, 5, 0)
    with pytest.raises(DataError, match=r"need 4; leave it out with data\.classes or take fewer shots$"):
        draw(made(present), [2], 3, 5, 0)


def test_a_kind_without_queries_is_named():
    items = made({"x": (1,), "y": (1,), "both": (2, 3), "z": (2,), "w": (3,)})
    with pytest.raises(DataError, match="none of 5 images is a hard query for a"):
        draw(items, [2, 1], 1, 5, 0, "balanced", "hard")
    assert {e.class_index for e in draw(items, [2, 1], 1, 5, 0, "item", "hard")} == {2}
    with pytest.raises(DataError, match="swap query for a"):
        draw(items, [1], 1, 5, 0, "item", "swap")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rule": "best"}, "rule=best"),
        ({"kind": "soft"}, "kind=soft"),
        ({"shots": 0}, "0 shots"),
        ({"episodes": 0}, "0 episodes"),
        ({"classes": []}, "classes"),
        ({"classes": [0]}, "classes"),
        ({"classes": [1, 1]}, "classes"),
    ],
)
def test_bad_settings_are_named(items, change, named):
    with pytest.raises(ConfigError, match=named):
        draw(items, **{"classes": FOLD, "shots": 1, "episodes": 5, "seed": 0, **change})


@settings(max_examples=50)
@given(st.integers(0, 2**48), st.integers(1, 30), st.data())
def test_samples_are_distinct_and_nested(seed, size, data):
    count = data.draw(st.integers(0, size))
    options = list(range(size))
    whole = sample(Random(seed), options, size)
    assert sorted(whole) == options
    assert sample(Random(seed), options, count) == whole[:count]


def test_samples_are_uniform():
    random = Random(0)
    counts = Counter(tuple(sample(random, "abc", 2)) for _ in range(6000))
    assert len(counts) == 6 and np.std(list(counts.values())) < 60


def copying_sample(random, options, count):
    """`sample` by a shuffle of a copy."""
    rest = list(options)
    for place in range(count):
        other = place + int(random.random() * (len(rest) - place))
        rest[place], rest[other] = rest[other], rest[place]
    return rest[:count]


@settings(max_examples=100)
@given(st.integers(0, 2**48), st.integers(0, 30), st.data())
def test_samples_are_those_of_a_shuffled_copy(seed, size, data):
    count = data.draw(st.integers(0, size))
    assert sample(Random(seed), range(size), count) == copying_sample(Random(seed), range(size), count)


def test_a_list_of_all_ways_takes_the_supports_of_a_copy_without_the_query():
    some = made({f"{n}": (1 + n % 5, 1 + n // 5 % 5) for n in range(40)})
    for episode in draw_all_ways(some, 3, seed=5):
        others = [i for i in some.holders(episode.class_index) if i != episode.query]
        assert list(episode.supports) == copying_sample(Random(episode.seed), others, 3)


def test_a_list_of_all_ways_reads_few_images_for_each_question(monkeypatch):
    class Watched(list):
        read = 0

        def __iter__(self):
            for each in super().__iter__():
                Watched.read += 1
                yield each

        def __getitem__(self, place):
            Watched.read += 1
            return super().__getitem__(place)

    many = made({f"{n}": (1 + n % 5,) for n in range(400)})
    holders = Items.holders
    monkeypatch.setattr(Items, "holders", lambda items, k: Watched(holders(items, k)))
    assert len(draw_all_ways(many, 2, seed=0)) == 2000
    assert Watched.read <= 2000 * 2 + 400
