"""Runs in processes of their own: what they print goes to a log, or to where this process prints."""

import os
import signal

import pytest

from segladder.processes.start import start_child, waited_for


def test_a_log_gets_all_that_a_child_prints_after_what_is_there(tmp_path, capfd):
    log = tmp_path / "logs" / "job.log"
    log.parent.mkdir()
    log.write_text("before\n")
    assert start_child(["--help"], log=log).wait() == 0
    assert start_child(["no-such-command"], {"HYDRA_FULL_ERROR": "1"}, log).wait() != 0
    said = log.read_text()
    assert said.startswith("before\n") and "segladder COMMAND" in said and "no-such-command" in said
    assert capfd.readouterr() == ("", "")


def test_without_a_log_a_child_prints_where_this_process_does(capfd):
    assert start_child(["--help"], os.environ).wait() == 0
    assert "segladder COMMAND" in capfd.readouterr().out


class Stopped:
    """A child that notes which signals it gets and whether it was waited for."""

    def __init__(self):
        self.heard, self.waited = [], 0

    def send_signal(self, sig):
        self.heard.append(sig)

    def wait(self):
        signal.raise_signal(signal.SIGINT)  # the impatient user again
        self.waited += 1
        return 130


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_children_finish_however_often_we_are_stopped(stop):
    child = Stopped()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as end, waited_for([child]):
        signal.raise_signal(stop)
    assert end.value.args == (stop,) and child.waited == 1
    assert child.heard == ([stop] if stop == signal.SIGTERM else [])  # Ctrl-C has reached it already
    assert signal.getsignal(signal.SIGINT) == before


def test_children_finish_where_an_error_of_ours_ends_us():
    child = Stopped()
    with pytest.raises(ZeroDivisionError), waited_for([child]):
        raise ZeroDivisionError
    assert child.waited == 1 and not child.heard
