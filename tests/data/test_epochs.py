"""Each epoch has an order and augmentations of its own, also where a run goes on inside a later one."""

from segladder.data.training.datamodule import EpochSampler


def epoch(number, **more):
    """The keys of an epoch of ten items."""
    sampler = EpochSampler(10, 2, 3, **more)
    sampler.set_epoch(number)
    return list(sampler)


def test_each_epoch_shuffles_and_augments_anew():
    (first, first_seeds), (second, second_seeds) = (zip(*sorted(epoch(number)), strict=True) for number in (0, 1))
    assert first == second == tuple(range(10)) and not set(first_seeds) & set(second_seeds)
    orders = [[index for index, _ in epoch(number)] for number in (0, 1)]
    assert orders[0] != orders[1]


def test_a_run_that_goes_on_inside_a_later_epoch_reads_the_rest_of_it_and_whole_ones_after():
    assert list(EpochSampler(10, 2, 3, resumed=(1, 2))) == epoch(1, resumed=(1, 2)) == epoch(1)[4:]
    assert epoch(2, resumed=(1, 2)) == epoch(2)
