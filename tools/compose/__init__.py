"""Proves the compose files and the Dockerfile with a real engine: `make test-compose`.

An engine that answers is used as it is, with the official images. Elsewhere, as root on Debian, an
engine of our own is started in namespaces of its own, so that nothing of it is left afterwards: no
process, mount, bridge or firewall rule, however the test ends. It has no network to pull from and
gets stand-ins under the official names (`standins`); what the image is made of it fetches from the
package index, through the one door that `door` opens.

Where neither is possible it says "skipped" and why; with IMGSEARCH_NO_SKIPS set that is a failure.

    __main__         the command
    checks           what is checked, in order: check_weaviate, check_imgsearch
    docker           the docker command, and the compose plugin
    existing_engine, own_engine
    standins         what the own engine has instead of the official images
    door             the way from the own engine to the package index
    shell            run a program, tell what is done, wait
"""
