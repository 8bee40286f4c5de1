"""`strategy.precision=auto`: the quick one, where there is a quick one."""

from pathlib import Path

import pytest

from segladder.runs import build
from segladder.runs.composition import composed


@pytest.mark.parametrize("precision", ["auto", "32-true", "16-mixed"])
def test_auto_is_the_quick_precision_that_is_there(precision, monkeypatch):
    config = composed([f"strategy.precision={precision}"])
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(build, "has_bfloat16", lambda accelerator, native=native: native)
        assert build.precision(config) == (expected if precision == "auto" else precision)


def test_a_processor_says_whether_it_has_bfloat16():
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx" not in flags:
        pytest.skip("no list of this processor's instructions here")
    assert build.has_bfloat16("cpu") == ("avx512_bf16" in flags)
