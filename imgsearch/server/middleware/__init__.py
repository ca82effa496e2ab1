"""ASGI middleware, from the outermost to the innermost.

`responses` adds security headers, counts requests, and answers unexpected errors with a 500;
`access` checks the host name, the origin and the API key; `limits` bounds the requests being
processed, what each may send, and how long that may take. `protocol` adds timeouts to connections.
"""
