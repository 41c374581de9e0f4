# The worker: bundles, onnxruntime, ffmpeg (a wheel carries it). No web framework, no torch.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS dependencies
# cpu, cpu-openvino, cpu-ncnn, gpu or gpu-tensorrt. The two onnxruntime wheels share one import name and can't stand side by side.
ARG RUNTIME=cpu
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH}
COPY deploy/locks/worker-*.txt deploy/locks/apart-tensorrt.txt ./
# Every file is known by its hash, and no package's own program runs here. The cache mount keeps wheels between builds
# and out of the image.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --require-hashes --only-binary :all: --requirement "worker-${RUNTIME%-tensorrt}.txt" \
    && case "${RUNTIME}" in *-tensorrt) python -m pip install --no-deps --requirement apart-tensorrt.txt ;; esac \
    && python -m pip uninstall --yes pip

FROM ${BASE_IMAGE} AS worker
LABEL org.opencontainers.image.title="animato worker" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 \
    ANIMATO_BUNDLES_DIR=/app/bundles \
    ANIMATO_DATA_DIR=/tmp/animato \
    ANIMATO_CACHE_DIR=/var/cache/animato \
    ANIMATO_LOG_FORMAT=json \
    ANIMATO_WORKER_METRICS_PORT=9100
WORKDIR /app
COPY --from=dependencies /opt/venv /opt/venv
# The gpu wheels bring CUDA, cuDNN and TensorRT as Python packages; the loader finds them here. An empty list for cpu.
RUN find /opt/venv -type d \( -path '*/nvidia/*/lib' -o -name tensorrt_libs \) > /etc/ld.so.conf.d/animato-gpu.conf \
    && ldconfig
COPY LICENSE NOTICE ./
COPY bundles bundles
COPY model model
COPY services/*.py services/
COPY services/jobs services/jobs
COPY worker worker
COPY deploy/check_worker.py deploy/check_worker.py
# Byte code now: the file system is read-only later. A named user: Celery takes an id without a name for root.
RUN python -m compileall -q /app \
    && groupadd --gid 10001 animato \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin animato \
    && install --directory --owner 10001 --group 10001 --mode 700 /var/cache/animato
USER 10001:10001
EXPOSE 9100
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=4 CMD ["python", "deploy/check_worker.py"]
CMD ["python", "-m", "worker.app"]
