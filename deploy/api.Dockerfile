# The HTTP API: no inference runtime, no torch, and of the models only manifests and face detectors.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS dependencies
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH}
COPY deploy/locks/api.txt ./
# Every file is known by its hash, and no package's own program runs here. The cache mount keeps wheels between builds
# and out of the image.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --require-hashes --only-binary :all: --requirement api.txt \
    && python -m pip uninstall --yes pip

# The API answers GET /v1/models from the manifests and finds faces as pictures are posted; all other weights stay with
# the workers.
FROM ${BASE_IMAGE} AS manifests
COPY bundles /bundles
RUN find /bundles -type f ! -name manifest.json ! -name '*.npz' -delete

FROM ${BASE_IMAGE} AS api
LABEL org.opencontainers.image.title="animato api" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ANIMATO_BUNDLES_DIR=/app/bundles \
    ANIMATO_DATA_DIR=/tmp/animato \
    ANIMATO_LOG_FORMAT=json \
    ANIMATO_HOST=0.0.0.0 \
    ANIMATO_PORT=8000
WORKDIR /app
COPY --from=dependencies /opt/venv /opt/venv
COPY LICENSE NOTICE ./
COPY --from=manifests /bundles bundles
COPY samples samples
# Only what reads manifests and finds faces: the image can't import what it must not run.
COPY model/__init__.py model/errors.py model/align.py model/
COPY model/bundle model/bundle
COPY model/faces model/faces
COPY services services
# For `docker compose exec api python -m cli.keys create`.
COPY cli/__init__.py cli/console.py cli/keys.py cli/
COPY deploy/check_api.py deploy/check_api.py
# Byte code now: the file system is read-only later. A named user: Celery takes an id without a name for root.
RUN python -m compileall -q /app \
    && groupadd --gid 10001 animato \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin animato
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=4 CMD ["python", "deploy/check_api.py"]
CMD ["python", "-m", "services.api.server"]
