"""The page, over the same service object as the API.

The query string of its address is the whole state of a search (`state.py`): the page's script
writes the address, and the server answers it as HTML (`views.py`, by the templates). Gradio lays
the page out (`layout.py`) and carries views to the browser. `app.py` lets only the page's own
requests through, and images come from the API's own endpoints.
"""

from starlette.types import ASGIApp

from imgsearch.server.service import Service


def build_page(service: Service) -> ASGIApp:
    """Return the page as an ASGI app over the service; importing Gradio takes seconds.

    It has no middleware of its own; see `imgsearch.server.app.mount_page`.
    """
    from imgsearch.server.ui.app import Parts, own_app
    from imgsearch.server.ui.asking import Asking
    from imgsearch.server.ui.layout import gradio_app
    from imgsearch.server.ui.views import Views

    settings = service.settings
    views = Views(service)
    gradio, functions = gradio_app(views, settings.collection, settings.limits.body)
    return Parts(gradio, Asking(gradio, functions), own_app(service, views))
