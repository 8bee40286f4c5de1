"""A run's folder is foreign input: loading one executes nothing, resolves nothing and writes nothing elsewhere."""

import hashlib
import json
import shutil

import pytest
import torch
import yaml
from PIL import Image

from segladder import load
from segladder.errors import ConfigError, DataError
from segladder.report import record as records
from segladder.runs.folder import content_of, hash_of_learnt, stored_config
from segladder.runs.instantiation import conf_folders, named, trusted
from segladder.runs.loading import load_run

pytestmark = pytest.mark.long

SMALL = [
    *("data.train_size=12", "data.val_size=4", "data.size=48", "backbone.width=8", "loader.batch_size=4"),
    *("loader.workers=0", "trainer.steps=1", "trainer.progress=false", "trainer.panels=1", "logger=none"),
    "protocol.bootstrap=20",
]


@pytest.fixture(scope="module")
def run(segladder, tmp_path_factory):
    """A finished run of image-level labels: it may be a parent and give its backbone."""
    folder = tmp_path_factory.mktemp("runs") / "cam"
    assert segladder("train", "method=cam", "protocol=cam_seeds", *SMALL, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture
def foreign(run, tmp_path):
    """A copy of the run with another configuration, in the file and in the record, whose hash fits."""

    def copy(change=lambda config: None, changed=lambda record: None):
        folder = tmp_path / "foreign"
        shutil.copytree(run, folder)
        config, record = yaml.safe_load((folder / "config.yaml").read_text()), record_of(folder)
        for each in (config, record["config"]):
            change(each)
        record["config_hash"] = hash_of_learnt(config)
        changed(record)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "record.json").write_text(json.dumps(record))
        return folder

    return copy


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


def put(place, value):
    """A change of a configuration: `value` at a dotted place."""

    def change(config):
        *above, last = place.split(".")
        for key in above:
            config = config[int(key) if isinstance(config, list) else key]
        config[last] = value

    return change


def copying(tmp_path):
    """A node that leaves a file where it is built."""
    (tmp_path / "secret").write_text("secret")
    return {"_target_": "shutil.copyfile", "src": str(tmp_path / "secret"), "dst": str(tmp_path / "stolen")}


def resuming(run):
    """Going on with a run that says of itself that it is not finished."""
    unfinished = {**record_of(run), "status": "interrupted"}
    (run / "record.json").write_text(json.dumps(unfinished))
    return ["train", f"resume={run}"]


COMMANDS = {
    "evaluate": lambda run: ["evaluate", f"run={run}", "progress=false", "panels=0"],
    "predict": lambda run: ["predict", f"run={run}", f"images={run / 'panels'}", f"out={run.parent / 'out'}"],
    "resume": resuming,
    "parent": lambda run: ["train", "method=dense_crf", "protocol=cam_seeds", *SMALL, f"parent={run}", own(run)],
    "masks": lambda run: ["train", "method=fcn8s", *SMALL, f"parent={run}", own(run)],
}
READS_NO_CONFIGURATION = {
    "backbone": lambda run: ["train", "method=cam", "protocol=cam_seeds", *SMALL, f"backbone.weights={run}", own(run)],
    "leaderboard": lambda run: ["leaderboard", f"runs={run.parent}", "report=html", f"out={run.parent / 'page.html'}"],
}


def own(run):
    return f"hydra.run.dir={run.parent / 'own'}"


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_class_that_conf_does_not_name_is_not_built_by_any_command(segladder, foreign, tmp_path, capsys, words):
    folder = foreign(put("method.optimizer.note", copying(tmp_path)))
    assert segladder(*words(folder)) != 0
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{folder / 'config.yaml'}: method.optimizer.note._target_: shutil.copyfile is no class" in said
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize("words", READS_NO_CONFIGURATION.values(), ids=READS_NO_CONFIGURATION)
def test_other_commands_build_nothing_of_it(segladder, foreign, tmp_path, words):
    folder = foreign(put("method.optimizer.note", copying(tmp_path)))
    assert segladder(*words(folder)) == 0
    assert not (tmp_path / "stolen").exists()


REFUSED = {
    "a loader of pickles": ("tag", {"_target_": "torch.load", "f": "x"}, "tag._target_: torch.load"),
    "in a list": ("parent", [{"_target_": "os.getcwd"}], r"parent\[\]._target_: os.getcwd"),
    "a class at another place": ("tag", {"_target_": "segladder.data.sources.voc.VOC"}, "tag._target_: segladder"),
    "a method for a loss": ("loss._target_", "segladder.methods.full.fcn.FCN", "loss._target_: segladder.methods"),
    "an attribute of a class": ("method._target_", "segladder.methods.full.fcn.FCN.load", "method._target_"),
    "a key that looks like a place": ("tag", {"x": {"a.b": {"_target_": "os.getcwd"}}}, r"tag\.x\.a..b\._target_: os"),
    "a partial": ("method._partial_", True, "method._partial_: conf/ has no such key"),
    "arguments": ("method._args_", [1], "method._args_: conf/ has no such key"),
    "an empty mapping for a flag": ("data._recursive_", {}, "data._recursive_: conf/ has no such key"),
    "a conversion": ("protocol._convert_", "all", "protocol._convert_: conf/ has no such key"),
    "the environment": ("tag", "${oc.env:HOME}", "tag: .* is an interpolation, expected a plain value"),
    "an empty key": ("tag", {"": "${oc.env:HOME}"}, r"tag\.: .* is an interpolation"),
    "part of a text": ("data.root", "x/${oc.env:HOME}", "data.root: .* is an interpolation"),
    "a name that is a path": ("protocol.name", "../../../esc", "protocol.name: '../../../esc' is no name"),
    "a data set elsewhere": ("data.name", "/esc", "data.name: '/esc' is no name"),
}


@pytest.mark.parametrize(("place", "value", "fault"), REFUSED.values(), ids=REFUSED)
def test_what_a_configuration_may_not_hold_is_refused_with_file_and_key(foreign, place, value, fault):
    folder = foreign(put(place, value))
    with pytest.raises(ConfigError, match=f"^{folder / 'config.yaml'}: {fault}"):
        load_run(folder)


def test_a_key_is_one_step_of_its_place():
    backbone = {"_target_": "segladder.nets.tiny.TinyBackbone", "width": 8}
    for change in (put("method", {"features.backbone": backbone}), put("loss", {"terms": [[backbone]]})):
        with pytest.raises(ConfigError, match="is no class that conf/ names there"):
            config: dict = {}
            change(config)
            trusted(config, "config.yaml")


def test_a_record_adds_no_class_where_a_setting_was_left_open(foreign, tmp_path):
    def smuggled(record):
        record["config"]["method"]["note"] = copying(tmp_path)

    folder = foreign(put("method.note", "auto"), smuggled)
    with pytest.raises(ConfigError, match=r"record\.json: method\.note\._target_: shutil\.copyfile is no class"):
        load_run(folder)
    assert not (tmp_path / "stolen").exists()


def test_a_damaged_configuration_is_named(foreign):
    folder = foreign()
    for text in ("a: [", "- 1\n", "!!python/object/apply:os.getcwd []\n"):
        (folder / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.yaml: (damaged|holds no settings)"):
            stored_config(folder)


def test_the_table_holds_conf_s_classes_at_their_places_alone():
    table = named(conf_folders())
    assert ("method.criterion.terms[]", "segladder.nets.losses.Dice") in table  # by ${loss}
    assert ("method.features.backbone", "segladder.nets.tiny.TinyBackbone") in table  # by ${backbone}
    assert ("method", "segladder.nets.losses.Dice") not in table
    assert all(name.startswith(("segladder.", "hydra_plugins.segladder_pool.")) for _, name in table)


def test_a_class_of_the_user_is_built_once_the_user_names_its_folder(segladder, foreign, tmp_path, monkeypatch, capsys):
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "mine.yaml").write_text("defaults: [cam]\n_target_: outside_cam.Mine\nname: mine\n")
    code = "from segladder.methods.image_level.cam import CAM\n\nclass Mine(CAM):\n    pass\n"
    (tmp_path / "outside_cam.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    folder = foreign(put("method._target_", "outside_cam.Mine"))
    evaluate = COMMANDS["evaluate"](folder)
    assert segladder(*evaluate) == 2
    assert "outside_cam.Mine is no class that conf/ names there" in capsys.readouterr().err
    assert segladder(*evaluate, f"hydra.searchpath=[file://{tmp_path / 'conf'}]") == 0
    with pytest.raises(ConfigError, match=r"outside_cam\.Mine is no class"):
        load(folder)
    with pytest.raises(ConfigError, match="choices=nowhere: no such folder"):
        load(folder, choices="nowhere")
    assert type(load(folder, choices=tmp_path / "conf").method).__name__ == "Mine"


@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_an_edited_configuration_is_refused(segladder, run, tmp_path, capsys, command):
    folder = tmp_path / "edited"
    shutil.copytree(run, folder)
    (folder / "weights.pt").unlink() if command == "resume" else None
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("  steps: 1\n", "  steps: 3\n"))
    words, before = COMMANDS[command](folder), record_of(folder)
    assert segladder(*words) == 2
    assert f"{folder / 'config.yaml'}: not the configuration of this run" in capsys.readouterr().err
    assert record_of(folder) == before


OTHER_WEIGHTS = {**COMMANDS, "backbone": READS_NO_CONFIGURATION["backbone"]}


@pytest.mark.parametrize("words", OTHER_WEIGHTS.values(), ids=OTHER_WEIGHTS)
def test_other_weights_than_the_run_wrote_are_refused(segladder, foreign, capsys, words):
    folder = foreign()
    weights = torch.load(folder / "weights.pt", weights_only=True)
    torch.save({key: value + 1 for key, value in weights.items()}, folder / "weights.pt")
    assert segladder(*words(folder)) == 1
    assert f"{folder / 'weights.pt'}: not the file that the run wrote" in capsys.readouterr().err


NAMES = {"id": ("id",), "protocol": ("protocol", "name"), "hash": ("protocol", "hash"), "data": ("data", "name")}


@pytest.mark.parametrize("keys", NAMES.values(), ids=NAMES)
def test_a_record_names_no_file_outside_its_folder(foreign, keys):
    def escape(record):
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = "../../esc"

    with pytest.raises(DataError, match=r"record\.json: '\.\./\.\./esc' is no name"):
        records.read(foreign(changed=escape))


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_run_leads_no_command_to_write_elsewhere(segladder, foreign, tmp_path, capsys, words):
    folder, elsewhere = foreign(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("evaluations", "pseudo_masks", "class_scores"):
        (folder / name).symlink_to(elsewhere)
    assert segladder(*words(folder)) == 2
    assert f"{folder / 'class_scores'}: a link to a folder elsewhere" in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("words", ["hydra.searchpath=[pkg://strange]", "++hydra.searchpath=[pkg://strange]", '"'])
def test_the_command_of_a_record_imports_nothing(segladder, foreign, tmp_path, monkeypatch, words):
    def interrupted(record):
        record |= {"status": "interrupted", "command": f"segladder train {words}"}

    foreign(changed=interrupted)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "__init__.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    assert segladder("train", "resume=auto", f"runs={tmp_path}", "method=unet") == 2
    assert not (tmp_path / "run").exists()


def test_a_lock_that_leads_elsewhere_is_not_opened(segladder, foreign, tmp_path, capsys):
    folder, victim = foreign(), tmp_path / "victim"
    victim.write_text("precious")
    (folder / ".owner.lock").unlink(missing_ok=True)
    (folder / ".owner.lock").symlink_to(victim)
    assert segladder("train", f"resume={folder}") != 0
    assert str(folder / ".owner.lock") in capsys.readouterr().err and victim.read_text() == "precious"


def test_nothing_from_elsewhere_is_packed_and_nothing_is_written_there(segladder, foreign, tmp_path, capsys):
    folder, packed, elsewhere = foreign(), tmp_path / "run.zip", tmp_path / "elsewhere"
    assert segladder("export", f"run={folder}", f"out={packed}") == 0
    elsewhere.mkdir()
    (tmp_path / "run").symlink_to(elsewhere)
    assert segladder("evaluate", f"run={packed}", "progress=false", "panels=0") == 2
    assert f"{tmp_path / 'run'}: a link" in capsys.readouterr().err and not list(elsewhere.iterdir())
    (tmp_path / "secret").write_text("{}")
    (folder / "labelled.json").unlink(missing_ok=True)
    (folder / "labelled.json").symlink_to(tmp_path / "secret")
    assert segladder("export", f"run={folder}", f"out={tmp_path / 'other.zip'}") != 0
    assert not (tmp_path / "other.zip").exists()


def test_weights_that_hold_nothing_do_not_answer(foreign):
    folder = foreign()
    torch.save({}, folder / "weights.pt")
    record = record_of(folder)
    record["checkpoint"]["sha256"] = hashlib.sha256((folder / "weights.pt").read_bytes()).hexdigest()
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"weights\.pt: not the weights of method=cam"):
        load_run(folder)


@pytest.mark.parametrize("node", ["method", "protocol", "backbone", "strategy"])
def test_a_configuration_without_a_node_is_named(foreign, node):
    with pytest.raises(ConfigError, match=rf"config\.yaml: no {node} in it"):
        load_run(foreign(lambda config: config.pop(node)))


@pytest.mark.parametrize("change", [{"data": {"classes": []}}, {"config": {}}])
def test_a_record_without_classes_or_method_is_named(foreign, change):
    folder = foreign()
    record = record_of(folder)
    (folder / "record.json").write_text(json.dumps({**record, **change}))
    with pytest.raises((ConfigError, DataError), match=r"(record\.json|config)"):
        load_run(folder)


def test_a_page_embeds_no_picture_that_lies_elsewhere(segladder, foreign, tmp_path):
    folder = foreign()
    shutil.rmtree(folder / "panels")
    (folder / "panels").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "secret.png")
    Image.new("RGB", (8, 8), "blue").save(folder / "panels" / "median-1-own.png")
    (folder / "panels" / "best-1-x.png").symlink_to(tmp_path / "secret.png")
    assert segladder(*READS_NO_CONFIGURATION["leaderboard"](folder)) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/webp;base64,") == 1 and "median 1: own" in page


def test_pseudo_masks_that_were_not_written_so_are_refused(segladder, foreign, capsys):
    folder = foreign()
    assert segladder(*COMMANDS["masks"](folder)) == 0
    (place,) = (folder / "pseudo_masks").iterdir()
    mask = sorted(place.glob("*.png"))[0]
    Image.new("L", (48, 48)).save(mask)
    again = [word if not word.startswith("hydra.run") else f"{word}2" for word in COMMANDS["masks"](folder)]
    assert segladder(*again) == 1
    assert f"pseudo-masks of {mask.stem} are not those that were written" in capsys.readouterr().err


def test_class_scores_that_were_not_written_so_are_computed_anew(segladder, foreign):
    folder = foreign()
    assert segladder(*COMMANDS["masks"](folder)) == 0
    (place,) = (path for path in (folder / "class_scores").iterdir())
    file = sorted(place.glob("*.npz"))[0]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] + bytes(8) + whole[len(whole) // 2 + 8 :])
    shutil.rmtree(folder / "pseudo_masks")
    again = [word if not word.startswith("hydra.run") else f"{word}2" for word in COMMANDS["masks"](folder)]
    assert segladder(*again) == 0
    assert file.read_bytes() == whole


def test_what_every_run_writes_is_trusted(run):
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert trusted(stored, run / "config.yaml") == stored_config(run)


def test_a_configuration_that_repeats_itself_without_end_is_refused(foreign):
    folder = foreign()
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (folder / "config.yaml").write_text("\n".join(["a0: &a0 [x]", *lines]))
    with pytest.raises(ConfigError, match=r"config\.yaml: damaged \(line 2 repeats another part"):
        stored_config(folder)


def test_a_run_that_builds_on_itself_is_refused(foreign):
    folder = foreign()
    record = record_of(folder)
    record["config"]["parent"] = str(folder)
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="that run builds on itself"):
        content_of(folder)
