"""`imgsearch serve`: the HTTP API and the page, over one `Service` object.

A request passes `middleware/` and an endpoint of `api/` to `service.py`. `errors.py` has every
error response, `storage.py` uploaded files, `media.py` image responses, `jobs/` background ingests.
"""
