# The image of every process of the reconciler: worker, served targets, one-off commands. Nothing is built in the final
# stage, and nothing in it runs as root.

FROM python:3.13.14-slim AS build
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PROJECT_ENVIRONMENT=/opt/reconciler \
    UV_PYTHON_DOWNLOADS=never
# The version that the Makefile uses.
RUN pip install --no-cache-dir uv==0.13.9
# For the hot path (deploy/hatch_build.py); the compiler stays in this stage.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# First the locked dependencies alone: they change seldom, and their layer is kept while they don't.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-dev --extra postgresql --no-install-project
COPY schemas schemas
COPY reconciler reconciler
COPY streams streams
COPY deploy/hatch_build.py deploy/hatch_build.py
RUN --mount=type=cache,target=/root/.cache/uv \
    COMPILE_MODULES=required uv sync --locked --no-dev --extra postgresql --no-editable

FROM python:3.13.14-slim
# A fixed number, so that orchestrators can check that it isn't root's, and volumes keep their owner.
RUN groupadd --gid 10001 reconciler \
    && useradd --uid 10001 --gid reconciler --no-create-home --shell /usr/sbin/nologin reconciler \
    && install --directory --owner reconciler --group reconciler /var/lib/reconciler
COPY --from=build /opt/reconciler /opt/reconciler
ENV PATH=/opt/reconciler/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RECONCILER_DATA_DIR=/var/lib/reconciler \
    RECONCILER_HTTP_HOST=0.0.0.0 \
    RECONCILER_HTTP_PORT=8080 \
    RECONCILER_LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/reconciler
VOLUME ["/var/lib/reconciler"]
EXPOSE 8080
# Alive means that the process answers; whether it is ready to work is for /ready, which an orchestrator asks.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['RECONCILER_HTTP_PORT']}/live\", timeout=4)"]
ENTRYPOINT ["reconciler"]
CMD ["worker"]
