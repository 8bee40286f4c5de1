"""One folder, one owner: who it is, what happens when it is gone, and that two never own it."""

import json
import os
import signal
import time
from multiprocessing import get_context

import pytest

from segladder.errors import DataError
from segladder.runs import ownership
from segladder.runs.ownership import SILENCE, Owned, Owner, beaten, named_in, owned, owner_of, release, taken, write

FORK = get_context("fork")


def own_and_die(folder):
    """Be killed while owning a folder."""
    taken(folder, "")
    os.kill(os.getpid(), signal.SIGKILL)


def own_at_once(folder, start, taker):
    """Say whether this process came to own a folder that others want too; keep it until all have tried."""
    start.wait()
    try:
        taken(folder, "")
        taker.put(True)
    except Owned:
        taker.put(False)
    start.wait()


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_folder_has_an_owner_as_long_as_the_block_runs(tmp_path, error):
    try:
        with owned(tmp_path / "run", "go on"):
            assert owner_of(tmp_path / "run").process == os.getpid()
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert named_in(tmp_path / "run") is None


def test_another_is_told_who_works_there_and_what_to_do(tmp_path):
    with owned(tmp_path, "go on"):
        owner = owner_of(tmp_path)
        with pytest.raises(Owned) as told, owned(tmp_path, "start it again"):
            pass
        said = str(told.value)
        assert f"process {os.getpid()} on {owner.host} (since {owner.since})" in said and "start it again" in said
        assert owner_of(tmp_path) == owner


def test_a_killed_owner_counts_as_gone_even_before_its_parent_has_heard_of_it(tmp_path, capsys):
    victim = FORK.Process(target=own_and_die, args=(tmp_path,))
    victim.start()
    os.waitid(os.P_PID, victim.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert named_in(tmp_path).process == victim.pid and owner_of(tmp_path) is None
    with owned(tmp_path, ""):
        assert owner_of(tmp_path).process == os.getpid()
    assert f"{tmp_path}: taken over from process {victim.pid} on" in capsys.readouterr().out
    victim.join()


@pytest.mark.parametrize(("silent", "lives"), [(0, True), (SILENCE - 10, True), (SILENCE + 10, False)])
@pytest.mark.parametrize("place", [{"host": "elsewhere"}, {"numbering": "of another container"}])
def test_an_owner_on_another_machine_lives_as_long_as_it_is_heard_of(tmp_path, place, silent, lives):
    write(tmp_path, Owner(beat=time.time() - silent, **place))
    assert (owner_of(tmp_path) is not None) is lives


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="this system does not say when a process started")
def test_a_later_process_of_the_same_id_is_not_the_owner(tmp_path):
    write(tmp_path, Owner(birth="1"))
    assert owner_of(tmp_path) is None


def test_an_owner_that_a_stranger_names_drives_no_terminal(tmp_path, capsys):
    stranger = {"process": 1, "host": "\x1b]0;owned\x07", "numbering": "x", "birth": "1", "since": "", "token": "t"}
    (tmp_path / ownership.FILE_NAME).write_text(json.dumps(stranger | {"beat": 0.0}))
    with owned(tmp_path, ""):
        assert "from process 1 on \\x1b]0;owned" in capsys.readouterr().out


def test_a_pipe_is_waited_for_by_nobody(tmp_path):
    os.mkfifo(tmp_path / ownership.FILE_NAME)
    assert named_in(tmp_path) is None
    os.mkfifo(tmp_path / ownership.GUARD)
    with pytest.raises(DataError, match="a link or a pipe"), owned(tmp_path, ""):
        pass


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"host": "x"}', '{"process": "1/../self"}', '{"pid": 1}'])
def test_a_damaged_file_names_nobody(tmp_path, text):
    (tmp_path / ownership.FILE_NAME).write_text(text)
    assert named_in(tmp_path) is None
    with owned(tmp_path, ""):
        assert owner_of(tmp_path).process == os.getpid()


def test_who_was_taken_for_dead_hears_of_it_and_leaves_the_folder_alone(tmp_path):
    before = taken(tmp_path, "")
    assert beaten(tmp_path, before)
    after = Owner(host="elsewhere")
    write(tmp_path, after)
    assert not beaten(tmp_path, before)
    release(tmp_path, before)
    assert named_in(tmp_path) == after


def test_a_sign_of_life_is_younger_than_the_last_and_changes_nothing_else(tmp_path):
    owner = taken(tmp_path, "")
    write(tmp_path, Owner(**{**vars(owner), "beat": 0.0}))
    assert beaten(tmp_path, owner)
    found = named_in(tmp_path)
    assert found.beat >= owner.beat and found.token == owner.token and found.since == owner.since


def test_of_many_that_start_at_once_one_owns_the_folder(tmp_path):
    for number in range(5):
        write(tmp_path / str(number), Owner(birth="1"))  # left by a killed one
        start, answers = FORK.Barrier(6), FORK.Queue()
        takers = [FORK.Process(target=own_at_once, args=(tmp_path / str(number), start, answers)) for _ in range(6)]
        for taker in takers:
            taker.start()
        assert sorted(answers.get() for _ in takers) == [False] * 5 + [True]
        for taker in takers:
            taker.join()
