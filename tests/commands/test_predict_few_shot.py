"""Few-shot prediction on a user's own images and videos: answers, pictures, skipping, wrong inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dummy_data import picture, save_image, save_mask, write_folder
from hydra import compose, initialize_config_module
from PIL import Image

from segladder.data.sources.decoding import read_image, read_mask
from segladder.data.sources.folder import Folder
from segladder.data.sources.support import Support
from segladder.data.training.episodes import Episode
from segladder.methods.few_shot.base import PREDICTION_AGGREGATES, STATE_AGGREGATES
from segladder.protocols.episode_runner import EpisodeRunner, InputSize
from segladder.protocols.inference import Views
from segladder.report.pictures.few_shot_panel import few_shot_panel, heat_map, marked, montage
from segladder.report.pictures.panels import GAP
from segladder.runs import build
from segladder.runs.few_shot_prediction import Segmenter
from segladder.runs.loading import load_run
from segladder.runs.pictures import write_preview

SIZES = {"wide": (64, 97), "small": (50, 40)}  # of images to segment
NATIVE = Views()


@pytest.fixture(scope="module")
def run_folder(segladder, tmp_path_factory):
    """A training-free few-shot run, and a dense one beside it."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["data.train_size=160", "data.val_size=60", "data.size=64", "backbone.width=8", "loader.workers=0"]
    small += ["logger=none", "trainer.progress=false", "trainer.panels=0", "trainer.steps=1"]
    episodes = ["protocol.min_object=none", "protocol.episodes=5", "protocol.seeds=[0]", "protocol.beside=0"]
    few_shot = ["method=prototype", "protocol=strict", *episodes, f"hydra.run.dir={folder / 'few_shot'}"]
    assert segladder("train", *small, *few_shot) == 0
    assert segladder("train", *small, f"hydra.run.dir={folder / 'dense'}") == 0
    return folder


@pytest.fixture
def inputs(tmp_path):
    """Two images to segment, and a support of each kind of mask."""
    for seed, (name, size) in enumerate(SIZES.items()):
        save_image(tmp_path / "images" / f"{name}.png", picture(seed, size)[0])
    for seed, (name, size, value) in enumerate((("a", (64, 80), 255), ("b", (70, 50), 1))):
        image, mask = picture(10 + seed, size, values=(1,))
        save_image(tmp_path / "support" / "images" / f"{name}.png", image)
        save_mask(tmp_path / "support" / "masks" / f"{name}.png", (mask == 1) * np.uint8(value), palette=False)
    return tmp_path


def tiny_method(name: str = "prototype"):
    with initialize_config_module("segladder.conf", version_base="1.3"):
        return build.method(compose("train", [f"method={name}", "backbone.width=8"]), 3).eval()


def expected_probability(method, image: np.ndarray, supports: list[Support]) -> np.ndarray:
    """P(class) (H, W) by the method's own `predict`, for supports of one size."""
    pixels = [torch.from_numpy(a).permute(2, 0, 1) for a in (image, *(s.image for s in supports))]
    masks = torch.stack([torch.from_numpy(s.mask) for s in supports])
    with torch.inference_mode():
        return method.predict(pixels[0][None], torch.stack(pixels[1:])[None], masks[None]).softmax(1)[0, 1].numpy()


def test_each_image_gets_mask_overlay_and_panel(segladder, run_folder, inputs, capsys):
    out = inputs / "out"
    words = [f"run={run_folder / 'few_shot'}", f"support={inputs / 'support'}", f"images={inputs / 'images'}"]
    words += [f"out={out}", "progress=false"]
    (inputs / "support" / "images" / "b.png").unlink()
    assert segladder("predict", *words) == 0
    assert "2 images segmented, 0 already there, 0 unreadable" in capsys.readouterr().out
    _, _, method = load_run(run_folder / "few_shot")
    mask = (read_mask(inputs / "support" / "masks" / "a.png") > 0).astype(np.uint8)
    support = Support("a", read_image(inputs / "support" / "images" / "a.png"), mask, 255)
    for name in SIZES:
        image = read_image(inputs / "images" / f"{name}.png")
        probability = expected_probability(method, image, [support])
        prediction = read_mask(out / "masks" / f"{name}.png")
        clear = abs(probability - 0.5) > 1e-4
        assert np.array_equal(prediction[clear], probability[clear] > 0.5)
        shown = read_image(out / "overlays" / f"{name}.jpg").astype(int)
        same, other = (np.abs(shown - image)[prediction == k].mean() for k in (0, 1))
        assert other > 2 * same
        assert read_image(out / "panels" / f"{name}.png").shape[1] > 4 * 200
    (out / "overlays" / "small.jpg").unlink()
    (inputs / "images" / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    assert segladder("predict", *words) == 1
    captured = capsys.readouterr()
    assert "1 images segmented, 1 already there, 1 unreadable" in captured.out
    assert "broken.jpg: damaged" in captured.err


@pytest.mark.parametrize("aggregate", [*STATE_AGGREGATES, *PREDICTION_AGGREGATES])
def test_supports_of_several_sizes_weigh_as_in_episodes(tmp_path, aggregate):
    source, method = Folder(write_folder(tmp_path)), tiny_method()
    query, *supports = sorted(path for split in ("train", "val") for path in source.split(split))
    runner = EpisodeRunner(method, source, InputSize("native", None), aggregate, 1)
    own = [Support(i, source.image(i), (source.mask(i) == 1).astype(np.uint8), 1) for i in supports]
    with torch.inference_mode():
        (answer,) = runner.answers([Episode(query, 1, tuple(supports), 0)])
    prediction, (probability,) = Segmenter(method, own, aggregate, NATIVE).segment(source.image(query))
    np.testing.assert_allclose(probability, answer.probability, atol=1e-5)
    assert (prediction == answer.prediction).mean() > 0.999


@pytest.mark.parametrize("name", ["co_fcn", "sg_one"])
def test_methods_that_read_pixels_or_features_answer_alike(name):
    (image, _), (support_image, mask) = picture(0, (64, 80)), picture(1, (64, 80), values=(1,))
    support = Support("s", support_image, (mask == 1).astype(np.uint8), 1)
    method = tiny_method(name)
    _, (probability,) = Segmenter(method, [support], "mean", NATIVE).segment(image)
    np.testing.assert_allclose(probability, expected_probability(method, image, [support]), atol=1e-5)


def test_views_are_averaged():
    (image, _), (support_image, mask) = picture(0, (64, 80)), picture(1, (64, 80), values=(1,))
    support, method = Support("s", support_image, (mask == 1).astype(np.uint8), 1), tiny_method()
    plain = Segmenter(method, [support], "mean", NATIVE)
    flipped = Segmenter(method, [support], "mean", NATIVE._replace(flip=True))
    expected = (plain.segment(image)[1] + plain.segment(image[:, ::-1].copy())[1][..., ::-1]) / 2
    np.testing.assert_allclose(flipped.segment(image)[1], expected, atol=1e-5)
    half = Segmenter(method, [support], "mean", NATIVE._replace(input_size=40))
    assert half.segment(image)[1].shape == (1, 64, 80)


def test_a_video_follows_its_first_mask(segladder, run_folder, tmp_path, capsys):
    for frame in range(4):
        image, mask = picture(0, (64, 80), values=(1,))
        save_image(tmp_path / "frames" / f"f{frame}.png", np.roll(image, 3 * frame, 1))
    first = np.where(mask == 1, 7, 0).astype(np.uint8)
    save_mask(tmp_path / "first.png", first)
    (tmp_path / "frames" / "f2.png").write_bytes(b"no image")
    words = [f"run={run_folder / 'few_shot'}", f"video={tmp_path / 'frames'}", f"mask={tmp_path / 'first.png'}"]
    assert segladder("predict", *words, f"out={tmp_path / 'out'}", "progress=false") == 1
    assert "3 images segmented, 0 already there, 1 unreadable" in capsys.readouterr().out
    assert np.array_equal(read_mask(tmp_path / "out" / "masks" / "f0.png"), first > 0)
    _, _, method = load_run(run_folder / "few_shot")
    support = Support("f0", read_image(tmp_path / "frames" / "f0.png"), (first > 0).astype(np.uint8), 7)
    probability = expected_probability(method, read_image(tmp_path / "frames" / "f3.png"), [support])
    clear = abs(probability - 0.5) > 1e-4
    assert np.array_equal(read_mask(tmp_path / "out" / "masks" / "f3.png")[clear], probability[clear] > 0.5)
    with Image.open(tmp_path / "out" / "preview.gif") as preview:
        assert (preview.n_frames, preview.size) == (3, (80, 64))


def test_previews_of_long_videos_keep_their_time(tmp_path):
    shades = np.linspace(0, 255, 130).astype(np.uint8)
    paths = [tmp_path / f"{i:03d}.jpg" for i in range(130)]
    for path, shade in zip(paths, shades, strict=True):
        save_image(path, np.full((40, 640, 3), shade, np.uint8))
    write_preview(tmp_path / "preview.gif", paths)
    with Image.open(tmp_path / "preview.gif") as preview:
        assert (preview.n_frames, preview.size) == (100, (320, 20))
        ends = []
        for number in (0, 99):
            preview.seek(number)
            ends.append(int(np.array(preview.convert("L")).mean()))
        assert abs(preview.info["duration"] - 130) <= 10  # GIF counts hundredths of a second
    assert ends == pytest.approx([0, 255], abs=3)


@pytest.mark.parametrize(
    ("kind", "given", "line"),
    [
        (
            "few_shot",
            ["images"],
            "few_shot is few_shot: expected support=DIR images=DIR or video=DIR mask=FILE, got im",
        ),
        ("few_shot", [], "expected support=DIR images=DIR or video=DIR mask=FILE, got none of them"),
        ("few_shot", ["video"], "got video="),
        ("few_shot", ["support", "images", "video", "mask"], "got support="),
        ("dense", ["support", "images"], "dense is full: expected images=DIR, got support="),
        ("dense", ["images", "support_class"], "support_class=12: "),
        ("few_shot", ["images=nowhere", "support"], "images=nowhere: no such folder"),
        ("few_shot", ["images", "support=nowhere"], "support=nowhere: no pair there"),
    ],
)
def test_wrong_inputs_end_in_one_line(segladder, run_folder, inputs, capsys, kind, given, line):
    values = {"video": inputs / "images", "mask": "x.png", "support_class": 12}
    words = [word if "=" in word else f"{word}={values.get(word, inputs / word)}" for word in given]
    assert segladder("predict", f"run={run_folder / kind}", *words, f"out={inputs / 'out'}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and line in error, error
    assert not (inputs / "out").exists()


def test_the_class_of_a_mask_with_several_is_chosen(segladder, run_folder, inputs, capsys):
    image, mask = picture(12, values=(3, 12))
    save_image(inputs / "support" / "images" / "b.png", image)
    save_mask(inputs / "support" / "masks" / "b.png", mask)
    (inputs / "support" / "images" / "a.png").unlink()
    words = [f"run={run_folder / 'few_shot'}", f"support={inputs / 'support'}", f"images={inputs / 'images'}"]
    words += ["progress=false"]
    assert segladder("predict", *words, f"out={inputs / 'all'}") == 0
    assert segladder("predict", *words, f"out={inputs / 'out'}", "support_class=12") == 0
    values = [
        {v for m in (inputs / out / "masks").iterdir() for v in np.unique(read_mask(m))} for out in ("all", "out")
    ]
    assert values[0] <= {0, 3, 12} and values[1] <= {0, 1}
    video = [f"run={run_folder / 'few_shot'}", f"video={inputs / 'support' / 'images'}", f"out={inputs / 'video'}"]
    assert segladder("predict", *video, f"mask={inputs / 'support' / 'masks' / 'b.png'}") == 2
    assert "b.png: holds the classes 3, 12, expected one" in capsys.readouterr().err


def test_a_panel_shows_support_image_probability_and_prediction():
    image = np.random.default_rng(0).integers(0, 200, (240, 300, 3), np.uint8)
    probability = np.tile(np.linspace(0, 1, 300, dtype=np.float32), (240, 1))
    prediction = (probability > 0.5).astype(np.uint8)
    sheet = few_shot_panel([(image, prediction)], image, probability[None], prediction, "a title")
    top = next(y for y in range(60) if np.array_equal(sheet[y : y + 240, 306 + GAP : 606 + GAP], image))
    support, _, heat, overlay = (sheet[top : top + 240, GAP + 306 * i : GAP + 306 * i + 300] for i in range(4))
    assert np.array_equal(support, marked(image, prediction, (300, 240)))
    inside = np.s_[3:-3, 5:140], np.s_[3:-3, 160:-5]
    assert np.array_equal(support[inside[0]], image[inside[0]] // 2) and np.array_equal(
        support[inside[1]], image[inside[1]]
    )
    assert all(np.array_equal(heat[where], heat_map(probability)[where]) for where in inside)
    assert np.array_equal(overlay[inside[0]], image[inside[0]])
    assert (overlay[inside[1]][..., 0] > image[inside[1]][..., 0] // 2 + 50).all()
    assert (overlay[100, 145:155] == 255).all(1).any() and (heat[100, 145:155] == 255).all(1).any()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_all_supports_are_whole_in_a_montage(count):
    sizes = ((60, 90), (90, 60), (30, 30), (200, 40), (10, 80))[:count]
    everything = [
        (np.full((*size, 3), 40 * (i + 1), np.uint8), np.ones(size, np.uint8)) for i, size in enumerate(sizes)
    ]
    sheet = montage(everything, (256, 200))
    for i, (height, width) in enumerate(sizes):
        rows, columns = np.nonzero((sheet == 40 * (i + 1)).all(2))
        h, w = np.ptp(rows) + 3, np.ptp(columns) + 3  # with the border
        assert h / w == pytest.approx(height / width, rel=0.2)
