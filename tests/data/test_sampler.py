"""The order of training items: classes in turn, whole, and the same for any number of processes."""

from collections import Counter

import numpy as np
import pytest

from segladder.data.training.datamodule import EpochSampler, in_turn, item_seed

GROUPS = [[0, 1, 2, 3, 4, 5, 6, 7], [7, 8], [9]]


def test_classes_take_turns_and_each_gives_all_its_items_before_one_comes_again():
    order = in_turn(GROUPS, 24, np.random.default_rng(0)).tolist()
    assert len(order) == 24
    for start in range(0, 24, 3):
        turn = order[start : start + 3]
        assert all(any(item in group for item in turn) for group in GROUPS) and 9 in turn
    counts = Counter(order)
    assert counts[9] == 8 and counts[8] == 4 and counts[7] == 4 + 1
    assert all(counts[item] == 1 for item in range(7))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_an_epoch_has_as_many_items_as_there_are(count):
    assert len(in_turn(GROUPS, count, np.random.default_rng(0))) == count


def test_two_processes_share_what_one_reads():
    def drawn(rank, world):
        return [index for index, _ in EpochSampler(10, 2, 3, rank, world, groups=GROUPS)]

    alone = drawn(0, 1)
    assert sorted(drawn(0, 2) + drawn(1, 2)) == sorted(alone[:8])
    assert [EpochSampler(10, 2, 3, groups=GROUPS).epoch, len(alone)] == [0, 10]


def test_an_epoch_is_a_function_of_its_number_and_goes_on_inside():
    whole = list(EpochSampler(10, 2, 3, groups=GROUPS))
    assert whole == list(EpochSampler(10, 2, 3, groups=GROUPS)) != list(EpochSampler(10, 2, 4, groups=GROUPS))
    assert list(EpochSampler(10, 2, 3, resumed=(0, 2), groups=GROUPS)) == whole[4:]


def test_an_image_that_comes_again_is_augmented_anew_whoever_reads_it():
    keys = list(EpochSampler(10, 2, 3, groups=GROUPS))
    first = dict(reversed(keys))
    assert len(set(keys)) == len(keys) > len(first)
    assert all(seed == item_seed(3, 0, index) for index, seed in first.items())
    shared = [key for rank in range(2) for key in EpochSampler(10, 1, 3, rank, 2, groups=GROUPS)]
    assert sorted(shared) == sorted(keys)


def test_images_that_come_once_keep_their_seed():
    assert all(seed == item_seed(3, 0, index) for index, seed in EpochSampler(10, 2, 3))
