"""Facts about the page itself, in a real headless Chromium: what a person sees and a keyboard does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from infostylegan.studio import server
from infostylegan.studio.model import Model
from metrics.__main__ import main as metrics_command

from .conftest import picture, pixels, serving  # isort: skip

pytestmark = pytest.mark.browser


@pytest.fixture
def address(app):
    with serving(app) as address:
        yield address


@pytest.fixture
def open_page(browser, address, access):
    """open_page(...) -> the page after its first picture; at the end: no complaint, no request elsewhere."""
    contexts, complaints, elsewhere = [], [], []

    def seen(request):
        if not request.url.startswith((address, "blob:")):
            elsewhere.append(request.url)

    def open_page(fragment="", width=1280, height=860, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", seen)
        page.goto(f"{address}/?token={access.token}{fragment}")
        if "study" not in fragment:
            shown(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []  # a violation of the content-security policy would be one
    assert elsewhere == []


def shown(page, side=0, **wanted):
    """The settings of the picture on the page, once they are the wanted ones."""
    page.wait_for_function(
        """([side, wanted]) => {
            const image = document.querySelectorAll(".easel img")[side];
            if (!image || !image.dataset.shown) return false;
            const now = JSON.parse(image.dataset.shown);
            return Object.entries(wanted).every(([key, value]) =>
                JSON.stringify(key in now ? now[key] : now.codes[key]) === JSON.stringify(value));
        }""",
        arg=[side, wanted],
    )
    return json.loads(page.locator(".easel img").nth(side).get_attribute("data-shown"))


def screen(page, side=0):
    return pixels(page.locator(".easel").nth(side).screenshot()).astype(int)


def test_the_start_address_opens_the_page_and_the_token_is_gone_from_it(open_page, access):
    page = open_page()
    assert access.token not in page.url
    assert page.evaluate("document.cookie") == ""
    assert page.title().startswith("Studio")


def test_every_code_has_its_control_with_a_name_that_is_read_aloud(open_page):
    page = open_page()
    assert page.get_by_role("slider", name="pigmentation unif1").get_attribute("type") == "range"
    assert page.get_by_role("slider", name="unif0").count() == 1
    assert page.get_by_role("switch", name="bern0").count() == 1
    assert page.get_by_role("radio").count() == 3
    assert page.get_by_role("group", name="cat0", exact=True).count() == 1
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select")].filter((control) =>
            !control.labels?.length && !control.textContent.trim() && !control.getAttribute("aria-label"))
            .map((control) => control.outerHTML)"""
    )
    assert unnamed == []


def test_the_picture_follows_a_slider_moved_by_keyboard_and_by_mouse(open_page):
    page = open_page()
    before = screen(page)
    slider = page.locator("#code-unif0")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    shown(page, unif0=0.03)
    assert page.locator("output[for=code-unif0]").inner_text() == "+0.03"
    page.keyboard.press("End")
    shown(page, unif0=1)
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 9, box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(20):  # a real drag, faster than pictures come
        page.mouse.move(box["x"] + box["width"] * (1 - step / 40), box["y"] + box["height"] / 2)
    page.mouse.up()
    value = float(slider.input_value())
    assert -0.2 < value < 0.2
    shown(page, unif0=value)  # the last wish wins
    page.keyboard.press("Home")
    shown(page, unif0=-1)
    page.wait_for_timeout(100)
    assert np.abs(screen(page) - before).max() > 10


def test_while_a_picture_is_drawn_only_the_latest_wish_waits(open_page, app):
    page = open_page()
    asked = []
    page.on("request", lambda request: asked.append(request) if request.url.endswith("/api/image") else None)
    page.evaluate(
        """() => {
            const slider = document.getElementById("code-unif0");
            for (let i = 1; i <= 100; i += 1) {
                slider.value = String(i / 100);
                slider.dispatchEvent(new Event("input"));
            }
        }"""
    )
    shown(page, unif0=1)
    assert len(asked) <= 3


def test_switches_categories_seed_and_truncation_change_the_picture(open_page):
    page = open_page()
    page.get_by_role("switch", name="bern0").press("Space")
    shown(page, bern0=1)
    page.get_by_role("radio", name="2").check(force=True)
    shown(page, cat0=2)
    page.keyboard.press("ArrowLeft")
    shown(page, cat0=1)
    page.get_by_role("spinbutton", name="Seed").fill("41")
    page.get_by_role("button", name="Next seed").click()
    shown(page, seed=42)
    page.locator("#psi").fill("0.5")
    shown(page, psi=0.5)
    page.get_by_role("button", name="The seed’s own").click()
    page.wait_for_function("() => document.getElementById('code-unif0').value !== '0'")
    page.get_by_role("button", name="Neutral").click()
    assert shown(page, unif0=0, cat0=0, bern0=0)["seed"] == 42


def test_the_strip_sets_the_value_that_is_clicked(open_page):
    page = open_page()
    page.locator("#code-unif1").focus()
    cells = page.locator(".cell")
    page.wait_for_function("() => document.querySelectorAll('.cell').length === 7")
    assert page.locator("#strip-title").inner_text() == "What pigmentation does to it"
    cells.nth(6).click()
    shown(page, unif1=1)
    assert page.locator("#code-unif1").input_value() == "1"
    assert cells.nth(6).get_attribute("aria-pressed") == "true"


def test_two_pictures_are_compared_and_each_keeps_its_settings(open_page):
    page = open_page()
    page.get_by_role("button", name="Compare").click()
    shown(page, side=1)
    page.locator("#code-unif0").fill("0.75")
    shown(page, side=1, unif0=0.75)
    assert shown(page, side=0)["codes"]["unif0"] == 0
    page.get_by_role("button", name="Picture A").click()
    assert page.locator("#code-unif0").input_value() == "0"
    page.locator("#code-unif0").fill("-0.5")
    shown(page, side=0, unif0=-0.5)
    assert shown(page, side=1)["codes"]["unif0"] == 0.75
    page.get_by_role("button", name="End comparison").click()
    assert page.locator(".easel").count() == 1
    assert shown(page)["codes"]["unif0"] == -0.5


def test_the_link_brings_the_settings_back_on_another_page(open_page):
    page = open_page()
    page.locator("#code-unif1").fill("-0.37")
    page.get_by_role("spinbutton", name="Seed").fill("7")
    page.get_by_role("button", name="Compare").click()
    page.locator("#code-unif0").fill("0.5")
    page.get_by_role("radio", name="1").check(force=True)
    page.wait_for_function("() => location.hash.includes('b.cat0=1')")
    other = open_page(page.evaluate("location.hash"))
    assert shown(other, side=0, seed=7, unif1=-0.37)["codes"]["unif0"] == 0
    shown(other, side=1, seed=7, unif1=-0.37, unif0=0.5, cat0=1)


@pytest.mark.parametrize(
    "fragment",
    ["#seed=x", "#seed=-5&unif0=99&cat0=NaN", "#seed=1e99&psi=-3", "#b.seed=2", "#%", "#seed=0&nosuch=1"],
)
def test_a_link_with_impossible_values_opens_the_page_all_the_same(open_page, fragment):
    page = open_page(fragment)
    assert 0 <= shown(page)["seed"] < 2**32
    assert page.locator("#notice").inner_text() == ""


def test_a_picture_is_saved_as_it_is_shown(open_page, tmp_path):
    page = open_page()
    page.get_by_role("spinbutton", name="Seed").fill("3")
    shown(page, seed=3)
    page.wait_for_timeout(50)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save PNG").click()
    assert saved.value.suggested_filename.endswith("-seed3.png")
    assert pixels(Path(saved.value.path()).read_bytes()).shape == (16, 16, 3)


def test_a_dropped_photograph_is_projected_and_lands_on_the_sliders(open_page):
    page = open_page()
    page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "eye.png", { type: "image/png" }));
            document.getElementById("drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        list(picture(64)),
    )
    page.wait_for_selector("#photo-row:not([hidden])")
    # The row is there before the photograph's own picture is.
    page.wait_for_function(
        "() => JSON.parse(document.querySelector('.easel img').dataset.shown).photo !== null"
    )
    now = shown(page)
    assert now["photo"]
    assert float(page.locator("#code-unif0").input_value()) == pytest.approx(now["codes"]["unif0"], abs=0.006)
    page.locator("#code-unif0").fill("1")
    assert shown(page, unif0=1)["photo"] == now["photo"]
    page.get_by_role("button", name="Back to seeds").click()
    shown(page, photo=None)


def test_a_chosen_file_that_is_no_image_is_refused_in_words(open_page, tmp_path):
    page = open_page()
    (tmp_path / "notes.png").write_text("not an image")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.wait_for_selector("#notice.shown")
    assert page.locator("#notice").inner_text().startswith("No image that can be read here")
    assert page.locator("#drop").is_visible()


def test_a_projection_is_cancelled_from_the_page(open_page, monkeypatch):
    monkeypatch.setattr("infostylegan.studio.photos.STEPS", 100_000)
    page = open_page()
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": picture()})
    page.wait_for_function("() => document.getElementById('photo-progress').value > 0")
    page.locator("#code-unif0").fill("0.25")
    shown(page, unif0=0.25)  # the slider is followed meanwhile
    page.locator("#photo-cancel").click()
    page.wait_for_selector("#photo-job", state="hidden")
    assert page.locator("#drop").is_visible()
    assert shown(page)["photo"] is None


def test_a_page_opened_anew_takes_up_what_is_under_way_and_can_cancel_it(open_page, monkeypatch):
    monkeypatch.setattr("infostylegan.studio.photos.STEPS", 100_000)
    page = open_page()
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": picture()})
    page.wait_for_function("() => document.getElementById('photo-progress').value > 0")
    page.reload()
    page.wait_for_function("() => document.getElementById('photo-progress').value > 0")
    page.locator("#photo-cancel").click()
    page.wait_for_selector("#photo-job", state="hidden")
    assert page.locator("#drop").is_visible()


def test_a_film_is_made_shown_and_saved(open_page):
    page = open_page()
    page.locator("#walk-what").select_option("unif1")
    page.locator("#walk-seconds").fill("1")
    page.locator("#walk-fps").fill("6")
    page.get_by_role("button", name="Make a WebP film").click()
    page.wait_for_selector("#film:not([hidden])")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the film").click()
    content = Path(saved.value.path()).read_bytes()
    assert content[8:12] == b"WEBP"
    assert b"ANIM" in content[:64]


# ---- the study -----------------------------------------------------------------------------------------


def rate(page, rater, keys):
    page.get_by_role("button", name="Rate melanin").click()
    page.get_by_label("Your name").fill(rater)
    page.keyboard.press("Enter")
    for number, key in enumerate(keys):
        page.wait_for_function(
            "(n) => document.getElementById('rate-count').textContent.startsWith(`${n} of`)", arg=number
        )
        page.wait_for_function("(k) => !document.getElementById(k).disabled", arg="yes")
        page.wait_for_function(
            f"() => document.querySelector('#rate-row')?.ariaLabel?.startsWith('Row {number + 1} ')"
        )
        page.keyboard.press(key)


def test_a_study_is_made_rated_by_keyboard_by_two_readers_and_scored_as_on_the_command_line(
    open_page, tmp_path, snapshot
):
    page = open_page()
    page.get_by_role("tab", name="Study").click()
    page.get_by_label("Code", exact=True).select_option("unif1")
    assert page.get_by_label("Attribute that").input_value() == "pigmentation"  # as it was named
    page.get_by_label("Attribute that").fill("melanin")
    page.get_by_role("spinbutton", name="Rows").fill("6")
    page.get_by_role("button", name="Draw the rows").click()
    page.get_by_role("button", name="Rate melanin").wait_for()
    assert page.get_by_role("button", name="Result of melanin").is_disabled()

    rate(page, "anna", "yyyn")
    page.wait_for_function("() => document.getElementById('rate-count').textContent.startsWith('4 of')")
    page.keyboard.press("u")  # the n becomes a y
    page.wait_for_function("() => document.getElementById('rate-count').textContent.startsWith('3 of')")
    body = page.locator("body").inner_text()
    assert not any(word in body for word in (snapshot.stem, "unif1", snapshot.parent.name))
    assert page.locator("#rate-row canvas").count() == 8
    page.get_by_role("button", name="Pause").click()  # and go on from where it was
    page.get_by_text("anna 3 of 8").wait_for()
    page.get_by_role("button", name="Rate melanin").click()
    page.get_by_label("Your name").fill("anna")
    page.keyboard.press("Enter")
    for number in range(3, 8):
        page.wait_for_function(
            f"() => document.querySelector('#rate-row')?.ariaLabel?.startsWith('Row {number + 1} ')"
        )
        page.keyboard.press("y")
    page.get_by_text("All rows are rated").wait_for()

    page.locator("#done-back").click()
    rate(page, "ben", "ynynynyn")
    page.get_by_role("button", name="See the result").click()
    page.get_by_text("Gwet’s AC1").wait_for()
    shown_score = page.locator("#results").inner_text()

    from metrics.study import Study

    study = Study.open(tmp_path / "studies" / "melanin")
    assert list(study.votes("anna").values()) == [True] * 8
    assert list(study.votes("ben").values()) == [True, False] * 4
    records = (tmp_path / "studies" / "melanin" / "ratings" / "anna.jsonl").read_text().splitlines()
    assert len(records) == 10  # eight votes, one more that was taken back, and its taking back
    command = CliRunner().invoke(metrics_command, ["acm", "score", str(study.folder)])
    assert command.exit_code == 0, command.output
    told = re.findall(r"\d+\.\d%|(?<=κ )-?\d\.\d\d|(?<=AC1 )-?\d\.\d\d|\b\d+ of \d+\b", command.stdout)
    assert len(told) >= 20
    for figure in told:
        assert figure in shown_score, figure


def test_figures_are_rounded_as_python_rounds_them(open_page):
    page = open_page()
    draw = np.random.default_rng(0)
    shares = [0.8125, 0.1875, 0.5625, 0.4375, 0.0625, 0.0, 1.0, 0.9995, 0.14350000000000002]
    shares += [k / n for n in (8, 16, 80, 100, 800) for k in range(n + 1)] + list(draw.random(500))
    source = (server.STATIC / "study.js").read_text()
    start = source.index("function fixed(")
    fixed = source[start : source.index("\n}\n", start) + 2]
    found = page.evaluate(f"(all) => {{ {fixed} return all.map((x) => fixed(100 * x, 1)); }}", shares)
    assert found == [f"{share:.1%}".rstrip("%") for share in shares]


def test_a_held_key_or_a_key_typed_elsewhere_gives_no_vote(open_page, client, tmp_path):
    wish = {"code": "unif0", "attribute": "melanin", "samples": 3, "seed": 0}
    client.post("/api/jobs/study", json=wish)
    page = open_page("#study")
    page.get_by_role("button", name="Rate melanin").wait_for()
    page.keyboard.type("yynn")
    page.get_by_role("button", name="Rate melanin").click()
    page.get_by_label("Your name").fill("")
    page.get_by_label("Your name").type("yny")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#rate-row')?.ariaLabel?.startsWith('Row 1 ')")
    page.keyboard.press("Control+y")
    page.keyboard.down("y")
    for _ in range(5):
        page.keyboard.down("y")  # repeats of the same press
    page.keyboard.up("y")
    page.wait_for_function("() => document.getElementById('rate-count').textContent === '1 of 5'")
    page.wait_for_timeout(300)
    assert page.locator("#rate-count").inner_text() == "1 of 5"


# ---- looks ---------------------------------------------------------------------------------------------

CONTRAST = """() => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        context.clearRect(0, 0, 1, 1);
        context.fillStyle = colour;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data];
    };
    const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const colour = rgba(getComputedStyle(e).backgroundColor);
            if (colour[3] > 200) return colour;
        }
        return [255, 255, 255, 255];
    };
    const low = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || element.closest(":disabled")) continue;
        if (!element.checkVisibility({ visibilityProperty: true })) continue;
        const style = getComputedStyle(element);
        const [a, b] = [luminance(rgba(style.color)), luminance(behind(element))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        const least = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
        if (ratio < least) low.push([element.textContent.trim(), ratio]);
    }
    return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa_in_both_schemes(open_page, scheme):
    page = open_page(color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []
    page.get_by_role("tab", name="Study").click()
    assert page.evaluate(CONTRAST) == []


def test_the_page_fits_a_phone_and_its_picture_stays_in_sight(open_page):
    page = open_page(width=360, height=740)
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(fits)
    page.locator("#code-unif1").scroll_into_view_if_needed()
    page.mouse.wheel(0, 200)
    page.wait_for_timeout(100)
    box = page.locator(".easel").bounding_box()
    assert 0 <= box["y"] < 200
    assert box["height"] < 0.5 * 740
    page.get_by_role("tab", name="Study").click()
    assert page.evaluate(fits)


def test_the_tabs_are_moved_between_by_arrow_keys(open_page):
    page = open_page()
    page.get_by_role("tab", name="Explore").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Study").get_attribute("aria-selected") == "true"
    assert page.locator("#study").is_visible()
    assert not page.locator("#explore").is_visible()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#explore").is_visible()


def test_a_page_without_the_cookie_shows_the_reason_and_nothing_else(browser, address):
    page = browser.new_page()
    answer = page.goto(address)
    assert answer.status == 401
    assert "address that it printed" in page.inner_text("body")
    page.close()


def test_a_studio_that_has_ended_is_reported_in_words(browser, app, access):
    with serving(app) as address:
        page = browser.new_page()
        page.goto(f"{address}/?token={access.token}")
        page.wait_for_selector(".easel img[data-shown]")
    page.locator("#code-unif0").fill("0.5")
    page.wait_for_selector("#notice.shown")
    assert "is it still running" in page.locator("#notice").inner_text()
    page.close()


def test_labels_and_large_categories_are_menus(browser, labelled_snapshot, access, tmp_path):
    with serving(server.make_app(Model(labelled_snapshot), tmp_path, access)) as address:
        page = browser.new_page()
        page.goto(f"{address}/?token={access.token}")
        page.wait_for_selector(".easel img[data-shown]")
        page.get_by_label("Class").select_option("2")
        shown(page, label=2)
        page.close()
