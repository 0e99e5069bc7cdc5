"""The Python on the documentation's pages runs, page by page, and fits; no page is left out."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if python_blocks(page)], ids=lambda p: p.stem
)
def test_python_of_page_runs(page):
    world: dict[str, object] = {}
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), world)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_python_of_page_fits_its_column(page):
    # What a window of 1280 pixels shows beside both sidebars, without scrolling.
    long = [line for block in python_blocks(page) for line in block.splitlines() if len(line) > 98]
    assert not long


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\ntheme:")[0]
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages == set(re.findall(r"[\w/-]+\.md$", navigation, re.MULTILINE))
