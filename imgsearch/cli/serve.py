"""`imgsearch serve`."""

import os
from contextlib import nullcontext
from typing import Annotated

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display
from imgsearch.errors import UsageError
from imgsearch.system.blocked_imports import block_imports
from imgsearch.system.interrupts import INTERRUPTED


def serve(
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on. Addresses other than loopback need an API key, or "
            "--insecure.",
        ),
    ] = config.DEFAULT_HOST,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, help="Port of the API.")
    ] = config.DEFAULT_PORT,
    ui_port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, help="Port of the page.")
    ] = config.DEFAULT_UI_PORT,
    no_ui: Annotated[
        bool, typer.Option("--no-ui", help="Serve only the API, without the page.")
    ] = False,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar=config.ENV_API_KEY,
            help="Key that clients must send, as X-API-Key or Authorization: Bearer. Prefer the "
            "environment variable: other users of this machine can see options.",
            show_default=False,
            show_envvar=True,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Listen on other addresses without a key: anyone may search, upload and delete.",
        ),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Host name that clients may use for this service, such as a proxy's, or '*' for "
            "any; repeatable. Without a key, only IP addresses, localhost and this machine's own "
            "name are allowed.",
            show_default=False,
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Origin whose pages may call the API, such as https://shop.example; repeatable.",
            show_default=False,
        ),
    ] = None,
    show_paths: Annotated[
        bool, typer.Option("--show-paths", help="Include file paths of this machine in responses.")
    ] = False,
    watch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help="Ingest this folder into the collection, and what changes in it, as `imgsearch "
            "watch` does; repeatable.",
            show_default=False,
        ),
    ] = None,
    watch_prune: Annotated[
        bool,
        typer.Option(
            "--watch-prune", help="With --watch: remove the records of files that are deleted."
        ),
    ] = False,
    max_body: Annotated[
        int, typer.Option(metavar="MB", min=1, help="Maximum size of a request.")
    ] = config.DEFAULT_MAX_BODY,
    max_requests: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Maximum number of concurrent requests; further ones are rejected.",
        ),
    ] = config.DEFAULT_MAX_REQUESTS,
    max_queries: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Maximum number of searches in one request."),
    ] = config.DEFAULT_MAX_QUERIES,
    stall_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="Close a connection whose client sends or reads nothing for this long. The total "
            "transfer time is not limited.",
        ),
    ] = config.DEFAULT_STALL_TIMEOUT,
    store: options.Store = None,
    collection: options.Collection = config.DEFAULT_COLLECTION,
    model: options.Model = config.DEFAULT_MODEL,
    weights: options.Weights = None,
    device: options.Device = config.DEFAULT_DEVICE,
    store_timeout: options.StoreTimeout = config.READER_STORE_TIMEOUT,
    max_pixels: options.MaxPixels = config.SERVE_MAX_PIXELS,
) -> None:
    """Serve the API on port 8888 (its documentation at /docs), and the page on port 7860.

    SIGTERM or Ctrl-C finishes the requests in flight; the exit code is then 0 or 130.
    """
    # Before numpy is imported: its threads take a while to start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # pydantic would search all installed packages for plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

    from imgsearch.server.address import allowed_hosts, is_loopback, listen
    from imgsearch.stores import check_name

    check_name(collection)
    if api_key is not None and api_key != api_key.strip():
        raise UsageError("--api-key: no client can send a key that begins or ends with a space")
    for origin in cors_origin or ():
        if origin != "*" and "://" not in origin:
            raise UsageError(f"--cors-origin {origin}: an origin is like https://{origin}")
    if not (is_loopback(host) or api_key or insecure):
        raise UsageError(
            f"--host {host}: other machines could reach the service: set {config.ENV_API_KEY}, or "
            "use --insecure"
        )
    with (
        Display() as display,
        listen(host, port, "--port") as api,
        nullcontext() if no_ui else listen(host, ui_port, "--ui-port") as page,
    ):
        # Clients can already connect, and wait during these imports. FastAPI imports pydantic.v1,
        # which takes a thirtieth of the start, only to check for fields of its types.
        with block_imports("pydantic.v1"):
            from imgsearch.server.run import Running
        from imgsearch.server.service import Service
        from imgsearch.server.settings import Limits, Settings
        from imgsearch.server.storage import spool_directory
        from imgsearch.sources import resolve

        settings = Settings(
            store=store,
            collection=collection,
            model=model,
            weights=weights,
            device=device,
            store_timeout=store_timeout,
            api_key=api_key,
            hosts=allowed_hosts(host, allow_host or (), has_key=bool(api_key)),
            cors_origins=tuple(cors_origin or ()),
            watch=resolve(watch or ()).folders,
            watch_prune=watch_prune,
            show_paths=show_paths,
            limits=Limits(
                max_body << 20,
                stall_seconds=stall_timeout,
                requests=max_requests,
                queries=max_queries,
                pixels=max_pixels,
            ),
        )
        with spool_directory(settings.data):
            running = Running(Service(settings, display), display)
            running.serve(api, page)
        if running.interrupted:
            raise typer.Exit(INTERRUPTED)
