"""ASGI middleware that keeps the service up and closed, from the outermost to the innermost.

`Answers` adds the security headers, counts, and turns what was not foreseen into a 500; `Origins`
lets only those in who may call; `Admission` bounds what is under way, and by `Body` what a request
may send, and for how long. `PromptProtocol` does the same for connections.
"""
