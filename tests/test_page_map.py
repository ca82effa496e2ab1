"""The map in the page, in a real browser."""

import re
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.fakes import ColorEncoder
from tests.serving import filled, id_of, serving
from tests.test_map_viewer import DESKTOP, PATIENCE, browser

pytest.importorskip("openTSNE")

__all__ = ["browser"]  # a fixture


@pytest.mark.slow
def test_the_map_is_drawn_and_leads_to_a_search(tmp_path: Path, browser: Browser) -> None:
    with serving(filled(tmp_path, images=9), ColorEncoder(), with_page=True) as served:
        page = browser.new_page(viewport=DESKTOP)
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        page.goto(served.page)
        page.get_by_role("tab", name="Map").click()
        expect(page.locator("#map-status")).to_contain_text("It has not been drawn yet")
        page.get_by_role("button", name="Draw the map").click()
        frame = page.frame_locator("#map iframe")
        frame.locator("html[data-ready]").wait_for(state="attached")
        expect(page.locator("#map-status")).to_contain_text("9 images, drawn just now")
        expect(page.get_by_role("button", name="Update the map")).to_be_visible()

        (inner,) = [each for each in page.frames if "/map?" in each.url]
        box = page.locator("#map iframe").bounding_box()
        assert box
        x, y = inner.evaluate("imgsearchMap.toScreen(0)")
        page.mouse.click(box["x"] + x, box["y"] + y)
        frame.get_by_role("button", name="Search with this image").click()
        expect(page.get_by_role("tab", name="Search")).to_have_attribute("aria-selected", "true")
        expect(page.locator("#results [data-heading]")).to_have_text(re.compile("^9 hits"))
        ids = {id_of(tmp_path / "shop" / f"{number}.png") for number in range(9)}
        assert page.url.partition("?id=")[2] in ids

        # Coming back shows the same map, without loading it again.
        inner.evaluate("globalThis.untouched = true")
        page.get_by_role("tab", name="Map").click()
        expect(frame.get_by_role("button", name="Search with this image")).to_be_visible()
        assert inner.evaluate("globalThis.untouched") is True
        assert troubles == []
        page.close()


@pytest.mark.slow
def test_the_page_says_what_the_map_needs(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    with serving(filled(tmp_path, images=3), ColorEncoder(), with_page=True) as served:
        page = browser.new_page(viewport=DESKTOP)
        expect.set_options(timeout=PATIENCE)
        page.goto(served.page)
        page.get_by_role("tab", name="Map").click()
        page.get_by_role("button", name="Draw the map").click()
        expect(page.locator("#map-status .error")).to_contain_text("imgsearch-cli[map]")
        page.close()
