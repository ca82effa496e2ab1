"""Test the compose files and the Dockerfile on a real engine: `make test-compose`.

If a Docker engine is running, the test uses it with the official images. Otherwise, as root on
Debian, it starts an engine in separate namespaces, so that no process, mount, bridge or firewall
rule remains, however the test ends. That engine has no network to pull images from: it gets
stand-ins with the official names (`standins`), and reaches the package index through a `proxy`.

If neither is possible, it prints "skipped" and the reason; with IMGSEARCH_NO_SKIPS, that fails.

    __main__         the command
    checks           all checks, in order: check_weaviate, check_imgsearch, published
    docker           the docker command and the compose plugin
    existing_engine, own_engine
    standins         images for the test's own engine
    proxy            from the test's own engine to the package index
    shell            run programs, print progress, wait
"""
