"""The page as an ASGI app: Gradio's, behind the gate to its files and with security headers."""

import contextlib
import os
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

# Before Gradio is imported, or it reports each start to its makers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch.server.service import Service
from imgsearch.server.ui.adding import Adding
from imgsearch.server.ui.endpoint import search_endpoint
from imgsearch.server.ui.gradio_files import GradioFiles
from imgsearch.server.ui.layout import build_blocks
from imgsearch.server.ui.mapping import Mapping
from imgsearch.server.ui.views import Views
from imgsearch.server.ui.visitor_files import FileLimits
from imgsearch.system import scratch

# Uploads of all visitors together, until they have been used.
_UPLOADS_PER_BODY = 64
_MAX_UPLOADS = 10_000

# Gradio writes scripts into its page, and makes functions of texts. Whatever it may ask for, the
# browser fetches nothing from another host.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "frame-src 'self'",
        "manifest-src 'self'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
# The system's own fonts: others would have to be fetched.
_FONT = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
_MONO = [gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")]
_STATIC = files("imgsearch.server.ui") / "static"


async def page_app(service: Service) -> "PageApp":
    """Return the page's app."""
    layout = build_blocks(
        Views(service), Adding(service), Mapping(service), search_endpoint(service)
    )
    body = service.settings.limits.body
    cleanup = contextlib.ExitStack()
    folder = cleanup.enter_context(scratch.folder([service.settings.data], anywhere=True))
    return PageApp(
        layout, folder, FileLimits(body, _UPLOADS_PER_BODY * body, _MAX_UPLOADS), cleanup
    )


class PageApp:
    """Serves the blocks of the page; uploads are stored in a folder of its own."""

    def __init__(
        self, blocks: gr.Blocks, folder: Path, limits: FileLimits, cleanup: contextlib.ExitStack
    ) -> None:
        """`cleanup` deletes the folder."""
        self._mounted = gr.mount_gradio_app(
            FastAPI(openapi_url=None),
            blocks,
            path="/",
            footer_links=["api"],
            run_history=False,
            show_error=False,
            max_file_size=limits.file_bytes,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=gr.themes.Soft(primary_hue="indigo", font=_FONT, font_mono=_MONO),
            css=(_STATIC / "page.css").read_text(encoding="utf-8"),
            head=f"<script>{(_STATIC / 'page.js').read_text(encoding='utf-8')}</script>",
        )
        self._app: ASGIApp = GradioFiles(self._mounted, blocks, folder, limits)
        self._cleanup = cleanup

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run Gradio's queue; at the end, delete all uploads."""
        with self._cleanup:
            async with self._mounted.router.lifespan_context(self._mounted):
                yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_on)
