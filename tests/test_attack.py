"""A seeded attack on the command line: random settings and damaged files end in one line, never in a traceback.

Prints how many tries were refused and how many ran. TRIES and DAMAGES are for long attacks by hand.
"""

import os
import random
import shutil
import signal
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from segladder.configuration import choices
from segladder.runs.composition import composed

TRIES = int(os.environ.get("TRIES", 500))
DAMAGES = int(os.environ.get("DAMAGES", 150))
LONGEST = 120  # seconds of a try
SMALL = {
    "data.train_size": 24,
    "data.val_size": 10,
    "data.size": 64,
    "backbone.width": 4,
    "loader.batch_size": 4,
    "loader.workers": 0,
    "trainer.steps": 1,
    "trainer.progress": "false",
    "trainer.panels": 0,
}
VALUES = (
    *("0", "-1", "1", "2", "3", "1.5", "0.5", "nan", "inf", "-inf", "1e-320", "true", "null", "abc", "''", "../x"),
    *("[]", "[a]", "[-1]", "[0.5,2]", "{}", "{a:1}"),
)
LEFT_ALONE = ("data.root", "data._target_", "stages", "runs", "resume", "hydra", "loader.workers", "strategy")
LATER = (
    "advcam",
    "affinity_net",
    "cagnet",
    "dense_crf",
    "fusionseg",
    "fusionseg_motion",
    "irn",
    "transductive",
    "variational",
    "zs3net",
)  # need a parent
GROUPS = ("backbone", "loss", "labels", "protocol", "prices")
UNUSABLE = ("resnest101", "resnet101", "vit_small", "vgg16", "resnet50", "resnet18", "mobilenetv2")  # weights, minutes


@contextmanager
def limited(seconds):
    """Raises TimeoutError in a block that takes longer."""

    def late(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def leaves(config, place=""):
    """Keys of a configuration that hold no further keys, with their values."""
    for key in config:
        node = None if OmegaConf.is_missing(config, key) else OmegaConf.select(config, str(key))
        if OmegaConf.is_dict(node) and len(node):
            yield from leaves(node, f"{place}{key}.")
        elif "_target_" not in str(key):
            yield f"{place}{key}", node


def random_value(draw, usual):
    """Something like the usual value, or not at all like it."""
    if draw.random() < 0.15 or not isinstance(usual, bool | int | float):
        return draw.choice(VALUES)
    if isinstance(usual, bool):
        return str(not usual).lower()
    return draw.choice((usual - 1, usual + 1, 2 * usual, usual // 2 if isinstance(usual, int) else usual / 2))


def random_words(draw):
    """A method with a protocol that scores it, other choices sometimes, and one to three settings at random."""
    method = draw.choice([name for name in choices("method") if name not in LATER])
    supervision = composed([f"method={method}"]).method.supervision
    usual = {"few_shot": "strict", "zero_shot": "zero_shot"}.get(supervision, "semantic")
    chosen = {"method": method, "protocol": usual, "logger": "none"}
    if draw.random() < 0.3:
        group = draw.choice(GROUPS)
        chosen[group] = draw.choice([name for name in choices(group) if name not in UNUSABLE])
    words = [f"{key}={value}" for key, value in chosen.items()]
    with_defaults = [word for word in words if not word.startswith(("protocol=davis", "protocol=voc"))]
    values = {key: value for key, value in leaves(composed(with_defaults)) if not key.startswith(LEFT_ALONE)}
    settings = SMALL | {key: random_value(draw, values[key]) for key in draw.sample(sorted(values), draw.randint(1, 3))}
    return [*words, *(f"{key}={value}" for key, value in settings.items())]


def outcome(segladder, capfd, words, runs):
    """How a command ended: `ran`, `failed` or `refused`, or what is wrong with how it ended."""
    shutil.rmtree(runs, ignore_errors=True)
    try:
        with limited(LONGEST):
            code = segladder(*words)
    except TimeoutError:
        return "hangs"
    except BaseException as error:
        return f"traceback: {type(error).__name__}: {str(error)[:200]}"
    finally:
        told, said = capfd.readouterr()
    named = [line for line in (*told.splitlines(), *said.splitlines()) if line.startswith(("segladder: ", "fault: "))]
    if "Traceback" in said or (code and not named):
        return f"says {said[-300:]!r}"
    if code == 2 and [path for path in runs.rglob("*") if path.is_file()]:
        return "refused, but files are left"
    return {0: "ran", 1: "failed", 2: "refused"}[code]


def report(tries, title, capfd):
    """Print what came out, and fail with the tries that ended wrongly."""
    counts = Counter(result for result, _ in tries)
    with capfd.disabled():
        print(f"\n{title}: {len(tries)} tries, {', '.join(f'{n} {result}' for result, n in sorted(counts.items()))}")
    wrong = [f"{result}\n    segladder {' '.join(words)}" for result, words in tries if result not in ENDS]
    assert not wrong, "\n".join(wrong)


ENDS = ("ran", "failed", "refused")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_random_settings_run_or_are_refused_in_one_line(segladder, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw, tries, runs = random.Random(0), [], tmp_path / "runs"
    for _ in range(TRIES):
        words = ["train", *random_words(draw)]
        tries.append((outcome(segladder, capfd, words, runs), words))
    report(tries, "random settings", capfd)


def write_folder(root):
    """A data set of a user: eight images with masks of two classes."""
    draw = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(8):
        mask = np.zeros((48, 64), np.uint8)
        mask[8:30, 10:40] = 1 + number % 2
        image = draw.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "images" / f"{number}.{'jpg' if number % 2 else 'png'}")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("background\nred\nblue\n")


def damage(draw, path):
    """Do to a file what disks, downloads and hands do."""
    content = path.read_bytes()
    place = draw.randrange(len(content))
    kinds = {
        "cut": lambda: path.write_bytes(content[:place]),
        "empty": lambda: path.write_bytes(b""),
        "noise": lambda: path.write_bytes(content[:place] + draw.randbytes(40) + content[place + 40 :]),
        "one bit": lambda: path.write_bytes(content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]),
        "text": lambda: path.write_text("<html>404</html>"),
        "zeros": lambda: path.write_bytes(bytes(len(content))),
        "gone": path.unlink,
        "folder": lambda: (path.unlink(), path.mkdir()),
        "pipe": lambda: (path.unlink(), os.mkfifo(path)),
        "nowhere": lambda: (path.unlink(), path.symlink_to("nowhere")),
    }
    kind = draw.choice(sorted(kinds))
    kinds[kind]()
    return kind


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_damaged_files_are_named_in_one_line(segladder, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw, tries, runs = random.Random(0), [], tmp_path / "runs"
    small = [f"{key}={value}" for key, value in SMALL.items() if not key.startswith("data.")]
    train = ["train", "data=folder", "loader.augment.crop=32", "logger=none", *small]
    write_folder(whole := tmp_path / "whole")
    assert segladder(*train, f"data.root={whole}", "hydra.run.dir=run") == 0
    for number in range(DAMAGES):
        data, run = tmp_path / f"data{number}", tmp_path / f"run{number}"
        shutil.copytree(whole, data)
        shutil.copytree("run", run)
        told = f"data.root={data}"
        command, files = draw.choice(
            (
                (["data", "action=check", "data=folder", told, "workers=1"], data),
                ([*train, told], data),
                (["evaluate", f"run={run}", "progress=false", "panels=0", told], run),
                (["predict", f"run={run}", f"images={whole / 'images'}", "out=out", "progress=false"], run),
                (["leaderboard", f"runs={run}"], run),
            )
        )
        path = draw.choice(sorted(p for p in files.rglob("*") if p.is_file() and p.stat().st_size))
        kind = damage(draw, path)
        tries.append((outcome(segladder, capfd, command, runs), [*command, f"# {kind}: {path.relative_to(tmp_path)}"]))
        shutil.rmtree("out", ignore_errors=True)
        shutil.rmtree(data)
        shutil.rmtree(run)
    report(tries, "damaged files", capfd)
