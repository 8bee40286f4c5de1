"""The Python door answers as the command line does, and says what is wrong in the same words."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import small_methods
import torch
from dummy_data import picture, save_image, save_mask, write_folder
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import segladder as door
from segladder import cli
from segladder.configuration import conf_folder
from segladder.data.sources.decoding import read_image, read_mask
from segladder.door.creating import configuration
from segladder.door.graph import write_graph
from segladder.door.images import pixels_of
from segladder.door.packing import pack
from segladder.errors import ConfigError, DataError
from segladder.guide import keys_of
from segladder.protocols.inference import class_maps
from segladder.report.record import Record
from segladder.runs import build
from segladder.runs.composition import composing
from segladder.runs.loading import chosen_device

ROOT = Path(__file__).parents[2]
SMALL = {"data.train_size": 160, "data.val_size": 60, "data.size": 64, "loader.workers": 0, "backbone.width": 8}
QUICK = ["logger=none", "trainer.progress=false", "trainer.panels=0", "trainer.steps=1", "protocol.bootstrap=20"]
EPISODES = ["protocol.min_object=none", "protocol.episodes=5", "protocol.seeds=[0]", "protocol.beside=0"]
FLOATS = "float32 in 0..1 (multiply by 255 and round to uint8), expected a file, a PIL image or raw pixels uint8 (H, W,"


@pytest.fixture(scope="module")
def runs(segladder, tmp_path_factory):
    """A dense run and a few-shot run without training."""
    folder = tmp_path_factory.mktemp("runs")
    small = [*(f"{key}={value}" for key, value in SMALL.items()), *QUICK]
    assert segladder("train", *small, f"hydra.run.dir={folder / 'dense'}") == 0
    few_shot = ["method=prototype", "protocol=strict", *EPISODES, f"hydra.run.dir={folder / 'few_shot'}"]
    assert segladder("train", *small, *few_shot) == 0
    return folder


@pytest.fixture
def photos(tmp_path):
    """Two images of unequal sizes, and supports of two classes, one mask with both."""
    for seed, (name, size) in enumerate({"a": (64, 97), "b": (50, 40)}.items()):
        save_image(tmp_path / "photos" / f"{name}.png", picture(seed, size)[0])
    for seed, (name, values) in enumerate({"both": (3, 12), "one": (12,)}.items()):
        image, mask = picture(20 + seed, (64, 80), values)
        save_image(tmp_path / "support" / "images" / f"{name}.png", image)
        save_mask(tmp_path / "support" / "masks" / f"{name}.png", mask)
    return tmp_path


@pytest.fixture
def data_folder(monkeypatch, shapes_root):
    """Where the small renderings lie, for what runs in this process."""
    monkeypatch.setenv("SEGLADDER_DATA", str(shapes_root.parent))


def written(folder):
    """What `segladder predict probabilities=true` wrote: masks and probabilities, by name."""
    return {
        path.stem: (read_mask(path), np.load(folder / "probabilities" / f"{path.stem}.npy"))
        for path in sorted((folder / "masks").glob("*.png"))
    }


def test_importing_it_imports_nothing_heavy():
    script = "import sys, segladder; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not any(f"'{heavy}'" in modules for heavy in ("torch", "hydra", "numpy", "pydantic", "rich"))


@pytest.mark.parametrize("device", ["gpu", "cuda:-1", "cuda:x"])
def test_a_device_that_is_none_is_told_in_one_line(device):
    with pytest.raises(ConfigError, match=f"^device={device}: expected cpu, cuda or cuda:N$"):
        chosen_device(device)


def test_a_dense_model_answers_as_the_command_line_does(segladder, runs, photos):
    words = [f"run={runs / 'dense'}", f"images={photos / 'photos'}", "progress=false"]
    assert segladder("predict", *words, f"out={photos / 'out'}") == 0
    assert not (photos / "out" / "probabilities").exists()
    assert segladder("predict", *words, f"out={photos / 'out'}", "probabilities=true") == 0  # done, but for these
    model = door.load(runs / "dense", "cpu")
    paths = sorted((photos / "photos").glob("*.png"))
    found = model.predict(paths)
    assert model.classes == found[0].classes and len(model.classes) == 21 and found[0].values == tuple(range(21))
    for path, one in zip(paths, found, strict=True):
        mask, probabilities = written(photos / "out")[path.stem]
        assert np.array_equal(one.mask, mask) and np.array_equal(one.probabilities.argmax(0), mask)
        assert np.array_equal(one.probabilities.astype(np.float16), probabilities)
        np.testing.assert_allclose(one.probabilities.sum(0), 1, atol=1e-5)
        pixels = read_image(path)
        for form in (str(path), Image.open(path), pixels, torch.from_numpy(pixels).numpy()[:, ::-1][:, ::-1]):
            assert np.array_equal(model.predict(form).mask, mask)
        shown = np.asarray(one.overlay())
        assert np.array_equal(shown[mask == 0], pixels[mask == 0])
        mixed = (pixels[mask > 0].astype(int) + model.palette[mask[mask > 0]]) / 2
        assert abs(shown[mask > 0] - mixed).max() <= 0.5
        assert np.array_equal(read_mask(one.save(photos / "saved.png")), mask)
    batch = np.stack([read_image(paths[0])] * 3)
    assert [np.array_equal(each.mask, found[0].mask) for each in model.predict(batch)] == [True] * 3
    turned = model.predict(paths[0], flip=True, scales=[0.5, 1.0])
    expected = class_maps(
        model.method.predict, torch.from_numpy(batch[:1]).permute(0, 3, 1, 2), (64, 97), (0.5, 1), True
    )
    assert np.array_equal(turned.mask, expected[0].numpy())
    np.testing.assert_allclose(turned.probabilities.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_pictures_are_refused_as_their_files_are(mode):
    with pytest.raises(DataError, match=f"image: mode {mode}, expected 8 bits"):
        pixels_of(Image.new(mode, (8, 8)))


def test_a_few_shot_model_finds_all_classes_at_once(segladder, runs, photos):
    words = [f"run={runs / 'few_shot'}", f"images={photos / 'photos'}", f"support={photos / 'support'}"]
    words += ["progress=false", "probabilities=true"]
    assert segladder("predict", *words, f"out={photos / 'all'}") == 0
    for value in (3, 12):
        own = photos / f"support{value}"
        for path in sorted((photos / "support" / "masks").glob("*.png")):
            if (read_mask(path) == value).any():
                save_mask(own / "masks" / path.name, read_mask(path))
                save_image(own / "images" / path.name, read_image(photos / "support" / "images" / path.name))
        words[2] = f"support={own}"
        assert segladder("predict", *words, f"out={photos / str(value)}", f"support_class={value}") == 0
    model = door.load(runs / "few_shot", "cpu")
    supports = [
        (photos / "support" / "images" / f"{n}.png", photos / "support" / "masks" / f"{n}.png") for n in ("both", "one")
    ]
    for name, (mask, probabilities) in written(photos / "all").items():
        alone = [written(photos / str(value))[name] for value in (3, 12)]
        assert np.array_equal(probabilities, np.concatenate([each for _, each in alone]))
        first, second = (each[0].astype(np.float32) for _, each in alone)
        clear = (abs(first - second) > 1e-2) & (abs(np.maximum(first, second) - 0.5) > 1e-2)
        expected = np.where(np.maximum(first, second) <= 0.5, 0, np.where(first > second, 3, 12))
        assert np.array_equal(mask[clear], expected[clear])
        answer = model.predict(photos / "photos" / f"{name}.png", supports=supports)
        assert np.array_equal(answer.mask, mask) and answer.values == (0, 3, 12)
        assert answer.classes == ("background", "class 3", "class 12")
        assert np.array_equal(answer.probabilities[1:].astype(np.float16), probabilities)
    one = model.predict(
        photos / "photos" / "a.png", supports=[(Image.open(supports[1][0]), read_mask(supports[1][1]) == 12)]
    )
    assert one.values == (0, 1) and one.classes == ("background", "class")
    np.testing.assert_allclose(one.probabilities.sum(0), 1, atol=1e-6)


def refused():
    """Something that is no image, or no support, and what is said of it."""
    image = picture(0)[0]
    yield "dense", image.astype(np.float32) / 255, {}, f"image: {FLOATS}"
    yield "dense", [image, image / 255.0], {}, r"images[1]: float64 in 0..1"
    yield "dense", image.astype(np.int64), {}, "image: int64 (64, 80, 3), expected a file"
    yield "dense", image[..., 0], {}, "image: uint8 (64, 80), expected a file"
    yield "dense", None, {}, "image: NoneType, expected a file"
    yield "dense", "nowhere.jpg", {}, "nowhere.jpg: no such file, expected an image"
    yield "dense", image, {"supports": []}, "method=fcn8s is full: expected no supports, it knows its classes"
    yield "dense", image, {"flips": True}, "flips: no such key (did you mean flip?)"
    yield "dense", image, {"scales": [0]}, "scales=[0]: expected a list, each a number above 0"
    yield "few_shot", image, {}, "method=prototype is few_shot: expected supports=[(image, mask), ...], got none"
    yield "few_shot", image, {"supports": []}, "supports: empty, expected pairs"
    yield "few_shot", image, {"supports": [image]}, "supports[0]: ndarray, expected a pair"
    yield "few_shot", image, {"supports": [(image, image)]}, "supports[0] mask: uint8 (64, 80, 3), expected a PNG"
    yield "few_shot", image, {"supports": [(image, image[:9, :, 0])]}, "supports[0] mask: size 80x9, expected 80x64"
    yield "few_shot", image, {"supports": [(image, 0 * image[..., 0])]}, "supports[0] mask: empty mask"


@pytest.mark.parametrize(("run", "image", "more", "said"), list(refused()), ids=lambda value: str(value)[:20])
def test_what_is_no_raw_pixel_ends_in_one_line(runs, run, image, more, said):
    with pytest.raises((ConfigError, DataError), match=f"^{re.escape(said)}") as caught:
        door.load(runs / run, "cpu").predict(image, **more)
    assert "\n" not in str(caught.value)


def test_no_run_says_what_the_command_line_says(segladder, capsys):
    with pytest.raises(ConfigError) as caught:
        door.load("nowhere")
    assert segladder("predict", "run=nowhere", "images=x", "out=y") == 2
    assert capsys.readouterr().err == f"segladder: {caught.value}\n"


@pytest.mark.parametrize(
    ("settings", "word", "said"),
    [
        ({"method": "fcn8"}, "method=fcn8", "method=fcn8: no such choice (did you mean fcn8s?)"),
        ({"trainer": {"epoch": 3}}, "trainer.epoch=3", "trainer.epoch: no such key in trainer (did you mean epochs?)"),
        ({"seed": "x"}, "seed=x", "seed=x: expected a whole number at least 0"),
        ({"labels": "tags"}, "labels=tags", "labels=tags: method=fcn8s does not learn from them"),
    ],
)
def test_wrong_settings_say_what_the_command_line_says(segladder, capsys, settings, word, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        door.create(**settings)
    assert segladder("train", word) == 2
    assert capsys.readouterr().err == f"segladder: {caught.value}\n"


def test_a_method_that_does_not_learn_by_itself_wants_an_optimizer():
    learns = {"method": "prototype", "method.trains": True, "+method.schedule.name": "constant"}
    with pytest.raises(
        ConfigError, match=r"^method\.trains=true: method=prototype does not learn by itself; .* give \+method"
    ):
        door.create(**learns)
    rates = {"name": "sgd", "lr": 0.1, "weight_decay": 0.0}
    method = door.create(**learns, **{f"+method.optimizer.{key}": value for key, value in rates.items()})
    assert method.trains and all(parameter.requires_grad for parameter in method.backbone.parameters())


def test_settings_arrive_as_they_are(tmp_path):
    names = ["a'b", "c\\", "d\\'e, [f]: {g}"]
    config = configuration(
        data={"name": "x", "classes": None}, protocol={"dataset": "x"}, tag="it's \\", loader={"without": names}
    )
    assert (config.tag, list(config.loader.without), config.data.classes) == ("it's \\", names, None)


def test_composing_leaves_the_hydra_of_others_alone():
    GlobalHydra.instance().hydra = theirs = object()
    try:
        configuration()
        assert GlobalHydra.instance().hydra is theirs
    finally:
        GlobalHydra.instance().clear()


METHODS = {
    "fcn8s": {},
    "cam": {"protocol": "cam_seeds"},
    "gain": {"protocol": "cam_seeds"},
    "spnet": {},
}
METHODS["sg_one"] = {"protocol.min_object": "none"}


@pytest.mark.parametrize("name", METHODS)
def test_a_trainer_of_ones_own(data_folder, tmp_path, name):
    settings = {**SMALL, **METHODS[name], "loader.batch_size": 4}
    module, data = door.create(name, **settings), door.data("shapes", method=name, **settings)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        limit_val_batches=2,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    assert any(not torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert np.isfinite(float(trainer.callback_metrics["val/loss"]))
    again = [[item.tolist() for item in batch["image"].flatten(1).sum(1)] for batch in list(data.val_dataloader())[:3]]
    assert again == [[i.tolist() for i in b["image"].flatten(1).sum(1)] for b in list(data.val_dataloader())[:3]]


def test_validation_reads_whole_images_of_ones_own_folder(tmp_path):
    root = write_folder(tmp_path / "mine", sizes=((64, 80), (64, 80), (90, 64), (64, 80), (70, 66)), lists=True)
    (root / "splits" / "val.txt").write_text((root / "splits" / "train.txt").read_text())
    (root / "splits" / "train.txt").write_text("site0/item 4\n")
    data = door.data("folder", root=root, loader={"workers": 0, "batch_size": 2})
    assert data.classes == ("background", "road", "tree")
    batches = list(data.val_dataloader())
    assert sorted(tuple(batch["image"].shape) for batch in batches) == [(1, 3, 64, 80), (1, 3, 90, 64), (2, 3, 64, 80)]
    for batch in batches:
        for image_id, image, mask in zip(batch["id"], batch["image"], batch["mask"], strict=True):
            (path,) = (root / "images").glob(f"{image_id}.*")
            assert np.array_equal(image.permute(1, 2, 0), read_image(path))
            assert np.array_equal(mask, read_mask(root / "masks" / f"{image_id}.png"))
    model = door.Model(door.create("fcn8s", data.classes, **{"backbone.width": 8}), data.classes)
    assert model.predict(root / "images" / "site0" / "item 0.jpg").probabilities.shape == (3, 64, 80)


def test_a_trainer_of_ones_own_may_ask_for_balanced_classes(data_folder):
    for balanced in (False, True):
        loader = door.data("shapes", **SMALL, **{"loader.balanced": balanced}).train_dataloader()
        indices = [index for index, _ in loader.sampler]
        assert (len(set(indices)) < len(indices)) is balanced


def test_floats_of_other_loaders_are_refused():
    module = door.create("fcn8s", ["background", "cat"], **{"backbone.width": 8})
    batch = {"image": torch.rand(2, 3, 64, 64), "mask": torch.zeros(2, 64, 64, dtype=torch.uint8)}
    for step in (module.training_step, module.validation_step):
        with pytest.raises(DataError, match=r"^batch: image is torch.float32 in 0..1, expected raw pixels in 0..255"):
            step(batch, 0)
        with pytest.raises(DataError, match=r"^batch: tuple, expected a dictionary with image"):
            step((batch["image"], batch["mask"]), 0)


@pytest.mark.parametrize(
    ("name", "classes", "said"),
    [
        ("fcn8s", ["cat"], r"classes=\['cat'\]: expected a list of names, the background first"),
        ("spnet", ["background", "cat"], "classes: method=spnet knows its classes by vectors"),
        ("irn", None, "method=irn with parent=RUN: use segladder train"),
    ],
)
def test_what_cannot_be_created_says_why(name, classes, said):
    more = {"protocol": "zero_shot"} if name == "spnet" else {"protocol": "cam_seeds"} if name == "irn" else {}
    with pytest.raises(ConfigError, match=said):
        door.create(name, classes, **more)


def test_rank_gives_the_tables_of_the_leaderboard(segladder, runs, tmp_path):
    out = tmp_path / "board.json"
    assert segladder("leaderboard", f"runs={runs}", "format=json", f"out={out}") == 0
    tables = door.rank(runs)
    assert [table.hash for table in tables] == [table["hash"] for table in json.loads(out.read_text())]
    assert {row.method for table in tables for row in table.rows} == {"fcn8s", "prototype"}
    with pytest.raises(DataError, match="no record there"):
        door.rank(tmp_path)


def test_a_packed_run_answers_and_scores_as_its_folder_does(segladder, runs, photos, capsys):
    packed, again = photos / "released.zip", photos / "again.zip"
    assert segladder("export", f"run={runs / 'dense'}", f"out={packed}") == 0
    assert door.export(runs / "dense", again).read_bytes() == packed.read_bytes()
    image = photos / "photos" / "a.png"
    one, other = (door.load(run, "cpu").predict(image) for run in (runs / "dense", packed))
    assert np.array_equal(one.probabilities, other.probabilities)
    for run in (runs / "dense", packed):
        assert segladder("evaluate", f"run={run}", "progress=false", "panels=0") == 0
    theirs, ours = (
        next((folder / "evaluations").glob("*/record.json")) for folder in (runs / "dense", photos / "released")
    )
    assert json.loads(theirs.read_text())["metrics"] == json.loads(ours.read_text())["metrics"]
    words = [f"run={packed}", f"images={photos / 'photos'}", f"out={photos / 'out'}", "progress=false"]
    assert segladder("predict", *words) == 0
    assert np.array_equal(read_mask(photos / "out" / "masks" / "a.png"), one.mask)


@pytest.mark.parametrize("name", ["advcam", "dense_crf", "irn"])
def test_a_run_that_answers_with_what_its_parent_knows_is_not_packed(name, monkeypatch, tmp_path):
    """The parent, whose scores or network it needs, would not be in the file."""
    config = small_methods.configuration(name)
    run = config, Record(status="finished"), build.method(config, num_classes=21)
    monkeypatch.setattr("segladder.door.packing.load_run", lambda folder: run)
    for out in ("run.zip", "run.onnx"):
        with pytest.raises(ConfigError, match=f"method={name} answers with what its parent knows"):
            if out == "run.zip":
                pack(tmp_path, tmp_path / out)
            else:
                write_graph(door.Model(run[2], ["background"]), tmp_path / out)
    assert not list(tmp_path.iterdir())


def zipped(path, members, **how):
    """A zip with these members, by name."""
    with zipfile.ZipFile(path, "w", **how) as whole:
        for name, data in members:
            whole.writestr(name, data)
    return path


def foreign(members):
    """Changes of a packed run's members, and what is said of the file."""
    return {
        "escape": ([*members, ("../esc", b"x")], {}, "holds '../esc', which no packed run has"),
        "absolute": ([*members, ("/tmp/esc", b"x")], {}, "holds '/tmp/esc', which no packed run has"),
        "other": ([*members, ("panels/x.png", b"x")], {}, "holds 'panels/x.png', which no packed run has"),
        "missing": (members[1:], {}, r"no config.yaml in it, expected what segladder export wrote"),
        "twice": ([*members, members[0]], {}, "holds a file twice"),
        "bomb": (members, {"compression": zipfile.ZIP_DEFLATED}, "config.yaml is compressed or encrypted"),
        "edited": ([(members[0][0], members[0][1] + b"\n# \ntag: x\n"), *members[1:]], {}, "config.yaml: "),
        "weights": (
            [(n, d[:-1] + b"x" if n == "weights.pt" else d) for n, d in members],
            {},
            "weights.pt: not the file",
        ),
    }


@pytest.mark.parametrize("kind", foreign([("", b"")]))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_packed_run_of_a_stranger_is_refused_by_its_name(runs, tmp_path, kind):
    with zipfile.ZipFile(door.export(runs / "dense", tmp_path / "whole.zip")) as whole:
        members = [(name, whole.read(name)) for name in whole.namelist()]
    changed, how, said = foreign(members)[kind]
    path = zipped(tmp_path / "foreign.zip", changed, **how)
    with pytest.raises((ConfigError, DataError), match=re.escape(str(path))) as caught:
        door.load(path)
    assert said in str(caught.value) and not (tmp_path / "esc").exists()


def test_what_is_no_packed_run_is_refused(runs, tmp_path):
    (tmp_path / "no.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"no\.zip: damaged or no packed run"):
        door.load(tmp_path / "no.zip")
    whole = door.export(runs / "dense", tmp_path / "whole.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2] + bytes(64) + whole[len(whole) // 2 + 64 :])
    with pytest.raises(DataError, match=r"half\.zip"):
        door.load(tmp_path / "half.zip")
    with pytest.raises(ConfigError, match=r"out=model.pt: expected a name that ends in .onnx or .zip"):
        door.export(runs / "dense", "model.pt")


@pytest.mark.long
def test_an_onnx_graph_answers_as_the_model_does(segladder, runs, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "model.onnx"
    assert segladder("export", f"run={runs / 'dense'}", f"out={out}") == 0
    assert "pixels uint8 (B, 3, H, W) to probabilities of 21 classes" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    model = door.load(runs / "dense", "cpu")
    assert tuple(json.loads(session.get_modelmeta().custom_metadata_map["classes"])) == model.classes
    for size in ((64, 64), (101, 57)):
        image = picture(1, size)[0]
        (found,) = session.run(None, {"pixels": image.transpose(2, 0, 1)[None]})
        np.testing.assert_allclose(found[0], model.predict(image).probabilities, atol=1e-3)
    with pytest.raises(ConfigError, match="method=prototype is shown its classes by supports"):
        door.export(runs / "few_shot", tmp_path / "few.onnx")
    with pytest.raises(ConfigError, match="pixels=int8: expected one of uint8, float32"):
        door.export(runs / "dense", tmp_path / "other.onnx", "int8")


@pytest.mark.long
def test_the_examples_of_the_documentation_run(runs, photos, monkeypatch):
    monkeypatch.chdir(photos)
    (photos / "runs").symlink_to(runs)
    write_folder(photos / "mine", lists=True)
    (photos / "mine" / "splits" / "val.txt").write_text("site1/item 1\n")
    (photos / "mine" / "splits" / "train.txt").write_text("site0/item 0\nsite0/item 2\n")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL):
        if "onnxruntime" not in block or find_spec("onnxruntime"):
            exec(block, names)
    assert Image.open("mask.png").mode == "P"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_a_command_shows_keys_and_three_examples_that_compose(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["segladder", command, "--help"])
    assert cli.main() == 0
    text = capsys.readouterr().out
    examples = [shlex.split(line)[2:] for line in text.splitlines() if line.startswith(f"  segladder {command}")]
    assert len(examples) == 3
    for words in examples:
        with composing():
            compose(command, [word for word in words if word != "-m" and not ("," in word and "-m" in words)])
    with composing():
        config = compose(command)
    own = {key.name.split(".")[0] for key in keys_of(conf_folder() / f"{command}.yaml")}
    assert own <= {*config} and all(f"  {key}" in text for key in own)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("segladder lea", ["leaderboard"]),
        ("segladder train method=fcn", ["method=fcn16s", "method=fcn32s", "method=fcn8s"]),
        ("segladder train method=cam trainer.st", ["trainer.steps="]),
        ("segladder train method=cam method.background", ["method.background_score="]),
        ("segladder predict prob", ["probabilities="]),
        ("segladder nothing x", []),
    ],
)
def test_words_are_completed(line, found, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["segladder", "--complete", line])
    assert cli.main() == 0
    assert capsys.readouterr().out.split() == found


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_what_stands_behind_an_equals_sign():
    script = f"""
        segladder() {{ {sys.executable} -m segladder "$@"; }}
        eval "$(segladder --completion bash)"
        COMP_LINE='segladder train method=fcn'; COMP_POINT=${{#COMP_LINE}}
        _segladder; echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["fcn16s", "fcn32s", "fcn8s"], done.stderr


@pytest.mark.parametrize("method", ["prototype", "sg_one", "spnet"])
def test_a_method_is_created_under_a_protocol_that_can_ask_it(method):
    settings = {"backbone.width": 8} if method == "spnet" else {"classes": ["background", "cat"], "backbone.width": 8}
    assert door.create(method, **settings).name == method


def test_prototypes_need_no_run():
    model = door.Model(door.create("prototype", ["background", "cat"], **{"backbone.width": 8}), ["background", "cat"])
    image, where = np.full((64, 64, 3), 90, np.uint8), np.zeros((64, 64), np.uint8)
    image[20:40, 20:40], where[20:40, 20:40] = (250, 30, 30), 1
    answer = model.predict(image, supports=[(image, where)])
    assert answer.mask[30, 30] == 1 and answer.mask[2, 2] == 0


def test_a_support_that_is_turned_is_refused_from_a_file_and_from_pillow(runs, photos):
    turned = photos / "turned.jpg"
    with Image.open(photos / "support" / "images" / "one.png") as image:
        exif = Image.Exif()
        exif[0x0112] = 3
        image.convert("RGB").save(turned, exif=exif)
    model = door.load(runs / "few_shot")
    for given in (turned, Image.open(turned)):
        with pytest.raises(DataError, match="EXIF orientation 3, expected 1"):
            model.predict(photos / "photos" / "a.png", supports=[(given, photos / "support" / "masks" / "one.png")])


def test_results_of_images_in_folders_below_lie_in_such_folders(segladder, runs, photos, capsys):
    save_image(photos / "photos" / "day" / "one" / "a.png", picture(7, (40, 48))[0])
    out = photos / "photos" / "found"
    words = ["predict", f"run={runs / 'dense'}", f"images={photos / 'photos'}", f"out={out}", "progress=false"]
    assert segladder(*words) == 0
    found = door.load(runs / "dense").predict(photos / "photos" / "day" / "one" / "a.png").mask
    with Image.open(out / "masks" / "day" / "one" / "a.png") as mask:
        assert np.array_equal(np.array(mask), found)
    assert (out / "overlays" / "day" / "one" / "a.jpg").is_file() and (out / "masks" / "a.png").is_file()
    count = capsys.readouterr().out.split()[0]
    assert segladder(*words) == 0  # results are no images
    assert f"0 images segmented, {count} already there" in capsys.readouterr().out
