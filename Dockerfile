# One image for every process: `rollover worker`, `beat`, `migrate`, and Flower.
#
# A tag can be moved. Pin what you build on by its digest, which only the registry can tell:
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:… .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
# Hatchling stands in this lock, so that even what builds the package is checked by hash.
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY rotation rotation
COPY worker worker
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel .

FROM ${PYTHON_IMAGE} AS installed
RUN python -m venv --without-pip /opt/rollover
COPY requirements-image.lock ./
RUN pip --python /opt/rollover/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r requirements-image.lock
COPY --from=wheel /wheel /wheel
RUN pip --python /opt/rollover/bin/python install --no-cache-dir --no-deps --no-index /wheel/*.whl

FROM ${PYTHON_IMAGE}
# A number, so that a platform that refuses root can see that this is not root.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin rollover
COPY --from=installed /opt/rollover /opt/rollover
WORKDIR /app
# Alembic's settings stand in pyproject.toml, its migrations beside it.
COPY pyproject.toml ./
COPY migrations migrations
COPY tools/flowerconfig.py ./
ENV PATH=/opt/rollover/bin:$PATH PYTHONUNBUFFERED=1 ROLLOVER_LOG_FORMAT=json ROLLOVER_DATA_DIR=/tmp/rollover
USER 10001:10001
# No HEALTHCHECK: what is healthy differs by process, so docker-compose.yml says it for each.
ENTRYPOINT ["rollover"]
CMD ["--help"]
