"""What this process may use of the machine."""

import os

import pytest

from segladder.machine import cores


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be withheld here")
def test_cores_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {2, 5, 7})
    assert (cores(), cores(most=2), cores(most=8)) == (3, 2, 3)


def test_where_nothing_is_known_there_is_one_core(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
