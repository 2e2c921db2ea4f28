# The service with its dashboard and engine. Jobs tune for the machine that the container runs on.
FROM python:3.12.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /opt/tessera

# Dependencies first: this layer (about 1.2 GB) is built again only when the lock file changes.
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY schedules schedules
COPY tuner tuner
COPY service service
COPY migrations migrations
COPY examples examples
RUN pip install --no-deps --no-build-isolation --editable '.[server]' \
    && useradd --create-home --uid 10001 tessera \
    && install --directory --owner tessera /data

USER tessera
ENV TESSERA_DATA_DIR=/data TESSERA_HOST=0.0.0.0 TESSERA_PORT=8765
VOLUME /data
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/readyz', timeout=4)"]
CMD ["tessera", "serve"]
