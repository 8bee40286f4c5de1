"""Gathers what the site shows in build/site/pages, for `make docs`.

The site keeps the repository's folders, so that a relative link leads to one page on GitHub and on the site. It holds
docs/, the studies, and every file that these pages lead to. docs/README.md is the table of contents: a heading is a
section of the navigation, a link of a list a page.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
CONTENTS = ROOT / "docs" / "README.md"
STUDIES = ROOT / "experiments" / "README.md"
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"")


def led_to(page: Path) -> Iterator[Path]:
    """Files of the repository that a page links to or shows."""
    for link, picture in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        yield (page.parent / (link or picture)).resolve()


def gathered(starts: Iterable[Path]) -> set[Path]:
    """These files and all that their pages lead to."""
    found: set[Path] = set()
    left = list(starts)
    while left:
        file = left.pop()
        if file not in found:
            found.add(file)
            left += led_to(file) if file.suffix == ".md" else []
    return found


def cell_as_markdown(cell: dict[str, Any]) -> str:
    """A cell of a notebook: text as it is, code and what it printed as blocks."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    printed = "".join(line for output in cell["outputs"] for line in output.get("text", ()))
    return f"```python\n{source}\n```" + (f"\n\n```text\n{printed.rstrip()}\n```" if printed else "")


def as_page(notebook: Path) -> str:
    """A notebook as a page that offers the notebook itself."""
    first, *cells = map(cell_as_markdown, json.loads(notebook.read_text(encoding="utf-8"))["cells"])
    return "\n\n".join([first, f'<a href="{notebook.name}" download>{notebook.name}</a>', *cells]) + "\n"


def write(file: Path, folder: Path) -> None:
    """Put a file of the repository into the folder that the site is built from."""
    target = folder / file.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".md":
        target.write_text(re.sub(r"\.ipynb\)", ".md)", file.read_text(encoding="utf-8")), encoding="utf-8")
        return
    shutil.copy(file, target)
    if file.suffix == ".ipynb":
        target.with_suffix(".md").write_text(as_page(file), encoding="utf-8")


def title(page: Path) -> str:
    """The first heading of a page."""
    found = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"{page}: no heading"
    return found[1]


def place(page: Path) -> str:
    """Where the site has a page, below its root."""
    return str(page.with_suffix(".md").relative_to(ROOT))


def navigation() -> list[dict[str, Any]]:
    """Sections and pages of docs/README.md in its order; behind the list of all results each study."""
    sections = []
    for section in re.split(r"^## ", CONTENTS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        name, text = section.split("\n", 1)
        pages = []
        for words, link in re.findall(r"^- \[([^]]+)\]\(([^)]+)\)", text, re.MULTILINE):
            page = (CONTENTS.parent / link).resolve()
            pages.append({words: place(page)})
            if page == STUDIES:
                pages += [{title(study): place(study)} for study in studies()]
        sections.append({name: pages})
    return sections


def studies() -> list[Path]:
    """The page of each study."""
    return sorted(STUDIES.parent.glob("*/README.md"))


def main(site: Path = SITE) -> Path:
    """Write the pages and the settings of the site anew; returns the file of the settings."""
    docs = CONTENTS.parent
    shutil.rmtree(site, ignore_errors=True)
    starts = [ROOT / "README.md", docs / "site.css", *docs.rglob("*.md"), *docs.rglob("*.ipynb"), *studies()]
    for file in gathered(starts):
        write(file, site / "pages")
    settings = (docs / "site.yml").read_text(encoding="utf-8").replace("SOURCES", json.dumps(str(ROOT / "src")))
    (site / "mkdocs.yml").write_text(settings + yaml.safe_dump({"nav": navigation()}), encoding="utf-8")
    return site / "mkdocs.yml"


if __name__ == "__main__":
    main()
