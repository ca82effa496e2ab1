"""The page, in a real browser: every step that a visitor takes."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    HttpCredentials,
    Locator,
    Page,
    Playwright,
    Route,
    ViewportSize,
    expect,
    sync_playwright,
)

from imgsearch.server.settings import Limits, Settings
from imgsearch.server.ui import fields
from tests.conftest import SAMPLES
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, id_of, image_bytes, serving
from tools import browser as browsers

SHIRT = SAMPLES / "images" / "10101.jpg"
PHONE: ViewportSize = {"width": 360, "height": 740}
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
# In milliseconds. Conditions are waited for: this bounds only how long a failure takes.
PATIENCE = 60_000

Open = Callable[..., Page]


# Chromium's own sandbox does not work as root in a container; it sees our own pages alone.
_OPTIONS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def path() -> str:
    try:
        return browsers.find()
    except browsers.BrowserUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def browser(playwright: Playwright, path: str) -> Iterator[Browser]:
    """For contexts with options of their own, none of which finds the page in a cache."""
    launched = playwright.chromium.launch(executable_path=path, args=_OPTIONS)
    yield launched
    launched.close()


@pytest.fixture(scope="module")
def context(
    playwright: Playwright, path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrowserContext]:
    """With a cache on disk, which holds the page's scripts and what they were compiled to."""
    shared = playwright.chromium.launch_persistent_context(
        tmp_path_factory.mktemp("browser"), executable_path=path, args=_OPTIONS
    )
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def served(sample_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(sample_store, folder / "store")
    settings = Settings(store=str(folder / "store"), data=folder / "home")
    with serving(settings, with_page=True) as served:
        yield served


@pytest.fixture
def visit(context: BrowserContext, served: Served) -> Iterator[Open]:
    """`visit("?k=3")` opens the page at an address, and waits until it shows something.

    Fails at the end where a page asked another host for anything, or had errors.
    """
    troubles: list[str] = []
    pages: list[Page] = []

    def open_page(
        address: str = "",
        size: ViewportSize = DESKTOP,
        base: str = "",
        within: BrowserContext = context,
        scheme: Literal["light", "dark"] = "light",
    ) -> Page:
        page = within.new_page()
        pages.append(page)
        page.set_default_timeout(PATIENCE)
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        page.on("pageerror", lambda error: troubles.append(f"script: {error}"))
        page.on("console", lambda line: troubles.extend(_errors(line)))
        page.on("request", lambda request: troubles.extend(_abroad(request.url)))
        page.goto((base or served.page) + "/" + address)
        expect(page.locator("#results [data-heading]")).to_be_visible()
        return page

    expect.set_options(timeout=PATIENCE)
    yield open_page
    for page in pages:
        if not page.is_closed():
            page.evaluate("localStorage.clear()")
            page.close()
    context.clear_cookies()
    assert troubles == []


def _errors(line: ConsoleMessage) -> list[str]:
    # A refusal by the service, which the page tells in words.
    is_refusal = line.text.startswith("Failed to load resource: the server responded")
    return [line.text] if line.type == "error" and not is_refusal else []


def _abroad(url: str) -> list[str]:
    parts = urlsplit(url)
    at_home = parts.scheme in ("data", "blob") or parts.hostname == "127.0.0.1"
    return [] if at_home else [f"it asks for {url}"]


def hits(page: Page) -> list[str]:
    """The scores of the hits that are shown."""
    return page.locator("#results .card-score > span:first-child").all_inner_texts()


def shows(page: Page, text: str | re.Pattern[str]) -> None:
    """Wait until the answer begins with a text."""
    expect(page.locator("#results [data-heading]")).to_have_text(text)


def asked(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


HITS = re.compile(r"^\d+ hits? in ")


def choose(page: Page, filter_: str, value: str) -> None:
    """Choose a value of a filter."""
    page.get_by_role("combobox", name=filter_).click()
    page.get_by_role("option", name=value, exact=True).click()


def test_it_begins_with_examples_to_click_and_goes_back(visit: Open) -> None:
    page = visit()
    shows(page, re.compile(r"images in collection images"))
    example = page.get_by_role("link", name=re.compile("^Find images similar to example 1:"))
    expect(example.locator("img")).to_have_js_property("complete", True)
    example.click()
    shows(page, HITS)
    assert float(hits(page)[0].split()[-1]) == pytest.approx(1, abs=1e-3)
    first = asked(page)["id"]

    page.get_by_role("link", name=re.compile("^Find images similar to hit 2:")).click()
    page.wait_for_url(lambda url: first[0] not in url)
    shows(page, HITS)
    page.go_back()
    page.wait_for_url(lambda url: first[0] in url)
    shows(page, HITS)
    page.go_back()
    shows(page, re.compile(r"images in collection images"))


def test_an_image_is_chosen_dropped_and_pasted(visit: Open) -> None:
    page = visit()
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Click to Upload").click()
    chooser.value.set_files(SHIRT)
    shows(page, HITS)
    assert hits(page)[0].endswith("1.000")
    expect(page.get_by_alt_text("Your image")).to_have_js_property("complete", True)
    chosen = asked(page)["image"]

    # A fresh page: by its address, and then by the two other ways.
    shared = visit("?image=" + chosen[0])
    shows(shared, HITS)
    expect(shared.get_by_alt_text("Your image")).to_be_visible()
    for way in ("drop", "paste"):
        page = visit()
        page.evaluate(HAND_OVER, [way, list(SHIRT.read_bytes())])
        shows(page, HITS)
        assert asked(page)["image"] == chosen


# What a browser tells a page of a file that is dropped on it, or pasted.
HAND_OVER = """([way, bytes]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], "a.jpg", { type: "image/jpeg" }));
    const told = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
    const event = way === "drop" ? new DragEvent(way, told) : new ClipboardEvent(way, told);
    document.querySelector("#image .upload-container button").dispatchEvent(event);
}"""


@pytest.mark.slow
def test_an_image_is_photographed(visit: Open) -> None:
    page = visit()
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#image video')?.videoWidth > 0")
    page.get_by_label("capture photo").click()
    shows(page, HITS)
    assert "image" in asked(page)
    expect(page.get_by_alt_text("Your image")).to_be_visible()


def test_a_file_that_is_no_image_is_explained(visit: Open) -> None:
    page = visit()
    choose = page.locator("#image input[type=file]")
    choose.set_input_files(SAMPLES / "awkward" / "text-named.jpg")
    shows(page, "not an image of a known format")
    assert "image" not in asked(page)
    choose.set_input_files(SHIRT)
    shows(page, HITS)


@pytest.mark.slow
def test_words_bounds_and_filters_narrow_the_answer(visit: Open) -> None:
    page = visit()
    page.get_by_label("Text", exact=True).fill("sneakers")
    page.get_by_label("Text", exact=True).press("Enter")
    shows(page, HITS)
    assert asked(page) == {"q": ["sneakers"]}
    before = len(hits(page))

    page.get_by_role("button", name="Filters").click()
    choose(page, "gender", "Men")
    page.wait_for_url(lambda url: "where" in url)
    shows(page, HITS)
    assert asked(page) == {"q": ["sneakers"], "where": ["gender=Men"]}
    assert 0 < len(hits(page)) < before

    page.get_by_label("year from").fill("3000")
    page.keyboard.press("Tab")
    shows(page, "No hits.")
    expect(page.get_by_text("No image that matches the text passes the filters")).to_be_visible()
    expect(page.get_by_role("combobox", name="gender")).to_have_value("Men")
    page.get_by_role("link", name="Search without filters").click()
    shows(page, HITS)
    assert len(hits(page)) == before
    expect(page.get_by_role("combobox", name="gender")).to_have_value("any")


def test_an_address_tells_the_whole_search(visit: Open) -> None:
    shirt = id_of(SHIRT)
    page = visit(f"?id={shirt}&k=3&min_score=0.99&where=gender%3DWomen")
    shows(page, "No hits.")
    expect(page.get_by_text("which is below the minimum of 0.99")).to_be_visible()
    expect(page.get_by_label("number input for Hits")).to_have_value("3")
    expect(page.get_by_label("number input for Minimum score")).to_have_value("0.99")
    page.get_by_role("link", name="Search without a minimum score").click()
    shows(page, re.compile("^3 hits in "))
    assert asked(page) == {"id": [shirt], "k": ["3"], "where": ["gender=Women"]}


@pytest.mark.parametrize(
    "address",
    [
        "?k=none",
        pytest.param("?id=nobody", marks=pytest.mark.slow),
        pytest.param("?q=a&where=nothing", marks=pytest.mark.slow),
        pytest.param("?image=gone", marks=pytest.mark.slow),
    ],
)
def test_what_an_address_asks_for_in_vain_is_told(visit: Open, address: str) -> None:
    page = visit(address)
    expect(page.locator(".error [data-heading]")).to_be_visible()
    page.get_by_role("link", name="Start over").click()
    shows(page, re.compile(r"images in collection images"))


@pytest.mark.slow
def test_filters_alone_show_what_passes_them_and_are_taken_off_one_by_one(visit: Open) -> None:
    page = visit()
    page.get_by_role("button", name="Filters").click()
    choose(page, "gender", "Women")
    shows(page, re.compile(r"^\d+ images pass the filters\.$"))
    choose(page, "season", "Summer")
    page.wait_for_url(lambda url: "Summer" in url)
    shows(page, re.compile(r"^\d+ images? pass(es)? the filters\.$"))
    page.get_by_role("link", name="Without the filter gender=Women").click()
    page.wait_for_url(lambda url: "Women" not in url)
    shows(page, re.compile(r"^\d+ images pass the filters\.$"))
    assert asked(page) == {"where": ["season=Summer"]}


@pytest.mark.slow
def test_a_hit_whose_file_is_not_the_one_that_was_indexed_says_so(visit: Open) -> None:
    page = visit("?q=shirt")
    cards = page.locator("#results .card").count()
    assert cards
    page.route("**/thumbnail", lambda route: route.fulfill(status=404, json={"detail": "gone"}))
    page.reload()
    images = page.locator("#results .card img")
    expect(images).to_have_count(cards)
    expect(images.first).to_have_js_property("complete", True)
    # A browser shows the text in the place of an image that it cannot load.
    assert images.first.evaluate("(each) => each.naturalWidth") == 0
    expect(images.first).to_have_attribute("alt", re.compile("changed since it was indexed"))


@pytest.mark.slow
def test_numbers_that_are_being_typed_break_nothing(visit: Open) -> None:
    page = visit("?id=" + id_of(SHIRT))
    number = page.get_by_label("number input for Hits")
    for typed, k in (("", ""), ("500", "&k=200"), ("3", "&k=3")):
        number.fill(typed)
        page.wait_for_url(f"**/?id={id_of(SHIRT)}{k}")
        shows(page, HITS)
    assert len(hits(page)) == 3
    page.get_by_label("number input for Minimum score").fill("5")
    page.wait_for_url(lambda url: "min_score=1" in url)
    shows(page, re.compile(HITS.pattern + "|^No hits"))


@pytest.mark.slow
def test_a_minimum_score_is_left_out_of_words_alone(visit: Open) -> None:
    page = visit("?q=sneakers&min_score=0.5")
    shows(page, HITS)
    expect(page.get_by_text("needs an image")).to_be_visible()
    expect(page.get_by_role("list", name="Hits, the most relevant first")).to_be_visible()


@pytest.mark.slow
def test_of_what_is_asked_in_a_hurry_the_last_is_shown(visit: Open) -> None:
    page = visit()

    def slowly(route: Route) -> None:
        page.wait_for_timeout(700)
        route.continue_()

    page.route("**/run/predict*", slowly)
    names = [re.compile(f"^Find images similar to example {number}:") for number in (2, 3)]
    last = page.get_by_role("link", name=names[1])
    href = last.get_attribute("href")
    page.get_by_role("link", name=names[0]).click()
    last.click()
    page.wait_for_url("**/" + str(href))
    name = urlsplit(str(href)).query.removeprefix("id=")
    expect(page.locator("[data-marker] img")).to_have_attribute("src", re.compile(name))
    shows(page, HITS)
    page.unroute_all(behavior="wait")
    assert asked(page) == {"id": [name]}


@pytest.mark.parametrize(
    "way", ["link", *(pytest.param(each, marks=pytest.mark.slow) for each in ("button", "filter"))]
)
def test_a_search_that_is_not_answered_can_be_repeated(visit: Open, way: str) -> None:
    page = visit("?id=" + id_of(SHIRT))
    page.get_by_role("button", name="Filters").click()
    expect(page.get_by_role("combobox", name="gender")).to_be_visible()
    refusal = {"detail": "too many requests are in progress"}
    page.route("**/run/predict*", lambda route: route.fulfill(status=429, json=refusal))
    if way == "link":
        page.get_by_role("link", name=re.compile("^Find images similar to hit 2:")).click()
    elif way == "button":
        page.get_by_label("Text", exact=True).fill("shirt")
        page.get_by_role("button", name="Search", exact=True).click()
    else:
        choose(page, "gender", "Women")
    again = page.get_by_role("button", name="The service did not answer; it may be busy. Try again")
    expect(again).to_be_visible()
    expect(page.get_by_label("Text", exact=True)).to_have_value("shirt" if way == "button" else "")
    page.unroute("**/run/predict*")
    again.click()
    expect(again).to_be_hidden()
    shows(page, HITS)
    if way == "link":
        assert asked(page)["id"] != [id_of(SHIRT)]
    elif way == "button":
        assert asked(page)["q"] == ["shirt"]
    else:
        assert asked(page)["where"] == ["gender=Women"]


@pytest.mark.slow
def test_a_server_that_was_away_is_asked_again(browser: Browser, served: Served) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(served.page + "/?id=" + id_of(SHIRT))
    shows(page, HITS)
    context.set_offline(True)
    link = page.get_by_role("link", name=re.compile("^Find images similar to hit 2:"))
    href = str(link.get_attribute("href"))
    link.click()
    expect(page.get_by_text("Connection to the server was lost")).to_be_visible()
    context.set_offline(False)
    # Gradio loads the page again, and its address holds the search.
    expect(page.locator("[data-marker] img")).to_have_attribute("src", re.compile(href[4:]))
    shows(page, HITS)
    assert asked(page)["id"] == [href[4:]]
    context.close()


@pytest.mark.slow
def test_on_a_phone_an_answer_out_of_sight_is_pointed_at(visit: Open) -> None:
    page = visit("?id=" + id_of(SHIRT), PHONE)
    jump = page.get_by_role("button", name=re.compile(r"^\d+ hits in .* ↓$"))
    expect(jump).to_be_in_viewport()
    jump.click()
    expect(page.locator("#results [data-heading]")).to_be_in_viewport()
    page.get_by_label("Text", exact=True).fill("shirt")
    page.get_by_label("Text", exact=True).press("Enter")
    page.wait_for_url(lambda url: "q=shirt" in url)
    shows(page, HITS)
    expect(page.locator("#results [data-heading]")).to_be_in_viewport()


def adding(page: Page, files: list[Path]) -> Locator:
    """Choose files in the tab of the page that adds images, and wait until they are sent."""
    page.get_by_role("tab", name="Add images").click()
    form = page.locator("#adding")
    form.get_by_label("Images, or zips").set_input_files(files)
    expect(form.locator("[data-sent]")).to_have_text(re.compile(rf"^\d+ of {len(files)} sent\.$"))
    return form


@pytest.mark.slow
def test_one_file_that_is_too_large_keeps_no_other_from_being_added(
    visit: Open, tmp_path: Path
) -> None:
    for number in (7, 8):
        (tmp_path / f"{number}.png").write_bytes(image_bytes(number + 100))
    (tmp_path / "large.png").write_bytes(bytes(300_000))
    settings = filled(tmp_path / "served", 3, limits=Limits(body=300_000))
    with serving(settings, ColorEncoder(), with_page=True) as small:
        page = visit(base=small.page)
        page.get_by_label("Text", exact=True).fill("half typed")
        form = adding(page, [tmp_path / name for name in ("7.png", "large.png", "8.png")])
        form.get_by_role("button", name="Add").click()
        expect(form.locator("#added")).to_contain_text("2 added, 1 could not be used.")
        rejected = form.get_by_role("list", name="Files that could not be used")
        expect(rejected).to_contain_text(re.compile("large.png: .*300,000 bytes"))

        form = adding(page, [tmp_path / "8.png"])
        form.get_by_role("button", name="Add").click()
        again = "0 added, 1 were there already, 0 could not be used."
        expect(form.locator("#added")).to_contain_text(again)
        page.get_by_role("tab", name="Search").click()
        expect(page.get_by_label("Text", exact=True)).to_have_value("half typed")
        page.close()


def test_a_part_is_marked_by_the_mouse_and_by_the_keyboard(visit: Open) -> None:
    page = visit("?k=4&id=" + id_of(SHIRT))
    whole = hits(page)
    page.locator("[data-marker] img").scroll_into_view_if_needed()
    expect(page.locator("[data-marker] img")).to_have_js_property("complete", True)
    box = page.locator("[data-marker]").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.5)
    page.mouse.up()
    page.wait_for_url(lambda url: "region" in url)
    shows(page, HITS)
    edges = [float(each) for each in asked(page)["region"][0].split(",")]
    assert edges == pytest.approx([0.25, 0.25, 0.75, 0.5], abs=0.02)
    expect(page.get_by_text("Searching with this part")).to_be_visible()
    assert hits(page) != whole

    page.get_by_role("link", name="Whole image").click()
    page.wait_for_url(lambda url: "region" not in url)
    expect(page.get_by_text("Searching with this image")).to_be_visible()
    page.get_by_text("Search with a part", exact=True).press("Enter")
    page.get_by_label("Left", exact=True).press("ArrowUp")
    page.get_by_role("button", name="Search with this part").press("Enter")
    page.wait_for_url(lambda url: "region" in url)
    shows(page, HITS)
    assert asked(page)["region"] == ["0.01,0,1,1"]


def test_it_can_be_used_by_keyboard_and_read_aloud(visit: Open) -> None:
    page = visit()
    page.locator("#results [role=status]").evaluate("(each) => { each.seen = 'before'; }")
    page.get_by_role("link", name=re.compile("^Find images similar to example 2:")).press("Enter")
    shows(page, HITS)
    # The same element holds the text of each answer, so that a change is announced.
    expect(page.locator("#results [role=status]")).to_have_text(HITS)
    expect(page.locator("#results [role=status]")).to_have_js_property("seen", "before")
    expect(page.locator("#results [data-heading]")).to_be_focused()
    page.keyboard.press("Tab")
    first = page.get_by_role("link", name=re.compile("^Find images similar to hit 1:"))
    expect(first).to_be_focused()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('img:not([alt])')].map((each) => each.outerHTML)"
    )
    assert unnamed == []


def test_images_are_added_with_a_description_and_found(visit: Open, tmp_path: Path) -> None:
    fresh = tmp_path / "a <b>new one.png"
    fresh.write_bytes(image_bytes(5))
    page = visit()
    form = adding(page, [fresh, SAMPLES / "awkward" / "text-named.jpg"])
    hostile = "patchwork <i>quilt</i> ${document.title = 1} {{7*7}} `"
    form.get_by_label("Description").fill(hostile)
    form.get_by_role("button", name="Add").click()
    expect(form.locator("#added")).to_contain_text("1 added, 1 could not be used.")
    expect(form.locator("#added")).to_contain_text("text-named.jpg: not an image")

    page = visit("?q=quilt")
    shows(page, re.compile("^1 hit in "))
    expect(page.locator(".card-title")).to_have_text(hostile)
    expect(page).to_have_title(re.compile("^1 hit in .* . imgsearch$"))


@pytest.mark.slow
def test_a_file_is_sent_again_while_the_service_is_busy(visit: Open, tmp_path: Path) -> None:
    fresh = tmp_path / "busy.png"
    fresh.write_bytes(image_bytes(77))
    page = visit()
    refused: list[str] = []

    def once(route: Route) -> None:
        if refused:
            return route.continue_()
        refused.append(route.request.method)
        return route.fulfill(status=429, json={"detail": "busy"}, headers={"Retry-After": "1"})

    page.route("**/gradio_api/upload*", once)
    form = adding(page, [fresh])
    form.get_by_role("button", name="Add").click()
    expect(form.locator("#added")).to_contain_text("1 added, 0 could not be used.")
    assert refused == ["POST"]


@pytest.mark.slow
def test_adding_shows_its_progress_and_can_be_cancelled(visit: Open, tmp_path: Path) -> None:
    files = []
    for number in range(60):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(image_bytes(1000 + number))
    encoder = ColorEncoder()
    with serving(filled(tmp_path / "served", 3), encoder, with_page=True) as slow:
        encoder.gate = threading.Event()
        page = visit(base=slow.page)
        form = adding(page, files)
        form.get_by_role("button", name="Add").click()
        expect(form.get_by_text(re.compile("0/60 images"))).to_be_visible()
        form.get_by_role("button", name="Cancel").click()
        encoder.gate.set()
        expect(form.locator("#added")).to_contain_text(re.compile(r"Cancelled: \d+ added"))
        expect(form.locator("#added")).to_contain_text("were not added: choose them again")
        expect(form.get_by_role("button", name="Cancel")).to_be_hidden()
        page.close()


@pytest.mark.slow
def test_a_large_collection_can_be_filtered_by_a_value_that_is_not_offered(
    visit: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit().close()  # two pages of one process disturb each other while they start
    monkeypatch.setattr(fields, "_MOST_READ", 2)
    monkeypatch.setattr(fields, "_SAMPLE", 2)
    with serving(filled(tmp_path, 8), ColorEncoder(), with_page=True) as large:
        page = visit(base=large.page)
        page.get_by_role("button", name="Filters").click()
        page.get_by_label("number from").fill("7")
        page.get_by_label("number from").press("Enter")
        shows(page, re.compile("^1 image passes"))
        page.get_by_role("link", name="Clear filters").click()
        shows(page, re.compile("^8 images in"))
        kind = page.get_by_role("combobox", name="kind")
        expect(kind).to_have_value("any")
        kind.fill("even")
        kind.press("Enter")
        shows(page, re.compile("^4 images pass"))
        page.close()  # before its service ends, which it would miss


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(PHONE, "dark", id="phone, dark"),
        pytest.param(PHONE, "light", id="phone, light", marks=pytest.mark.slow),
        pytest.param(DESKTOP, "dark", id="desktop, dark", marks=pytest.mark.slow),
        pytest.param(DESKTOP, "light", id="desktop, light", marks=pytest.mark.slow),
    ],
)
def test_it_fits_phones_and_follows_the_dark(
    visit: Open, size: ViewportSize, scheme: str, tmp_path: Path
) -> None:
    page = visit("?k=6&id=" + id_of(SHIRT), size, scheme=scheme)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shades = [int(each) for each in re.findall(r"\d+", color)[:3]]
    assert (max(shades) < 80) == (scheme == "dark")


@pytest.mark.slow
def test_without_a_collection_it_tells_how_to_make_one(visit: Open, tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path / "secret"), data=tmp_path / "home")
    with serving(settings, with_page=True) as empty:
        page = visit(base=empty.page)
        shows(page, "There is no collection images yet.")
        expect(page.get_by_text("imgsearch ingest ./my-images")).to_be_visible()
        assert "secret" not in page.content()


def test_with_a_key_the_browser_asks_for_it(visit: Open, browser: Browser, tmp_path: Path) -> None:
    settings = filled(tmp_path, 3, api_key="open sesame")
    with serving(settings, ColorEncoder(), with_page=True) as locked:
        for path in ("", "config", "gradio_api/info", "theme.css", "v1/collections", "assets/x"):
            answer = locked.client.get(f"{locked.page}/{path}")
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Basic ")
        credentials: HttpCredentials = {"username": "anyone", "password": "open sesame"}
        context = browser.new_context(http_credentials=credentials)
        page = visit(base=locked.page, within=context)
        page.get_by_role("link", name=re.compile("^Find images similar to example 1:")).click()
        shows(page, HITS)
        expect(page.locator(".card img").first).to_have_js_property("complete", True)
        assert page.locator(".card img").first.evaluate("(each) => each.naturalWidth") > 0
