"""cls_labels.npy: both kinds of keys, and nothing that a pickle could run."""

import os
import pickle

import numpy as np
import pytest

from segladder.data.sources.tag_file import read_tag_file
from segladder.data.sources.voc import VOC
from segladder.errors import ConfigError, DataError

CAT, COW = 8 - 1, 10 - 1


def tags(*places):
    return np.isin(np.arange(20), places).astype(np.float32)


@pytest.mark.parametrize("key", ["2007_000032", 2007000032, np.int64(2007000032)])
def test_both_kinds_of_keys_name_an_image(tmp_path, key):
    np.save(tmp_path / "cls_labels.npy", {key: tags(CAT, COW)})
    found = read_tag_file(tmp_path / "cls_labels.npy", 20)
    assert found.keys() == {"2007_000032"} and found["2007_000032"].tolist() == tags(CAT, COW).tolist()


def test_a_data_set_takes_the_classes_it_uses(tmp_path):
    np.save(tmp_path / "cls_labels.npy", {"2007_000032": tags(CAT, 14).astype(np.uint8)})
    data = VOC(
        tmp_path, tags=str(tmp_path / "cls_labels.npy"), classes=["cow", "cat"], train_split="train", val_split="val"
    )
    assert data.tags("2007_000032").tolist() == [0, 1] and data.tags("2007_000032").dtype == np.float32
    assert data.tag_path("2007_000032") == tmp_path / "cls_labels.npy"
    with pytest.raises(DataError, match=r"cls_labels.npy: no tags of 2007_000033"):
        data.tags("2007_000033")


def test_files_of_older_numpy_are_read(tmp_path):
    table = np.array({2007000032: tags(CAT), 2007000033: tags(COW)}, object)
    with (tmp_path / "cls_labels.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(table))
        file.write(pickle.dumps(table, 2).replace(b"numpy._core.", b"numpy.core."))
    found = read_tag_file(tmp_path / "cls_labels.npy", 20)
    assert {key: value.nonzero()[0].tolist() for key, value in found.items()} == {
        "2007_000032": [CAT],
        "2007_000033": [COW],
    }


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_runs_nothing(tmp_path):
    np.save(tmp_path / "bad.npy", {"2007_000032": Runs(tmp_path / "made")})
    with pytest.raises(DataError, match=r"bad.npy: not read: it names posix.mkdir"):
        read_tag_file(tmp_path / "bad.npy", 20)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"2007_000032": np.ones(19)}, r"2007_000032: \(19,\) values, expected 20 zeros and ones"),
        ({"2007_000032": np.full(20, 0.5)}, "expected 20 zeros and ones"),
        (np.array([{}, {}]), "can only convert an array of size 1"),
        (np.ones(3), "an array of float64, expected a dictionary"),
    ],
)
def test_what_is_no_table_of_tags_is_named(tmp_path, content, said):
    np.save(tmp_path / "tags.npy", content)
    with pytest.raises(DataError, match=said):
        read_tag_file(tmp_path / "tags.npy", 20)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none.npy: No such file.*data.tags=FILE.npy"):
        read_tag_file(tmp_path / "none.npy", 20)
    np.save(tmp_path / "whole.npy", {"2007_000032": tags(CAT)})
    (tmp_path / "torn.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"torn.npy: not read"):
        read_tag_file(tmp_path / "torn.npy", 20)
    with pytest.raises(ConfigError, match=r"data.tags=boxes: expected masks, xml or FILE.npy"):
        VOC(tmp_path, tags="boxes", train_split="train", val_split="val")
