"""Runs in processes of their own: what they print goes to a log, or to where this process prints."""

import os

from segladder.processes.start import start_child


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
