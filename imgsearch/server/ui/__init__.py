"""The page, in Gradio, over the same service object as the API.

`layout.py` has its components and events; `views.py` answers searches as HTML, by the templates;
`adding.py` adds images; `endpoint.py` is for programs. The query string of the page's address is
the whole state of a search (`state.py`), and the images come from the API's own endpoints.
`gradio_files.py` keeps the visitors' files apart.
"""

from typing import TYPE_CHECKING

from imgsearch.server.service import Service

if TYPE_CHECKING:
    from imgsearch.server.ui.app import PageApp


def build_page(service: Service) -> "PageApp":
    """Return the page as an ASGI app over the service; importing Gradio takes seconds.

    For a thread without an event loop. The app has no middleware of its own; see
    `imgsearch.server.app.mount_page`.
    """
    import asyncio

    from imgsearch.server.ui.app import page_app

    return asyncio.run(page_app(service))
