"""Files and folders appear whole or not at all."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from segladder.errors import of_machine
from segladder.files import remove_partials, written


def write_and_die(path):
    """Be killed in the middle of writing."""
    with written(path) as partial:
        partial.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_appears_when_its_block_ends_with_the_rights_of_any_new_file(tmp_path, durable):
    path, plain = tmp_path / "new" / "table.csv", tmp_path / "plain"
    with written(path, durable) as partial:
        partial.write_text("1,2")
        assert not path.exists() and partial.parent == path.parent and partial.suffix == ".csv"
    plain.write_text("")
    assert path.read_text() == "1,2" and list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path, error):
    path = tmp_path / "record.json"
    path.write_text("old")
    with pytest.raises(error), written(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_libraries_that_add_an_ending_find_theirs(tmp_path):
    with written(tmp_path / "a.b.npz") as partial:
        np.savez(partial, x=np.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.b.npz"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "v1"
    with pytest.raises(ValueError), written(path) as partial:
        (partial / "images").mkdir(parents=True)
        raise ValueError
    assert not list(tmp_path.iterdir())
    with written(path) as partial:
        (partial / "images").mkdir(parents=True)
    assert (path / "images").is_dir() and list(tmp_path.iterdir()) == [path]


def test_writers_at_once_do_not_mix(tmp_path):
    def write(number):
        with written(tmp_path / "shared.txt") as partial:
            partial.write_text(f"{number}\n" * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    lines = (tmp_path / "shared.txt").read_text().splitlines()
    assert len(lines) == 1000 and len(set(lines)) == 1 and len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_writer_leaves_is_hidden_and_can_be_removed(tmp_path):
    for name in ("mask[1].png", "other.png"):
        victim = get_context("fork").Process(target=write_and_die, args=(tmp_path / name,))
        victim.start()
        victim.join()
        assert victim.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2 and not list(tmp_path.glob("[!.]*"))
    remove_partials(tmp_path / "mask[1].png")
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".other.") and left.suffix == ".png"


@pytest.mark.parametrize("write", [lambda stream: stream.write(bytes(1 << 20)), lambda stream: torch.save({}, stream)])
def test_a_full_disk_is_told_with_the_file_and_leaves_nothing(tmp_path, write):
    with pytest.raises((OSError, RuntimeError)) as raised, written(tmp_path / "weights.pt") as partial:
        partial.symlink_to("/dev/full")
        with partial.open("wb") as stream:
            write(stream)
    told = f"{tmp_path / 'weights.pt'}: No space left on device; make room on that disk"
    assert str(of_machine(raised.value)) == told
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), written(tmp_path / "new.txt"):
        (tmp_path / "other.txt").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of"
        " shared memory. Please try to raise your shared memory limit.",
        "unable to write to file </torch_7_123_0>: No space left on device (28)",
    ],
)
def test_no_shared_memory_names_the_remedy(text):
    error = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
    error.__cause__ = RuntimeError(text)
    assert "choose loader.workers=0" in str(of_machine(error))
    assert of_machine(RuntimeError("out of resource: shared memory, Required: 1")) is None  # a GPU's own
    assert of_machine(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert of_machine(FileNotFoundError(2, "No such file or directory", "x")) is None
