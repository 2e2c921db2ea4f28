# One image for all of Tessera: the server, Ray's head and workers, the tracker; by itself it is a server on SQLite and
# local disk. The target `board` is a small one, for a board that measures.
FROM python:3.12.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN useradd --create-home --uid 10001 tessera
WORKDIR /opt/tessera
COPY requirements.lock ./


FROM base AS board
RUN awk '/^[a-z]/ { wanted = /^(apache-tvm|apache-tvm-ffi|cloudpickle|ml-dtypes|numpy|psutil|typing-extensions)==/ } wanted' \
        requirements.lock > board.lock \
    && pip install --no-deps --require-hashes -r board.lock
# Asks the tracker, in health checks.
COPY tuner/__init__.py tuner/errors.py tuner/
COPY tuner/measure/__init__.py tuner/measure/tracker.py tuner/measure/
USER tessera
ENV TVM_USE_RUNTIME_LIB=1 TVM_NUM_THREADS=4 TVM_BIND_THREADS=0
EXPOSE 9090


FROM base AS tessera
# Dependencies first: this layer (about 1.5 GB) is built again only when the lock file changes.
RUN pip install --no-deps --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY schedules schedules
COPY tuner tuner
COPY service service
COPY migrations migrations
COPY examples examples
RUN pip install --no-deps --no-build-isolation --editable '.[server,postgresql,s3,ray]' \
    && install --directory --mode 700 --owner tessera /data

USER tessera
# The linker's cache is kept with the data: it takes 20 seconds to fill for each kind of device.
ENV TESSERA_DATA_DIR=/data TESSERA_HOST=0.0.0.0 TESSERA_PORT=8765 XDG_CACHE_HOME=/data/cache
VOLUME /data
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/readyz', timeout=4)"]
CMD ["tessera", "serve"]
