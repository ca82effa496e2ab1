"""The page, over the same service object as the API.

What it shows is told by its address alone (`links.py`): the page's script makes an address of what
the visitor does, and the server a view of the address (`views.py`, by the templates). Gradio lays
it out (`layout.py`) and carries views to the browser; `app.py` lets in what the page needs, and
pictures come from the API's own endpoints.
"""

from starlette.types import ASGIApp

from imgsearch.server.service import Service


def build_page(service: Service) -> ASGIApp:
    """The page's ASGI app, which searches through the service; it takes seconds to load."""
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
        # Images to search with come as they are.
        own=Admission(own_app(service, views), service, takes_forms=False, plain_body=most),
    )
    own = Answers(Origins(parts, settings, for_browsers=True), service.metrics)
    # The API has guards of its own, which also count its answers.
    return Page(own, api=create_app(service, for_browsers=True))
