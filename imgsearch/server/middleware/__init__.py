"""ASGI middleware, from the outermost to the innermost.

`responses` adds security headers, counts requests, and answers unexpected errors with a 500;
`access` checks the host name, the origin and the API key; `admission` bounds the requests being
processed and, by `bodies`, what a request may send and how long that may take. `protocol` adds
timeouts to connections.
"""
