# One image for every process: `docker run waxseal:0.1.0 ingress`. It holds Python, the pinned dependencies and Waxseal.
ARG PYTHON=python:3.12.13-slim-trixie

FROM ${PYTHON} AS dependencies
COPY requirements.lock .
RUN python -m venv /waxseal \
 && /waxseal/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements.lock

# The build backend comes from the development lock, so that its hash is checked as well; only the wheel is kept.
FROM ${PYTHON} AS wheel
WORKDIR /source
COPY requirements-dev.lock .
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements-dev.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY pipeline pipeline
COPY ops ops
COPY workers workers
RUN python -m build --wheel --no-isolation --outdir /wheel

FROM dependencies AS installed
COPY --from=wheel /wheel /wheel
RUN /waxseal/bin/pip install --no-cache-dir --no-index --no-deps /wheel/*.whl \
 && /waxseal/bin/pip uninstall --yes pip \
 && mkdir /data

FROM ${PYTHON}
LABEL org.opencontainers.image.title="waxseal" org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/waxseal/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=installed /waxseal /waxseal
COPY --from=installed --chown=10001:10001 /data /data
# A number, because an orchestrator cannot tell whether a name is root's.
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["waxseal"]
CMD ["--help"]
