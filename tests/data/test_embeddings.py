"""Semantic vectors of classes: every file format, words that stand for classes, normalisation, controls, errors."""

import hashlib
import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segladder.data.sources.shapes import SHAPES_CLASSES, attribute_table
from segladder.data.sources.voc import VOC_CLASSES
from segladder.data.words.embeddings import Embeddings, class_embeddings, normalized
from segladder.data.words.word_vectors import read_rows
from segladder.errors import ConfigError, DataError

WORDS = ("background", "cat", "dog", "potted", "plant", "café", "dogs")
VECTORS = np.random.default_rng(0).normal(size=(len(WORDS), 5)).astype(np.float32)
ROWS = dict(zip(WORDS, VECTORS, strict=True))
KINDS = ("word2vec.txt", "word2vec.vec", "glove.txt", "plain.bin", "newlines.bin", "table.csv", "arrays.npz")


def write(path, words=WORDS, vectors=VECTORS):
    """The vectors in the format that the file's name says."""
    lines = [f"{word} {' '.join(map(repr, row.tolist()))}" for word, row in zip(words, vectors, strict=True)]
    header = f"{len(words)} {vectors.shape[1]}"
    if path.suffix in (".txt", ".vec"):
        path.write_text("\n".join([header] * (path.stem == "word2vec") + lines) + "\n")
    elif path.suffix == ".bin":
        end = b"\n" if path.stem == "newlines" else b""
        rows = zip(words, vectors, strict=True)
        path.write_bytes(f"{header}\n".encode() + b"".join(w.encode() + b" " + v.tobytes() + end for w, v in rows))
    elif path.suffix == ".csv":
        text = "\n".join(line.replace(" ", ",") for line in lines)
        path.write_text(f"# what it is\nclass,a,b,c,d,e\n{text}\n")
    else:
        np.savez(path, names=np.array(words), vectors=vectors)
    return path


def built(tmp_path, classes, *sources, **settings):
    return class_embeddings(
        {"sources": [str(s) for s in sources], "normalize": "none", "cache_dir": str(tmp_path / "cache"), **settings},
        classes,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_rows_that_were_written(tmp_path, kind):
    path = write(tmp_path / kind)
    found = built(tmp_path, ("background", "dog", "café"), path)
    np.testing.assert_array_equal(found.vectors, np.stack([ROWS[w] for w in ("background", "dog", "café")]))
    assert found.vectors.dtype == np.float32 and found.names == ("background", "dog", "café")
    assert found.sources[0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.sources[0]["words"] == {"background": "background", "dog": "dog", "café": "café"}


def test_tabs_are_blanks(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("cat\t1\t2\n\ndog\t3\t4\n")
    assert read_rows(path, {"dog"}, tmp_path).vectors["dog"].tolist() == [3, 4]


def test_only_wanted_rows_are_kept_and_the_first_of_equal_words(tmp_path):
    path = write(tmp_path / "glove.txt", (*WORDS, "dog"), np.vstack([VECTORS, 9 * VECTORS[:1]]))
    rows = read_rows(path, {"dog", "horse"}, tmp_path)
    assert list(rows.vectors) == ["dog"] and np.array_equal(rows.vectors["dog"], ROWS["dog"])


def test_words_with_spaces_are_not_mistaken_for_their_first_part(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("cat 1 2\ndog in a box 3 4\ndog 5 6\n")
    assert read_rows(path, {"dog"}, tmp_path).vectors["dog"].tolist() == [5, 6]


def test_a_name_of_several_words_is_their_mean(tmp_path):
    path = write(tmp_path / "glove.txt")
    found = built(tmp_path, ("background", "pottedplant"), path, words={"pottedplant": "potted plant"})
    np.testing.assert_allclose(found.vectors[1], (ROWS["potted"] + ROWS["plant"]) / 2)
    assert found.sources[0]["words"]["pottedplant"] == "potted plant"


@pytest.mark.parametrize("token, better", [("potted_plant", True), ("potted-plant", True), ("pottedplant", False)])
def test_one_token_for_several_words(tmp_path, token, better):
    """`potted_plant` is the thing itself; `pottedplant` is a rare misspelling and serves only without the parts."""
    whole = np.vstack([VECTORS, np.ones((1, 5), np.float32)])
    words = {"pottedplant": "potted plant"}
    found = built(
        tmp_path, ("background", "pottedplant"), write(tmp_path / "glove.txt", (*WORDS, token), whole), words=words
    )
    expected = np.ones(5) if better else (ROWS["potted"] + ROWS["plant"]) / 2
    np.testing.assert_allclose(found.vectors[1], expected, rtol=1e-6)
    alone = write(tmp_path / "word2vec.txt", ("background", token), whole[-2:])
    assert built(tmp_path, ("background", "pottedplant"), alone, words=words).vectors[1].tolist() == [1] * 5


def test_words_stand_for_classes(tmp_path):
    found = built(
        tmp_path, ("nothing", "hound"), write(tmp_path / "glove.txt"), words={"nothing": "background", "hound": "dog"}
    )
    np.testing.assert_array_equal(found.vectors, [ROWS["background"], ROWS["dog"]])


@pytest.mark.parametrize("kind", ["word2vec.txt", "plain.bin"])
def test_a_missing_word_is_named_with_close_ones(tmp_path, kind):
    with pytest.raises(DataError, match=r"no vector for dogge; close to it are dog, dogs; set embeddings.words.hound="):
        built(tmp_path, ("background", "hound"), write(tmp_path / kind), words={"hound": "dogge"})
    with pytest.raises(DataError, match="no vector for zebra; nothing is spelled like it"):
        built(tmp_path, ("background", "zebra"), tmp_path / kind)


def test_tables_may_lack_the_background_but_no_other_class(tmp_path):
    path = write(tmp_path / "table.csv", WORDS[1:3], VECTORS[1:3])
    found = built(tmp_path, ("background", "dog", "cat"), path)
    assert not found.vectors[0].any() and np.array_equal(found.vectors[1], ROWS["dog"])
    with pytest.raises(DataError, match="no vector for cow"):
        built(tmp_path, ("background", "cow"), path)
    with pytest.raises(DataError, match="no vector for background"):
        built(tmp_path, ("background", "dog"), write(tmp_path / "glove.txt", WORDS[1:3], VECTORS[1:3]))


def test_sources_are_normalised_each_then_joined(tmp_path):
    """A source of long vectors must not drown the other."""
    first, second = write(tmp_path / "glove.txt"), write(tmp_path / "table.csv", vectors=1000 * VECTORS[:, ::-1])
    found = built(tmp_path, ("background", "cat"), first, second, normalize="l2").vectors
    unit = ROWS["cat"] / np.linalg.norm(ROWS["cat"])
    np.testing.assert_allclose(found[1], np.concatenate([unit, unit[::-1]]) / np.sqrt(2), rtol=1e-5)
    raw = built(tmp_path, ("background", "cat"), first, second).vectors
    np.testing.assert_array_equal(raw[1], np.concatenate([ROWS["cat"], 1000 * ROWS["cat"][::-1]]))


@given(arrays(np.float64, (3, 4), elements=st.floats(-1e3, 1e3).map(lambda x: round(x, 3))))
def test_normalised_rows_have_unit_size_and_keep_their_direction(vectors):
    vectors[1] = 0
    for how, size in (("l2", lambda v: np.sqrt((v**2).sum(1))), ("max", lambda v: np.abs(v).max(1))):
        result = normalized(vectors, how)
        np.testing.assert_allclose(size(result), vectors.any(1).astype(float), atol=1e-12)
        np.testing.assert_allclose(result * size(vectors)[:, None], vectors, atol=1e-9)


def test_random_control_has_the_same_form_and_knows_nothing(tmp_path):
    path = write(tmp_path / "table.csv", WORDS[1:], VECTORS[1:])
    classes = ("background", "cat", "dog")
    first, again, other = (built(tmp_path, classes, path, control="random", seed=seed).vectors for seed in (3, 3, 4))
    assert first.shape == (3, 5) and np.array_equal(first, again) and not np.array_equal(first, other)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), [0, 1, 1], rtol=1e-6)
    changed = write(tmp_path / "table.csv", WORDS[1:], -3 * VECTORS[1:])
    assert np.array_equal(built(tmp_path, classes, changed, control="random", seed=3).vectors, first)


def test_one_hot_control_sets_all_classes_equally_far_apart(tmp_path):
    found = built(tmp_path, WORDS[:3], write(tmp_path / "glove.txt"), control="one_hot").vectors
    assert np.array_equal(found, np.eye(3))


def test_saved_embeddings_come_back_and_serve_as_a_source(tmp_path):
    found = built(tmp_path, ("background", "cat", "dog"), write(tmp_path / "glove.txt"))
    found.save(tmp_path / "deep" / "kept.npz")
    back = Embeddings.load(tmp_path / "deep" / "kept.npz")
    assert (back.names, back.sources) == (found.names, found.sources)
    assert np.array_equal(back.vectors, found.vectors)
    again = built(tmp_path, ("background", "dog"), tmp_path / "deep" / "kept.npz")
    assert np.array_equal(again.vectors, found.vectors[[0, 2]])
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["kept.npz"]


def test_rows_of_large_files_are_kept_until_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("segladder.data.words.word_vectors.CACHED", 0)
    path, kept = write(tmp_path / "glove.txt"), tmp_path / "kept"
    rows = read_rows(path, {"dog", "cat"}, kept)
    monkeypatch.setattr("segladder.data.words.word_vectors.FORMATS", {".txt": (None, None)})  # a second look would fail
    again = read_rows(path, {"cat", "dog"}, kept)
    assert again.sha256 == rows.sha256 and np.array_equal(again.vectors["dog"], ROWS["dog"])
    monkeypatch.undo()
    write(path, vectors=np.hstack([VECTORS, VECTORS]))
    assert len(read_rows(path, {"cat", "dog"}, kept).vectors["dog"]) == 10


@pytest.mark.parametrize("kind", ["word2vec.txt", "plain.bin", "arrays.npz", "table.csv"])
def test_torn_files_are_named(tmp_path, kind):
    path = write(tmp_path / kind)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=path.name):
        built(tmp_path, ("background", "dogs"), path)


def test_a_pickle_in_disguise_is_not_opened(tmp_path):
    np.savez(tmp_path / "arrays.npz", names=np.array(["cat", None], object), vectors=np.ones((2, 3)))
    with pytest.raises(DataError, match=r"arrays\.npz"):
        built(tmp_path, ("background", "cat"), tmp_path / "arrays.npz")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    path = write(tmp_path / "table.csv", vectors=np.where(np.arange(len(WORDS))[:, None] == 1, np.nan, VECTORS))
    with pytest.raises(DataError, match="the vector of cat is not finite"):
        built(tmp_path, ("background", "cat"), path)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"sources": []}, "embeddings.sources: none given, expected some of shapes_attributes, voc_attributes, files"),
        ({"sources": ["vectors.pkl"]}, "vectors.pkl: expected a file ending in .txt, .vec, .bin, .csv, .npz"),
        ({"sources": ["shapes_attributes"], "word": {}}, "embeddings: .*unexpected keyword argument 'word'"),
        ({"sources": ["clip:ViT-B-32/openai"]}, r"needs pip install 'segladder\[text\]'"),
    ],
)
def test_choices_that_do_not_exist_are_named(settings, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ConfigError, match=message):
        class_embeddings(settings, ("background", "cat"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.vec: no such file of word vectors; check embeddings\.sources"):
        built(tmp_path, ("background", "cat"), tmp_path / "none.vec")


def test_shapes_are_described_by_their_attributes():
    classes = ("background", "star_dotted", "disc_solid")
    found = class_embeddings({"sources": ["shapes_attributes"]}, classes)
    table = attribute_table()
    rows = [SHAPES_CLASSES.index(name) - 1 for name in classes[1:]]
    assert not found.vectors[0].any() and np.allclose(found.vectors[1:], table[rows])
    with pytest.raises(DataError, match="shapes_attributes does not describe the class cat"):
        class_embeddings({"sources": ["shapes_attributes"]}, ("background", "cat"))


def test_voc_attributes_tell_all_classes_apart_and_put_kin_together():
    found = class_embeddings({"sources": ["voc_attributes"]}, VOC_CLASSES).vectors[1:]
    cosines = found @ found.T - 2 * np.eye(20)
    assert found.shape == (20, 58) and cosines.max() < 0.98
    nearest = {name: VOC_CLASSES[1:][k] for name, k in zip(VOC_CLASSES[1:], cosines.argmax(1), strict=True)}
    assert (nearest["cat"], nearest["cow"], nearest["bus"], nearest["sofa"]) == ("dog", "horse", "train", "chair")


def test_clip_reads_a_prompt_per_class_and_is_flagged(monkeypatch):
    seen = []

    class Model:
        def eval(self):
            return self

        def encode_text(self, tokens):
            return tokens

    fake = types.ModuleType("open_clip")
    fake.create_model = lambda name, pretrained: seen.append((name, pretrained)) or Model()
    fake.get_tokenizer = lambda name: lambda texts: seen.append(texts) or torch.eye(len(texts), 4)
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    settings = {"sources": ["clip:ViT-B-32/openai"], "words": {"tvmonitor": "television set"}}
    found = class_embeddings(settings, ("background", "tvmonitor"))
    assert seen == [("ViT-B-32", "openai"), ["a photo of a background", "a photo of a television set"]]
    assert np.array_equal(found.vectors, np.eye(2, 4)) and found.sources[0]["strict"] is False


@pytest.mark.parametrize("source", ["clip:local-dir:/x", "clip:hf-hub:x/y", "clip:ViT-B-32/{}/weights.pt"])
def test_clip_opens_no_file_folder_or_repository(monkeypatch, tmp_path, source):
    (tmp_path / "weights.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "open_clip", types.ModuleType("open_clip"))
    with pytest.raises(ConfigError, match="expected names that open_clip knows"):
        class_embeddings({"sources": [source.format(tmp_path)]}, ("background", "cat"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"\0\xff" * 300, b"\n\n", b"# nothing\n", b"name\ncat\ndog\n", b"PK\x03\x04"])
def test_a_file_of_vectors_that_holds_none_is_named(tmp_path, kind, content):
    (tmp_path / kind).write_bytes(content)
    with pytest.raises(DataError, match=rf"{kind}: "):
        built(tmp_path, ("background", "cat", "dog"), tmp_path / kind)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", bytes(100)])
def test_saved_vectors_that_are_damaged_are_named(tmp_path, content):
    (tmp_path / "embeddings.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"embeddings\.npz: no saved embeddings"):
        Embeddings.load(tmp_path / "embeddings.npz")


@pytest.mark.parametrize("sources", ["3", "[" * 100_000, "", "{", '"a"', "[1]"])
def test_saved_vectors_with_foreign_sources_are_named(tmp_path, sources):
    path = tmp_path / "embeddings.npz"
    np.savez(path, names=np.array(["background", "cat"]), vectors=np.zeros((2, 3)), sources=np.str_(sources))
    with pytest.raises(DataError, match=r"embeddings\.npz: no saved embeddings"):
        Embeddings.load(path)


def test_an_encrypted_archive_holds_no_saved_vectors(tmp_path):
    path = tmp_path / "embeddings.npz"
    Embeddings(("background", "cat"), np.zeros((2, 3), np.float32), ()).save(path)
    held = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        held[held.index(signature) + flags] |= 1
    path.write_bytes(held)
    with pytest.raises(DataError, match=r"embeddings\.npz: no saved embeddings"):
        Embeddings.load(path)


@pytest.mark.parametrize("width", [0, -1])
def test_a_binary_file_whose_vectors_have_no_numbers_ends(tmp_path, width):
    (tmp_path / "plain.bin").write_bytes(b"1000000000000 %d\ndog \0\0\0\0" % width)
    with pytest.raises(DataError, match=rf"plain\.bin: damaged .*vectors of {width} numbers"):
        read_rows(tmp_path / "plain.bin", {"dog"}, tmp_path)


def test_a_damaged_cache_of_rows_is_written_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("segladder.data.words.word_vectors.CACHED", 1)
    path = write(tmp_path / "plain.bin")
    whole = read_rows(path, {"dog"}, tmp_path / "cache")
    (cached,) = (tmp_path / "cache").iterdir()
    kept = cached.read_bytes()
    cached.write_bytes(kept[: len(kept) // 2])
    assert read_rows(path, {"dog"}, tmp_path / "cache").vectors["dog"].tolist() == whole.vectors["dog"].tolist()
    assert cached.read_bytes() == kept
