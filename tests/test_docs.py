"""The pages of docs/ hold what they say: contents, commands, notebooks, and the site that `make docs` builds."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from dummy_data import picture, save_image, save_mask
from notebooks import code_of, execute, printed
from test_project import ROOT, commands_of

from segladder.cli import GROUPS
from segladder.configuration import choices

DOCS = ROOT / "docs"
NOTEBOOKS = sorted(DOCS.glob("notebooks/*.ipynb"))
TINY = {"own_data": {"PICTURES": 30, "EPOCHS": 1}, "few_shot": {"PICTURES": 160, "STEPS": 2}, "ladder": {}}
COLOURS = np.zeros((256, 3), np.uint8)  # of the guide's masks; the border of 255 is black as the background
COLOURS[1:3] = (255, 0, 0), (0, 128, 255)

TRAIN = ["backbone.width=8", "loader.workers=0", "loader.batch_size=4", "trainer.steps=1", "trainer.panels=0"]
TRAIN += ["trainer.progress=false", "logger=none", "protocol.bootstrap=20"]
EPISODES = ["protocol.episodes=5", "protocol.seeds=[0]", "protocol.beside=0"]
SMALL = {  # what makes a command with this word cheap; the last one holds
    "train": TRAIN,
    "data=folder": ["loader.augment.crop=64"],
    "data=shapes": ["data.train_size=80", "data.val_size=40", "data.size=64"],
    "protocol=strict": [*EPISODES, "data.train_size=160", "data.val_size=160"],
    "protocol=[hard,negative]": EPISODES[:2],
    "protocol=zero_shot": ["protocol.gamma_images=4"],
    "evaluate": ["panels=0", "progress=false"],
    "predict": ["progress=false"],
}
OWN = {"from=DIR": "from=scans", "run=RUN": "run=runs/mine", "runs=runs/ladder": "runs=runs"}  # the reader's
OWN |= {"backbone=resnet50": "backbone=tiny"}  # which fetches no weights
LONG = ("experiment=", "strategy=", "-m ", "resume=", "segladder search")  # composed by test_project, not run here


def module():
    """docs/gather.py."""
    spec = importlib.util.spec_from_file_location("gather", DOCS / "gather.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_contents_name_every_page_once():
    links = re.findall(r"^- \[[^]]+\]\(([^)]+)\)", (DOCS / "README.md").read_text(), re.MULTILINE)
    assert len(set(links)) == len(links)
    pages = {str(page.relative_to(DOCS)) for end in ("md", "ipynb") for page in DOCS.rglob(f"*.{end}")}
    assert {link for link in links if not link.startswith("../")} == pages


@pytest.mark.parametrize("group", GROUPS)
def test_the_table_of_choices_names_each(group):
    row = re.search(rf"^\| `{group}` \|(.*)$", (DOCS / "commands.md").read_text(), re.MULTILINE)
    assert row is not None
    assert {*choices(group)} <= {*re.findall(r"`(\w+)`", row[1])}


def test_the_reference_shows_every_source_that_a_choice_of_data_fills():
    filled = "".join(path.read_text() for path in (ROOT / "conf/data").glob("*.yaml"))
    sources = {*re.findall(r"_target_: (segladder\.data\.sources\.\w+)\.", filled)}
    assert len(sources) > 5
    assert sources <= {*re.findall(r"^::: (\S+)", (DOCS / "reference/sources.md").read_text(), re.MULTILINE)}


def test_the_site_holds_docs_studies_and_what_they_lead_to(tmp_path):
    settings = module().main(tmp_path / "site")
    pages = settings.parent / "pages"
    for name in ("README.md", "docs/guides/sweep.md", "experiments/demo/README.md", "conf/prices/voc.yaml"):
        assert (pages / name).read_bytes() == (ROOT / name).read_bytes()
    notebook = (pages / "docs/notebooks/ladder.md").read_text()
    assert "```python\nimport json\n" in notebook and "```text\nladder on voc_animals" in notebook
    assert "](notebooks/ladder.md)" in (pages / "docs/README.md").read_text()
    assert "docs/notebooks/ladder.md" in settings.read_text() and "experiments/demo/README.md" in settings.read_text()


@pytest.mark.long
@pytest.mark.skipif(find_spec("zensical") is None, reason="needs the extra `docs`")
def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path):
    settings = module().main(tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(settings)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "html").rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(?:https?:)?//", page.read_text())
    assert "A method with new weights" in (tmp_path / "html/docs/reference/python_door.html").read_text()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_is_small_and_shows_what_it_prints(notebook):
    cells = code_of(json.loads(notebook.read_text())["cells"])
    assert notebook.stat().st_size < 20_000
    assert all(output["output_type"] == "stream" for cell in cells for output in cell["outputs"])
    assert all(cell["execution_count"] is None for cell in cells)


@pytest.mark.long
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch):
    place = tmp_path / "docs" / "notebooks"
    place.mkdir(parents=True)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(place)
    found = list(execute(notebook, **TINY[notebook.stem]))
    shown = [printed(cell) for cell in code_of(json.loads(notebook.read_text())["cells"])]
    assert not any(shown) or found == shown  # what stands in the file is what these lines give
    assert found[-1]


def own_pictures(folder):
    """scans/ with coloured masks, photos/ without, mine/ with masks of class numbers."""
    for seed in range(12):
        image, mask = picture(seed, values=(1, 2))
        save_image(folder / "scans" / "images" / f"{seed}.png", image)
        save_image(folder / "scans" / "masks" / f"{seed}.png", COLOURS[np.where(mask == 255, 0, mask)])
    for seed in range(2):
        image, mask = picture(50 + seed, values=(3, 12))
        save_image(folder / "photos" / f"{seed}.png", image)
        save_image(folder / "mine" / "images" / f"{seed}.png", image)
        save_mask(folder / "mine" / "masks" / f"{seed}.png", mask)


def own_tags(folder):
    """my_data/ of twelve images, half with masks and half with tags alone."""
    for seed in range(12):
        image, mask = picture(seed, values=(1, 2))
        save_image(folder / "images" / "photos" / f"img_{seed:03d}.jpg", image)
        if seed % 2:
            save_mask(folder / "masks" / "photos" / f"img_{seed:03d}.png", mask)
    (folder / "classes.txt").write_text("background\ncat\npotted plant\n")
    lines = [f"photos/img_{seed:03d}.jpg,cat,potted plant\n" for seed in range(0, 12, 2)]
    (folder / "tags.csv").write_text("".join(lines))


def made_cheap(words):
    """The words of a command with what makes it short."""
    return [*words, *(cheap for word, settings in SMALL.items() if word in words for cheap in settings)]


@pytest.mark.long
@pytest.mark.parametrize("name", ["own_data", "few_shot", "tags", "names", "ladder"])
def test_the_commands_of_a_guide_run_one_after_the_other(name, segladder, tmp_path, monkeypatch):
    own_pictures(tmp_path)
    if name == "tags":
        own_tags(tmp_path / "my_data")
    monkeypatch.chdir(tmp_path)
    lines = [line for line in commands_of(DOCS / "guides" / f"{name}.md") if not any(word in line for word in LONG)]
    assert len(lines) > 3
    for line in lines:
        assert segladder(*made_cheap(shlex.split(line)[1:])) == 0, line


@pytest.mark.long
def test_the_commands_of_the_readme_run_one_after_the_other(segladder, tmp_path, monkeypatch):
    """From own pictures to predictions, with a reader's folders in the place of DIR and RUN."""
    own_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = [line for line in commands_of(ROOT / "README.md") if not any(word in line for word in LONG)]
    assert len(lines) > 5
    for line in lines:
        words = [OWN.get(word, word) for word in shlex.split(line)[1:]]
        place = ["hydra.run.dir=runs/mine"] if words[0] == "train" else []
        assert segladder(*made_cheap(words), *place) == 0, line
    assert len(list((tmp_path / "predicted" / "masks").glob("*.png"))) == 2
