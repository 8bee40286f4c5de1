"""What the fields of protocols may hold, and the check that they do."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Literal

from segladder.errors import ConfigError
from segladder.settings import check

OtherClasses = Literal["ignore", "background"]
Fit = Literal["native", "square", "padded", "floored"]
ScoreAt = Literal["native", "input"]
Absent = Literal["skip", "zero"]
MinObject = Literal["grid", "area", "none"]
Aggregate = Literal["mean", "area_mean", "vote", "relative_vote", "or", "max", "logit_mean"]
GammaOn = Literal["probabilities", "logits"]
GammaRule = Literal["seen_budget", "fixed", "oracle"]
DenseFit = Literal["native", "square", "short"]
DenseScoreAt = Literal["native", "input", "features"]


def check_fields(protocol: Any) -> None:
    """Check every field of a protocol, a dataclass, against its annotation.

    Raises:
        ConfigError: naming the first field at fault, its value and what it may hold; or a size that `fit` needs.
    """
    values = json.loads(json.dumps(asdict(protocol), default=list))
    check(type(protocol), values, "protocol")
    if values.get("fit", "native") != "native" and values.get("input_side") is None:
        raise ConfigError(f"protocol.fit={values['fit']}: needs a size, set protocol.input_side to pixels")
