"""The page in Gradio: its components, and what happens on their events.

The query string of the page's address is the state of a search (`state.py`), which comes with each
event. A link to another search changes the address, and `visit` shows what it asks for; a control
changes the state, and the page's address follows (`page.js`).
"""

import secrets
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from cachetools import LRUCache
from gradio.events import Dependency, api

from imgsearch.errors import UsageError
from imgsearch.server.jobs.job import Job
from imgsearch.server.ui.adding import Adding
from imgsearch.server.ui.fields import Filter, settings
from imgsearch.server.ui.mapping import Mapping, MapView
from imgsearch.server.ui.rendering import plain_text, render
from imgsearch.server.ui.state import DEFAULT_K, MAX_K, SearchState
from imgsearch.server.ui.views import View, Views

# Plain requests without Gradio's queue, as the service bounds them itself. Without `preprocess`, as
# Gradio rejects a number that is still being typed.
_SEARCH: Any = {
    "queue": False,
    "preprocess": False,
    "trigger_mode": "always_last",
    "show_progress": "minimal",
    "api_visibility": "private",
}
# Sessions whose filters Gradio keeps, about 75 kB each; clients name them as they like.
_MAX_SESSIONS = 1000
# Calls of `/search` at a time, which hold their images in memory, and calls that wait.
_MAX_CALLS = 8
_MAX_QUEUED = 100
_PRIVATE: Any = {"api_visibility": "private"}
_SEND = """const [input, status] = element.querySelectorAll("input, p");
input.onchange = async () => {
  props.value = await imgsearch.send([...input.files], status, upload);
};"""
_SCRIPT: Any = {**_PRIVATE, "queue": False, "show_progress": "hidden"}


def build_blocks(
    views: Views, adding: Adding, mapping: Mapping, search: Callable[..., Any]
) -> gr.Blocks:
    """Return the page; `search` is its endpoint for programs.

    For a running event loop: else Gradio makes some, and closes none of them.
    """
    blocks: gr.Blocks
    with gr.Blocks(title="imgsearch", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(
            render("header.html", collection=views.collection), elem_id="header", js_on_load=None
        )
        with gr.Tabs():
            with gr.Tab("Search"):
                _search_tab(blocks, views)
            with gr.Tab("Map") as tab:
                _map_tab(tab, mapping)
            with gr.Tab("Add images"):
                _add_tab(adding)
        api(search, api_name="search", concurrency_limit=_MAX_CALLS)
    blocks.state_session_capacity = _MAX_SESSIONS
    blocks.queue(max_size=_MAX_QUEUED)
    return blocks


def _search_tab(blocks: gr.Blocks, views: Views) -> None:
    with gr.Row(elem_id="columns"):
        with gr.Column(elem_id="question", min_width=280):
            image = gr.Image(
                label="Image",
                type="filepath",
                sources=["upload", "webcam", "clipboard"],
                height=190,
                elem_id="image",
            )
            query = gr.HTML(elem_id="query", apply_default_css=False, js_on_load=None)
            text = gr.Textbox(
                label="Text",
                placeholder="in descriptions and metadata",
                max_length=500,
                elem_id="text",
            )
            k = gr.Slider(1, MAX_K, DEFAULT_K, step=1, label="Hits", buttons=[])
            least = gr.Slider(0, 1, 0, step=0.01, label="Minimum score", buttons=[])
            sure = gr.Checkbox(label="Only confident hits", elem_id="confident")
            button = gr.Button("Search", variant="primary", elem_id="search")
            filters = gr.Textbox(visible=False)
            filters_accordion = gr.Accordion("Filters", open=False)
            jump = gr.Button("Results ↓", elem_id="jump")
        with gr.Column(elem_id="answer", scale=3, min_width=280):
            retries = [_retry_button() for _ in range(3)]
            results = gr.HTML(
                elem_id="results", apply_default_css=False, js_on_load="imgsearch.connect(trigger)"
            )
    address = gr.Textbox(visible=False)
    controls = [text, k, least, sure]
    answer = [query, results, address]
    # By a key of each visit: what a client sends itself could be any number of filters.
    visits: LRUCache[str, list[tuple[Filter, str]]] = LRUCache(_MAX_SESSIONS)
    lock = threading.Lock()

    def shown(view: View) -> list[Any]:
        return [view.query, view.results, view.address]

    async def visit(request: gr.Request) -> list[Any]:
        """Show what the address asks for, and set the controls by it."""
        view = await views.visit(f"?{request.query_params}")
        state = view.state
        key = secrets.token_urlsafe(16)
        shown_filters = await views.filters(state)
        with lock:
            visits[key] = shown_filters
        least = max(0.0, state.min_score or 0.0)
        return [*shown(view), key, state.text, state.k, least, state.confident]

    async def search_with_controls(
        request: gr.Request,
        file: dict[str, Any] | None,
        text: str | None,
        k: float | None,
        least: float | None,
        sure: bool | None,
    ) -> list[Any]:
        """Search with what the controls are set to, and the rest of the address."""
        state = _changed(request, text, k, least, sure)
        view = await (views.show_with(state, Path(file["path"])) if file else views.show(state))
        return [*shown(view), None]

    visited = gr.on(
        [blocks.load, results.click, retries[0].click],
        visit,
        None,
        [*answer, filters, *controls],
        **_SEARCH,
    )
    searched = gr.on(
        [
            *(button.click, text.submit, k.input, least.input, sure.input, image.input),
            retries[1].click,
        ],
        search_with_controls,
        [image, *controls],
        [*answer, image],
        **_SEARCH,
    )
    _offer(retries[0], visited)
    _offer(retries[1], searched)
    results.change(None, address, jump, js="(to) => imgsearch.answered(to)", **_SCRIPT)
    jump.click(None, js="() => document.querySelector('#results').scrollIntoView()", **_SCRIPT)

    with filters_accordion:

        @gr.render(filters, queue=False, show_progress="hidden")  # type: ignore[untyped-decorator]
        def show_filters(key: str | None) -> None:
            with lock:
                given = visits.get(key or "", [])
            known = [each for each, _ in given]
            inputs = [_control(each, value) for each, value in given]

            async def narrow(
                request: gr.Request,
                text: str,
                k: float | None,
                least: float | None,
                sure: bool | None,
                *given: str | None,
            ) -> list[Any]:
                """Search with the conditions that the filters are set to."""
                before = _changed(request, text, k, least, sure)
                conditions = [
                    each.condition(value) for each, value in zip(known, given, strict=True)
                ]
                others = settings(known, before.where)[1]
                state = replace(before, where=(*filter(None, conditions), *others))
                # Leaving a number that has not changed is no search.
                is_new = state != _state(request)
                return shown(await views.show(state)) if is_new else [gr.skip()] * len(answer)

            triggers = [
                event
                for each in inputs
                for event in (
                    [each.submit, each.blur] if isinstance(each, gr.Textbox) else [each.input]
                )
            ]
            if not inputs:
                gr.HTML(render("no_filters.html"))
                return
            narrowed = gr.on(
                [*triggers, retries[2].click], narrow, [*controls, *inputs], answer, **_SEARCH
            )
            _offer(retries[2], narrowed)


def _state(request: gr.Request) -> SearchState:
    """Return the state that the page's address says; the default one if it makes no sense."""
    try:
        return SearchState.parse(str(request.query_params))
    except UsageError:
        return SearchState()


def _changed(
    request: gr.Request,
    text: str | None,
    k: float | None,
    least: float | None,
    sure: bool | None,
) -> SearchState:
    """Return the address's state with what the controls are set to; numbers may be incomplete."""
    return replace(
        _state(request),
        text=(text or "").strip(),
        k=min(MAX_K, max(1, round(k))) if k else DEFAULT_K,
        min_score=min(1.0, least) if least and least > 0 else None,
        confident=bool(sure),
    )


def _control(each: Filter, value: str) -> gr.Dropdown | gr.Textbox:
    """Return the control of a filter, set to a value."""
    name = plain_text(each.name)
    if each.kind == "number":
        label = f"{name} {'from' if each.operator == '>=' else 'to'}"
        # gr.Number cannot be empty.
        return gr.Textbox(value, label=label, placeholder=each.hint, interactive=True)
    choices = [*each.choices, *([value] if value and value not in each.choices else [])]
    return gr.Dropdown(
        [("any", ""), *((plain_text(choice), choice) for choice in choices)],
        value=value,
        label=name,
        allow_custom_value=each.kind == "text",
        interactive=True,
    )


def _retry_button() -> gr.Button:
    return gr.Button(
        "The service did not answer; it may be busy. Try again",
        visible=False,
        variant="stop",
        elem_classes="retry",
    )


def _offer(retry: gr.Button, event: Dependency) -> None:
    """Offer to repeat a request that the service did not answer."""
    show = "() => ({ __type__: 'update', visible: %s })"
    event.success(None, None, retry, js=show % "false", **_SCRIPT)
    event.failure(None, None, retry, js=show % "true", **_SCRIPT)


def _map_tab(tab: gr.Tab, mapping: Mapping) -> None:
    with gr.Column(elem_id="mapping"):
        status = gr.HTML(elem_id="map-status", apply_default_css=False, js_on_load=None)
        with gr.Row():
            draw_button = gr.Button(visible=False, variant="primary")
            cancel_button = gr.Button("Cancel", visible=False)
        shown = gr.HTML(elem_id="map", apply_default_css=False, js_on_load=None)
    job = gr.Textbox(visible=False)

    async def values(views: AsyncIterator[MapView]) -> AsyncIterator[list[Any]]:
        last = None
        async for view in views:
            button = gr.Button(view.button, visible=bool(view.button))
            # The same map is not loaded again.
            changed = gr.skip() if last and last.map == view.map else view.map
            yield [view.status, changed, button, gr.Button(visible=bool(view.job)), view.job]
            last = view

    async def show() -> AsyncIterator[list[Any]]:
        """Show the map, and the progress of the job that draws it."""
        async for each in values(mapping.show()):
            yield each

    async def draw() -> AsyncIterator[list[Any]]:
        """Draw the map, and show it."""
        async for each in values(mapping.draw()):
            yield each

    outputs = [status, shown, draw_button, cancel_button, job]
    options: Any = {**_PRIVATE, "show_progress": "hidden", "concurrency_limit": _MAX_CALLS}
    tab.select(show, None, outputs, **options)
    draw_button.click(draw, None, outputs, **options)
    cancel_button.click(mapping.cancel, job, None, queue=False, **_PRIVATE)


def _add_tab(adding: Adding) -> None:
    with gr.Column(elem_id="adding"):
        sent = gr.HTML(
            None,
            html_template=render("uploader.html"),
            js_on_load=_SEND,
            elem_id="uploader",
        )
        description = gr.Textbox(
            label="Description of all of them",
            placeholder="optional; search finds its words",
            max_length=10_000,
        )
        with gr.Row():
            add_button = gr.Button("Add", variant="primary")
            cancel_button = gr.Button("Cancel", visible=False)
        added = gr.HTML(elem_id="added", js_on_load=None)
    job = gr.Textbox(visible=False)

    async def add(
        sent: Any,
        description: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  (that is how Gradio finds it)
    ) -> AsyncIterator[list[Any]]:
        """Add the files to the collection."""

        def report(job: Job) -> None:
            progress((job.finished, job.found), desc="Adding", unit="images")

        async for job_id, text in adding.add(sent, description or "", report):
            yield [job_id, text, gr.Button(visible=bool(job_id)), gr.skip() if job_id else None]

    add_button.click(
        add,
        [sent, description],
        [job, added, cancel_button, sent],
        concurrency_limit=8,
        show_progress_on=added,
        **_PRIVATE,
    )
    cancel_button.click(adding.cancel, job, None, queue=False, **_PRIVATE)
