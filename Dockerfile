# The image of imgsearch; docker-compose.yml builds it and starts it with Weaviate. Without Compose:
#
#   docker build -t imgsearch .
#   docker run --rm -v imgsearch:/var/lib/imgsearch -v "$PWD":/data:ro imgsearch ingest /data
#
# It lacks PyTorch, which takes gigabytes: MODELS are exported during the build, and ONNX Runtime runs
# them on the CPU. --build-arg ACCELERATOR=cuda includes PyTorch, for NVIDIA GPUs.

# The Python version of the tests.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# As in the Makefile.
ARG UV_VERSION=0.13.9
RUN python -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    uv==${UV_VERSION}
ENV UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /src
COPY pyproject.toml constraints.txt ./
ARG ACCELERATOR=cpu
# Compiled now: a container cannot write bytecode later, and every start would be slower.
RUN case ${ACCELERATOR} in \
        cpu) set -- torch torchvision onnx onnxscript efficientnet-lite-pytorch ;; \
        cuda) set -- ;; \
        *) echo "ACCELERATOR is cpu or cuda, not ${ACCELERATOR}" >&2; exit 1 ;; \
    esac \
    && printf '%s\n' "$@" > excluded.txt \
    && uv venv --quiet --python "$(command -v python)" /opt/imgsearch \
    && VIRTUAL_ENV=/opt/imgsearch uv pip install --compile-bytecode --excludes excluded.txt \
        --constraints constraints.txt --requirements pyproject.toml --extra heic --extra raw
COPY README.md LICENSE ./
COPY imgsearch imgsearch
RUN VIRTUAL_ENV=/opt/imgsearch uv pip install --compile-bytecode --no-deps .

FROM build AS models
# Any that `imgsearch models --all` lists. resnet50 is downloaded (98 MB), efficientnet-lite0 is not.
ARG MODELS="resnet50 efficientnet-lite0"
# The build of PyTorch that exports them, for `uv pip install --torch-backend`; empty selects the
# package index's own, which may be large.
ARG TORCH_BACKEND=cpu
# In one step, so that no layer contains PyTorch.
RUN mkdir -p /home/imgsearch/models \
    && uv venv --quiet --python "$(command -v python)" /opt/torch \
    && VIRTUAL_ENV=/opt/torch uv pip install ${TORCH_BACKEND:+--torch-backend ${TORCH_BACKEND}} \
        --constraints constraints.txt . \
    && for model in ${MODELS}; do \
        IMGSEARCH_HOME=/home/imgsearch /opt/torch/bin/imgsearch models --prepare "${model}" \
            || exit 1; \
    done \
    && rm -rf /opt/torch

FROM ${BASE}
# Fixed IDs, so that a volume or a folder of the host can be assigned to them.
ARG UID=10001
RUN groupadd --gid ${UID} imgsearch \
    && useradd --uid ${UID} --gid ${UID} --no-create-home --home-dir /var/lib/imgsearch \
        --shell /usr/sbin/nologin imgsearch \
    && install -d -o imgsearch -g imgsearch /var/lib/imgsearch
COPY --from=build /opt/imgsearch /opt/imgsearch
COPY --from=models /home/imgsearch/models /opt/imgsearch/share/imgsearch/models
ENV PATH=/opt/imgsearch/bin:${PATH} \
    IMGSEARCH_HOME=/var/lib/imgsearch \
    IMGSEARCH_SITE=container \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER imgsearch
WORKDIR /data
# Uploads, the embedded store, and models prepared for this CPU.
VOLUME /var/lib/imgsearch
# The API and the page.
EXPOSE 8888 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=1m --retries=3 CMD ["python", "-c", \
    "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:8888/readyz', timeout=4)"]
ENTRYPOINT ["imgsearch"]
CMD ["--help"]
