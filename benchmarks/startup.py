"""How long the command line takes to answer, against starting Python alone, and what dominates."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time

COMMANDS = {"segladder --help": ["--help"], "segladder train --cfg job": ["train", "--cfg", "job"]}


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def slowest_imports(arguments: list[str], count: int = 3) -> str:
    """The packages whose import costs most, by CPython's own count of each module's self time."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    packages: dict[str, int] = {}
    for own, module in re.findall(r"import time:\s+(\d+) \|\s+\d+ \| \s*(\S+)", done.stderr):
        package = module.split(".")[0]
        packages[package] = packages.get(package, 0) + int(own)
    largest = sorted(packages.items(), key=lambda item: -item[1])[:count]
    return ", ".join(f"{package} {microseconds / 1000:.0f} ms" for package, microseconds in largest)


def run(quick: bool) -> list[tuple[str, str, float, str]]:
    repeats = 3 if quick else 11
    rows = []
    for name, words in COMMANDS.items():
        arguments = ["-m", "segladder.cli", *words]
        pairs = [(seconds(["-c", "pass"]), seconds(arguments)) for _ in range(repeats)]
        reference, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        detail = f"{ours:.2f} s; imports: {slowest_imports(arguments)}"
        rows.append((name, "python -c pass", reference / ours, detail))
    return rows


if __name__ == "__main__":
    for row in run("--quick" in sys.argv):
        print(*row, sep=" | ")
