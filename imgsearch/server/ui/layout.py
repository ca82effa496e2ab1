"""The page's layout in Gradio. The only module that imports Gradio."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

# Before Gradio is imported, or it reports each start to its makers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp

from imgsearch.server.ui.rendering import render
from imgsearch.server.ui.state import DEFAULT_K, MAX_K
from imgsearch.server.ui.views import View, Views

# Visitors whose state Gradio remembers, which is next to nothing here.
_MAX_SESSIONS = 200

_HEAD = '<link rel="stylesheet" href="page.css"><script src="page.js" defer></script>'
# The address is the whole state of the page. The values of the controls become part of it; they are
# not sent themselves, as Gradio rejects a number that is still being typed.
_HERE = f"() => [window.location.search, '', {DEFAULT_K}, 0]"
_ASK = f"(...given) => [window.imgsearch.ask(...given.slice(1)), '', {DEFAULT_K}, 0]"

_ANSWERED = "() => window.imgsearch?.answered()"

# The system's own fonts: others would have to be fetched.
_FONT = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
_MONO = [gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")]

# Plain requests, without Gradio's queue: the service has its own. Not for other clients.
_QUIETLY: Any = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}


def gradio_app(views: Views, collection: str, most_bytes: int) -> tuple[ASGIApp, Mapping[int, int]]:
    """Return Gradio's app, and the number of inputs of each of its functions by its index.

    One request may add `most_bytes` of images.

    For a thread without an event loop: else Gradio makes some of its own, and closes none of them.
    """
    return asyncio.run(_built(views, collection, most_bytes))


async def _built(
    views: Views, collection: str, most_bytes: int
) -> tuple[ASGIApp, Mapping[int, int]]:
    with gr.Blocks(title="imgsearch", analytics_enabled=False, fill_width=True) as blocks:
        _lay_out(blocks, views, collection, most_bytes)
    blocks.state_session_capacity = _MAX_SESSIONS
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
                # Their reset buttons would not tell the page.
                plain: Any = {"min_width": 200, "buttons": []}
                k = gr.Slider(1, MAX_K, DEFAULT_K, step=1, label="Hits", elem_id="k", **plain)
                least = gr.Slider(
                    0, 1, 0, step=0.01, label="Minimum score", elem_id="least", **plain
                )
            search = gr.Button("Search", variant="primary", elem_id="search")
            with gr.Accordion("Filters", open=False):
                filters = _html("filters")
            with gr.Accordion("Add images to the collection", open=False):
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
    # By a link: the controls are set as the address says.
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
    # By the page's own controls, which stay as they are.
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
    """A part of the page that is plain HTML, without Gradio's style and script."""
    return gr.HTML(html, elem_id=name, apply_default_css=False, js_on_load=None)


def _settings(view: View) -> tuple[str, int, float]:
    state = view.state
    return state.words, state.k, max(0.0, state.min_score or 0.0)
