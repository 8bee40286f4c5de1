"""Where a result comes from: code, versions, machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "segladder",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "timm",
    "segmentation-models-pytorch",
    "albumentations",
    "hydra-core",
    "numpy",
    "pydensecrf2",
)


class GitState(NamedTuple):
    """The commit that runs and whether its code was changed; both None outside a checkout."""

    commit: str | None
    dirty: bool | None


def git_state() -> GitState:
    """State of the checkout this package is imported from; changes count under `src` and `conf` only."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():  # a wheel, perhaps inside somebody else's repository
        return GitState(None, None)
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", "src", "conf")
    return GitState(commit, None if commit is None or changes is None else bool(changes))


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_memory_mb(device: torch.device | str = "cpu") -> float:
    """Most memory in use so far, MiB: allocated on a CUDA device, resident of this process on the CPU."""
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB on Linux


def device_name(device: torch.device | str = "cpu") -> str:
    """The device as sold: the GPU's name, or the processor's with its architecture."""
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return _processor() or platform.processor() or platform.machine()


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def parameter_count(module: torch.nn.Module) -> int:
    """How many numbers a module learns or keeps frozen; shared parameters count once."""
    return sum(parameter.numel() for parameter in module.parameters())
