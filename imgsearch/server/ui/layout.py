"""The page's layout, in Gradio's parts where they serve. The only module that imports Gradio."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

# Before it is imported: else it would tell its makers of each start.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp

from imgsearch.server.ui.links import DEFAULT_K, MAX_K
from imgsearch.server.ui.rendering import render
from imgsearch.server.ui.views import View, Views

# Of visitors, of whom Gradio remembers next to nothing here.
_MOST_SESSIONS = 200

_HEAD = '<link rel="stylesheet" href="page.css"><script src="page.js" defer></script>'
# All that the server needs to know of the page's state is its address. What the controls hold goes
# into that; by itself it does not go out, as Gradio refuses a number that is still being typed.
_HERE = f"() => [window.location.search, '', {DEFAULT_K}, 0]"
_ASK = f"(...given) => [window.imgsearch.ask(...given.slice(1)), '', {DEFAULT_K}, 0]"

_ANSWERED = "() => window.imgsearch?.answered()"

# The systems' own: others would have to be fetched.
_FONT = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
_MONO = [gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")]

# Straight requests, without Gradio's queue: the service has its own. Nobody else is to call them.
_QUIETLY: Any = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}


def gradio_app(views: Views, collection: str, most_bytes: int) -> tuple[ASGIApp, Mapping[int, int]]:
    """Gradio's app, which asks `views`; one request may add `most_bytes` of pictures.

    And how many inputs each of its functions has, by the number that a question gives.

    For a thread without an event loop: else Gradio makes some of its own, and closes none of them.
    """
    return asyncio.run(_built(views, collection, most_bytes))


async def _built(
    views: Views, collection: str, most_bytes: int
) -> tuple[ASGIApp, Mapping[int, int]]:
    with gr.Blocks(title="imgsearch", analytics_enabled=False, fill_width=True) as blocks:
        _lay_out(blocks, views, collection, most_bytes)
    blocks.state_session_capacity = _MOST_SESSIONS
    app = FastAPI(openapi_url=None)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=0,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Soft(primary_hue="indigo", font=_FONT, font_mono=_MONO),
        head=_HEAD,
    )
    functions = {number: len(each.inputs) for number, each in blocks.fns.items() if each.fn}
    return mounted, functions


def _lay_out(blocks: gr.Blocks, views: Views, collection: str, most_bytes: int) -> None:
    _html("header", render("header.html", collection=collection))
    with gr.Row(elem_id="columns"):
        with gr.Column(elem_id="question", min_width=280):
            _html("picture", render("picture.html"))
            query = _html("query")
            words = gr.Textbox(
                label="Words",
                placeholder="in descriptions and metadata",
                elem_id="words",
                max_length=500,
            )
            with gr.Row(elem_id="bounds"):
                # Their buttons would set them back without a word to the page.
                plain: Any = {"min_width": 200, "buttons": []}
                k = gr.Slider(1, MAX_K, DEFAULT_K, step=1, label="Hits", elem_id="k", **plain)
                least = gr.Slider(
                    0, 1, 0, step=0.01, label="Minimum score", elem_id="least", **plain
                )
            search = gr.Button("Search", variant="primary", elem_id="search")
            with gr.Accordion("Filters", open=False):
                filters = _html("filters")
            with gr.Accordion("Add pictures to the collection", open=False):
                _html("adding", render("adding.html", collection=collection, most=most_bytes))
        with gr.Column(elem_id="answer", scale=3, min_width=280):
            results = _html("results", render("waiting.html"))
    address = gr.Textbox(visible=False)
    visit = gr.Button("Visit", visible="hidden", elem_id="visit")
    ask = gr.Button("Ask", visible="hidden", elem_id="ask")
    look = gr.Button("Look again", visible="hidden", elem_id="look")
    settings = [address, words, k, least]

    async def show(address: str, *_: object) -> list[Any]:
        view = await views.show(address)
        return [view.query, view.results]

    async def show_all(address: str, *_: object) -> list[Any]:
        view = await views.show(address)
        return [view.query, view.results, *_settings(view)]

    parts = [query, results]
    # By a link: the whole page is set as the address says.
    visited = gr.on(
        [visit.click, blocks.load],
        show_all,
        settings,
        [*parts, words, k, least],
        js=_HERE,
        trigger_mode="always_last",
        **_QUIETLY,
    )
    gr.on(
        [visit.click, look.click, blocks.load],
        views.filters,
        [address],
        [filters],
        js="() => [window.location.search]",
        trigger_mode="always_last",
        **_QUIETLY,
    )
    # By the page's own controls: they are left as they are.
    answered = gr.on(
        [ask.click, look.click, search.click, words.submit, k.input, least.input],
        show,
        settings,
        parts,
        js=_ASK,
        trigger_mode="always_last",
        **_QUIETLY,
    )
    for event in (visited, answered):
        event.then(None, js=_ANSWERED, api_visibility="private", queue=False)


def _html(name: str, html: str = "") -> gr.HTML:
    """A part of the page that is not Gradio's, with no style and no script of its."""
    return gr.HTML(html, elem_id=name, apply_default_css=False, js_on_load=None)


def _settings(view: View) -> tuple[str, int, float]:
    asked = view.asked
    return asked.words, asked.k, max(0.0, asked.min_score or 0.0)
