"""The page in a real browser: it sorts, filters, opens rows, hands out files, and fits a phone and the night."""

import json

import pytest
from chromium import CHROMIUM, Browser
from page_runs import METHODS, write_runs

from segladder.report.counted import Counted
from segladder.report.page import page as whole
from segladder.report.record import find_records

pytestmark = [pytest.mark.long, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]

ROWS = (
    "[...document.querySelectorAll('section:not([hidden]) > .wide .board tbody tr:not([hidden]) th a')]"
    ".map(a => a.textContent).join()"
)
SHAPES = "#table-5afdba84-shapes01"
CHOOSE = (
    "(() => {{ const form = document.getElementById('filter'); form['{}'].value = '{}';"
    " form.dispatchEvent(new Event('input')); }})()"
)
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of a page of two data sets."""
    folder = tmp_path_factory.mktemp("page")
    write_runs(folder / "runs")
    write_runs(folder / "runs", "roads", {"cam": METHODS["cam"]})
    counted = Counted(find_records(folder / "runs")[0])
    (folder / "page.html").write_text(whole(counted.tables(), counted), encoding="utf-8")
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_headings_sort(browser, page):
    browser.open(page)
    found = []
    for _ in range(3):
        browser.says(
            f"[...document.querySelectorAll('{SHAPES} .board thead button')]"
            ".find(b => b.textContent === 'mIoU, %').click()"
        )
        found.append(browser.says(ROWS).removeprefix("cam,"))
    assert found == ["unet,fcn8s,cam", "cam,fcn8s,unet", "cam,fcn8s,unet"]  # the last is the ladder's order


def test_filters_leave_what_fits(browser, page):
    browser.open(page)
    said = "document.querySelector('#filter output').textContent"
    browser.says(CHOOSE.format("labels", "points"))
    assert (browser.says(ROWS), browser.says(said)) == ("fcn8s", "1 of 4 rows")
    assert browser.says("document.querySelectorAll('details.row:not([hidden])').length") == 1
    browser.says(CHOOSE.format("labels", ""))
    browser.says(CHOOSE.format("data", "roads"))
    assert (browser.says(ROWS), browser.says(said)) == ("cam", "1 of 4 rows")
    browser.says(CHOOSE.format("data", ""))
    browser.says(CHOOSE.format("words", "UNE mask"))
    assert browser.says(ROWS) == "unet"


def test_a_link_opens_its_row_by_keyboard_and_by_address(browser, page):
    browser.open(page)
    browser.says("document.querySelector('.board a[href=\"#row-5afdba84-shapes-unet\"]').focus()")
    browser.press("Enter")
    browser.until("document.getElementById('row-5afdba84-shapes-unet').open")
    assert browser.says("document.activeElement.parentElement.id") == "row-5afdba84-shapes-unet"
    assert browser.says("location.hash") == "#row-5afdba84-shapes-unet"
    browser.press("Tab")
    assert browser.says("document.activeElement.closest('details').id") == "row-5afdba84-shapes-unet"
    browser.open(f"{page}#run-5afdba84-shapes-fcn8s")
    browser.until("document.getElementById('row-5afdba84-shapes-fcn8s').open")


def test_files_are_handed_out(browser, page):
    browser.open(f"{page}#row-5afdba84-shapes-unet")
    for link in ("record.json", "config.yaml"):
        browser.says(f"document.querySelector('#row-5afdba84-shapes-unet a[download$=\"{link}\"]').click()")
    browser.says(f"document.querySelector('{SHAPES} > h3 a.csv').click()")
    wanted = {f"5afdba84-shapes-unet-{end}" for end in ("record.json", "config.yaml")} | {"table-5afdba84-shapes01.csv"}
    for _ in range(100):
        browser.says("new Promise(done => setTimeout(done, 50))")
        if browser.downloads.is_dir() and wanted <= {file.name for file in browser.downloads.iterdir()}:
            break
    record = json.loads((browser.downloads / "5afdba84-shapes-unet-record.json").read_text())
    assert record["id"] == "shapes-unet" and record["config"]["pool"] == 8
    assert "trains: true" in (browser.downloads / "5afdba84-shapes-unet-config.yaml").read_text()
    assert "shapes-unet" in (browser.downloads / "table-5afdba84-shapes01.csv").read_text()


def test_the_night_is_dark(browser, page):
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.open(page)
    assert browser.says(paper) == "rgb(255, 255, 255)"
    browser.open(page, dark=True)
    assert browser.says(paper) == "rgb(20, 23, 27)"


def test_a_phone_shows_it_all_and_says_where_there_is_more(browser, page):
    browser.open(page, 390, 800)
    assert browser.says(OVERFLOW) == 0
    browser.says("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.says(OVERFLOW) == 0
    board = "document.querySelector('.wide:has(.board)')"
    browser.until(f"{board}.classList.contains('right')")
    assert browser.says(f"{board}.nextElementSibling.textContent") == "more columns: scroll sideways →"
    edge = f"{board}.querySelector('tbody th').getBoundingClientRect().left"
    before = browser.says(edge)
    browser.says(f"{board}.firstElementChild.scrollLeft = 9999")
    browser.until(f"{board}.classList.contains('left') && !{board}.classList.contains('right')")
    assert browser.says(edge) == before  # the name stays


def test_pictures_are_shown(browser, page):
    browser.open(page)
    wide = "image => (image.loading = 'eager', image.decode().then(() => image.naturalWidth))"
    widths = browser.says(f"Promise.all([...document.querySelectorAll('.side img')].map({wide}))")
    assert set(widths) == {200}
