"""The page, over the same service object as the API.

The query string of its address is the whole state of a search (`state.py`): the page's script
writes the address, and the server answers it as HTML (`views.py`, by the templates). Gradio lays
the page out (`layout.py`) and carries views to the browser. `app.py` lets only the page's own
requests through, and images come from the API's own endpoints.
"""

from starlette.types import ASGIApp

from imgsearch.server.service import Service


def build_page(service: Service) -> ASGIApp:
    """Return the page as an ASGI app over the service; importing Gradio takes seconds."""
    from imgsearch.server.app import create_app
    from imgsearch.server.middleware.admission import Admission
    from imgsearch.server.middleware.answers import Answers
    from imgsearch.server.middleware.origins import Origins
    from imgsearch.server.ui.app import Page, Parts, own_app
    from imgsearch.server.ui.asking import Asking
    from imgsearch.server.ui.layout import gradio_app
    from imgsearch.server.ui.views import Views

    settings = service.settings
    views = Views(service)
    most = settings.limits.body
    gradio, functions = gradio_app(views, settings.collection, most)
    parts = Parts(
        gradio=gradio,
        asking=Admission(Asking(gradio, functions), service, takes_forms=False),
        # Query images are plain bodies.
        own=Admission(own_app(service, views), service, takes_forms=False, plain_body=most),
    )
    own = Answers(Origins(parts, settings, for_browsers=True), service.metrics)
    # The API has middleware of its own, which also counts its answers.
    return Page(own, api=create_app(service, for_browsers=True))
