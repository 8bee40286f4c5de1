"""Hard queries hold another object, and a speck of another class is none."""

from segladder.data.sources.items import Items
from segladder.data.training.episodes import draw


def test_a_speck_of_another_class_makes_no_query_hard():
    kept, present = ((1,), (1,), (1, 2)), ((1,), (1, 2), (1, 2))
    items = Items("made", ("background", "a", "b"), ("alone", "speck", "pair"), kept, present)
    assert {episode.query for episode in draw(items, [1], 1, 20, 0, kind="hard")} == {"pair"}
    assert {episode.query for episode in draw(items, [1], 1, 20, 0)} == {"alone", "speck", "pair"}
