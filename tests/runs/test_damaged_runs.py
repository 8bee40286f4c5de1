"""Files of a run that are cut or junk: one line that names the file, an exit code, no traceback."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from segladder.errors import DataError
from segladder.nets.bfloat16 import has_bfloat16
from segladder.report import record as records
from segladder.runs.fitting import whole_resume_point

pytestmark = pytest.mark.long

SMALL = [
    *("data.train_size=12", "data.val_size=4", "data.size=48", "backbone.width=8", "loader.batch_size=4"),
    *("loader.workers=0", "trainer.steps=2", "trainer.progress=false", "trainer.panels=1", "logger=none"),
    *("protocol.bootstrap=20", "trainer.checkpoint_every=1"),
]
JUNK = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "noise": lambda data: bytes(range(256)) * 4,
    "text": lambda data: b"no such thing\n",
    "list": lambda data: b"[1, 2]",
    "zip": lambda data: b"PK\x03\x04" + bytes(100),
}


@pytest.fixture(scope="module")
def run(segladder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "fcn"
    assert segladder("train", "method=fcn8s", *SMALL, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture
def damaged(run, tmp_path):
    """A copy of the run with one file changed; without hashes, no other check comes first."""

    def copy(name, damage, hashed=True):
        folder = tmp_path / "runs" / "fcn"
        shutil.copytree(run, folder)
        if not hashed:
            record = records.read(folder)
            record.checkpoint = {}
            records.write(record, folder)
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
        return folder

    return copy


def told(capsys, code, name):
    """The one line that a command ended with."""
    *_, last = capsys.readouterr().err.strip().splitlines()
    assert code in (1, 2) and last.startswith("segladder: ") and name in last, last
    return last


@pytest.mark.parametrize("kind", JUNK)
@pytest.mark.parametrize("name", ["weights.pt", "config.yaml", "record.json"])
def test_a_damaged_run_is_named_by_whoever_loads_it(segladder, damaged, capsys, name, kind):
    folder = damaged(name, JUNK[kind], hashed=name != "weights.pt")
    told(capsys, segladder("evaluate", f"run={folder}", "progress=false", "panels=0"), name)
    words = [f"images={folder / 'panels'}", f"out={folder.parent / 'out'}"]
    told(capsys, segladder("predict", f"run={folder}", *words), name)


def test_weights_of_another_method_are_named(segladder, damaged, capsys):
    folder = damaged("weights.pt", lambda data: data, hashed=False)
    torch.save({"layer.weight": torch.zeros(2)}, folder / "weights.pt")
    code = segladder("evaluate", f"run={folder}", "progress=false", "panels=0")
    assert "not the weights of method=fcn8s" in told(capsys, code, "weights.pt")


@pytest.mark.parametrize("found", [{}, {"state_dict": {}}, {"state_dict": {}, "pytorch-lightning_version": 2}])
def test_what_is_no_state_of_training_is_no_resume_point(tmp_path, found):
    (tmp_path / "checkpoints").mkdir()
    torch.save(found, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(DataError, match=r"last\.ckpt: no state of training in it .*, and training starts anew"):
        whole_resume_point(tmp_path)


@pytest.mark.parametrize("kind", JUNK)
def test_a_damaged_resume_point_is_named_and_the_run_has_failed(segladder, damaged, capsys, kind):
    folder = damaged("weights.pt", lambda data: data)
    (folder / "weights.pt").unlink()
    record = records.read(folder)
    record.status = "interrupted"
    records.write(record, folder)
    last = folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(exist_ok=True)
    last.write_bytes(JUNK[kind](last.read_bytes() if last.exists() else bytes(10)))
    assert "remove it, and training starts anew" in told(capsys, segladder("train", f"resume={folder}"), "last.ckpt")
    assert records.read(folder).status == "failed"


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "weights.pt"])
def test_a_full_disk_ends_a_run_in_one_line(segladder, tmp_path, capsys, monkeypatch, name):
    folder, save = tmp_path / "fcn", torch.save

    def full(content, target, *args, **kwargs):
        place = str(getattr(target, "name", target))
        if Path(name).stem in place or not name.endswith(".pt"):
            with open("/dev/full", "wb") as stream:
                save(content, stream, *args, **kwargs)
        save(content, target, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    line = told(capsys, segladder("train", "method=fcn8s", *SMALL, f"hydra.run.dir={folder}"), name)
    assert "No space left on device; make room on that disk" in line
    assert records.read(folder).status == "failed"
    assert not list(folder.rglob("*.partial*")) and not (folder / name).exists()


def test_loading_processes_without_shared_memory_end_a_run_in_one_line(segladder, tmp_path, capsys, monkeypatch):
    def killed(self):
        raise RuntimeError(
            "DataLoader worker (pid 7) is killed by signal: Bus error. ... workers are out of shared memory."
        )

    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", killed)
    code = segladder("train", "method=fcn8s", *SMALL, f"hydra.run.dir={tmp_path / 'fcn'}")
    assert code == 1 and "choose loader.workers=0" in capsys.readouterr().err.splitlines()[-1]
    assert records.read(tmp_path / "fcn").status == "failed"


BROKEN = [  # a place of a record, and what a report would stumble over there
    *((("data", "classes"), wrong) for wrong in (1, [[]], "text")),
    *((("label_access", "kind"), wrong) for wrong in ([1], {"a": 1})),
    *((("protocol", "hash"), wrong) for wrong in ([], {}, 1)),
    *(((name,), wrong) for name in ("lineage", "parents") for wrong in ([1], [{}], [[]])),
    (("metrics",), {"mIoU": 1}),
    (("protocol", "scores"), [1]),
]


def test_no_broken_record_stops_a_leaderboard(segladder, run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "whole")
    for number, (place, wrong) in enumerate(BROKEN):
        record = json.loads((run / "record.json").read_text()) | {"id": f"broken-{number}"}
        put_at(record, place, wrong)
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "record.json").write_text(json.dumps(record))
    for kind, damage in JUNK.items():
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "record.json").write_bytes(damage((run / "record.json").read_bytes()))
    page = [f"out={tmp_path / 'board.html'}", "report=html", "per_class=true", "significance=true"]
    assert segladder("leaderboard", f"runs={tmp_path}", *page) == 0
    said = capsys.readouterr()
    assert "fcn8s" in said.out
    skipped = [line for line in said.err.splitlines() if line.startswith("segladder: skipped")]
    assert len(skipped) == len(BROKEN) + len(JUNK)


def put_at(record, place, value):
    *above, last = place
    for key in above:
        record = record[key]
    record[last] = value


def test_a_record_says_how_many_threads_computed_it(run):
    assert records.read(run).threads == torch.get_num_threads()
    assert records.read(run).precision == ("bf16-mixed" if has_bfloat16("cpu") else "32-true")


@pytest.mark.parametrize("kind", ["pipe", "folder"])
@pytest.mark.parametrize("name", ["weights.pt", "record.json"])
def test_what_is_no_file_is_named_and_not_waited_for(segladder, run, tmp_path, capsys, name, kind):
    shutil.copytree(run, tmp_path / "fcn")
    path = tmp_path / "fcn" / name
    path.unlink()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    code = segladder("evaluate", f"run={path.parent}", "progress=false", "panels=0")
    told(capsys, code, name)


def test_counts_with_wrong_bits_leave_a_leaderboard_standing(segladder, run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "fcn")
    path = tmp_path / "fcn" / "counts.npz"
    content = bytearray(path.read_bytes())
    for place in range(60, len(content) - 200, 7):  # packed numbers, somewhere
        content[place] ^= 64
    path.write_bytes(bytes(content))
    assert segladder("leaderboard", f"runs={tmp_path}", "significance=true") in (0, 1)
    assert "Traceback" not in capsys.readouterr().err
