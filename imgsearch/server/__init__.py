"""`imgsearch serve`: the service over HTTP, and the page, both over one `Service` object.

`service.py` answers; everything else here is about HTTP: `app.py` puts it together, `compat.py`
and `v1/` are the endpoints, `guards/` keep the service up, `running.py` runs it.
"""
