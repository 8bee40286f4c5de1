"""What this process may use of the machine."""

import errno
import os
import signal

import pytest

from segladder.errors import of_machine
from segladder.machine import cores, pool


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be withheld here")
def test_cores_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {2, 5, 7})
    assert (cores(), cores(most=2), cores(most=8)) == (3, 2, 3)


def test_where_nothing_is_known_there_is_one_core(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_workers_leave_ctrl_c_to_this_process():
    with pool("spawn", 2) as processes:
        assert set(processes.map(handler_of, [signal.SIGINT] * 4)) == {signal.SIG_IGN}
        assert set(processes.map(handler_of, [signal.SIGTERM] * 4)) == {signal.SIG_DFL}


def handler_of(number):
    return signal.getsignal(number)


def test_only_what_an_error_comes_from_is_the_machines_fault():
    full = OSError(errno.ENOSPC, "No space left on device", "a.txt")
    try:
        try:
            raise full
        except OSError:
            raise ValueError from None
    except ValueError as error:
        assert of_machine(error) is None
    assert "make room" in str(of_machine(full))
