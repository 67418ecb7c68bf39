"""Facts about the report in a real headless Chromium: it opens from a file, asks for nothing, and prints."""

import re

import pytest

from infostylegan.report import write_report

pytestmark = pytest.mark.browser


@pytest.fixture
def open_file(browser):
    """open_file(path, **options) -> the page; at the end: no complaint, and nothing was asked for."""
    complaints, asked, pages = [], [], []

    def open_file(path, width=1200, **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_file
    for page in pages:
        page.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == len(pages)


def test_it_opens_from_a_file_with_every_picture_and_prints(run, tmp_path, open_file):
    write_report(run, tmp_path / "report.html")
    page = open_file(tmp_path / "report.html")
    assert page.title() == "Run 00000-fundus8-beta0.3"
    sizes = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(sizes) == 7
    assert all(sizes)
    printed = page.pdf(format="A4", print_background=False)
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 1 <= pages <= 8


def test_nothing_of_a_hostile_run_comes_alive(hostile, tmp_path, open_file):
    write_report(hostile, tmp_path / "report.html")
    page = open_file(tmp_path / "report.html")
    assert page.title().startswith("Run 00001-<img")
    assert page.evaluate("document.images.length") == 1
    assert page.evaluate("document.scripts.length") == 0


@pytest.mark.parametrize("width", [360, 1200])
def test_it_is_as_wide_as_its_window_and_not_wider(run, tmp_path, open_file, width):
    write_report(run, tmp_path / "report.html")
    page = open_file(tmp_path / "report.html", width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_texts_stand_out_from_the_paper_in_light_and_dark(run, tmp_path, open_file):
    write_report(run, tmp_path / "report.html")
    script = """() => {
      const light = c => { const v = c.match(/[0-9.]+/g).slice(0, 3).map(x => { x /= 255;
        return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
      const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
      return [...document.querySelectorAll('h1,h2,p,dt,dd,th,td,a,figcaption,li,summary,caption')].map(e => {
        const a = light(getComputedStyle(e).color), b = light(ground(e));
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }); }"""
    grounds = []
    for scheme in ("light", "dark"):
        page = open_file(tmp_path / "report.html", color_scheme=scheme)
        contrasts = page.evaluate(script)
        assert len(contrasts) > 50
        assert min(contrasts) >= 4.5  # WCAG 2, level AA
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_the_keyboard_reaches_content_links_and_what_scrolls(run, tmp_path, open_file):
    write_report(run, tmp_path / "report.html")
    page = open_file(tmp_path / "report.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.tagName + (document.activeElement.className || '')"))
    assert {"A", "DIVscroll", "SUMMARY"} <= seen
