"""Batches of images whose scores at the size of their labels fit into memory."""

from pathlib import Path

import pytest

from segladder.protocols import inference
from segladder.protocols.inference import same_size_chunks

SIZES = {**{f"large{n}": (500, 375) for n in range(10)}, **{f"small{n}": (50, 40) for n in range(10)}}


class Sized:
    """A data set of which only sizes are known."""

    def image_path(self, image_id):
        return Path(image_id)


@pytest.mark.parametrize(
    "classes, sizes", [(0, [8, 2, 8, 2]), (21, [8, 2, 8, 2]), (1000, [8, 2, 2, 2, 2, 2, 2]), (5000, [8, 2, *[1] * 10])]
)
def test_a_batch_is_smaller_where_its_scores_would_not_fit(monkeypatch, classes, sizes):
    monkeypatch.setattr(inference, "image_size", lambda path: SIZES[path.name])
    chunks = same_size_chunks(Sized(), list(SIZES), 8, classes)
    assert [len(chunk) for chunk in chunks] == sizes
    assert [image_id for chunk in chunks for image_id in chunk] == [*sorted(SIZES)[10:], *sorted(SIZES)[:10]]


def test_a_single_image_is_a_batch_whatever_its_size(monkeypatch):
    monkeypatch.setattr(inference, "image_size", lambda path: (100_000, 1_000))
    assert same_size_chunks(Sized(), ["a", "b"], 8, 151) == [["a"], ["b"]]
