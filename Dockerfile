# notifier as an image: `notifier run`, not root, nothing to write but /var/lib/notifier, and that only where the embedded
# queue is used. Its packages are locked by their hashes; those that trace are among them (`tracing.endpoint`), since
# nothing can be installed into it later.
#
#   docker build -t notifier --build-arg COMMIT="$(git rev-parse HEAD)" .
#   docker run --read-only --cap-drop ALL -v "$PWD:/etc/notifier/config:ro" -p 9464:9464 notifier
#
# To name the base by its digest: --build-arg PYTHON_IMAGE=docker.io/library/python:3.13.9-slim-bookworm@sha256:…
# The same source and base give the same files: wheels alone, no time stamps in the bytecode, SOURCE_DATE_EPOCH obeyed.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS build
ARG SOURCE_DATE_EPOCH=0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/notifier
COPY deploy/requirements-image.txt /src/deploy/requirements-image.txt
# Wheels alone: nothing is compiled, so that no compiler is needed here either.
RUN /opt/notifier/bin/python -m pip install --no-compile --only-binary :all: --require-hashes -r /src/deploy/requirements-image.txt
COPY pyproject.toml README.md LICENSE /src/
COPY notifier /src/notifier
# Empty for a release. Otherwise it becomes a part of the version; no other history is sent.
ARG COMMIT=
RUN mkdir /src/.git && echo "${COMMIT}" > /src/.git/HEAD
# What installs is not shipped, neither here nor in the base. Bytecode is made now: the root is read-only later.
RUN /opt/notifier/bin/python -m pip install --no-compile --no-deps --no-build-isolation /src \
    && /opt/notifier/bin/python -m pip uninstall --yes setuptools pip \
    && find /opt/notifier -name __pycache__ -prune -exec rm -rf {} + \
    && /opt/notifier/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/notifier/lib

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE}
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="notifier" \
      org.opencontainers.image.description="Delivers OpenID Connect Back-Channel Logout notifications" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
RUN rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/local/bin/pip* \
    && mkdir -p /etc/notifier/config /var/lib/notifier \
    && chown 65532:65532 /var/lib/notifier
COPY --from=build /opt/notifier /opt/notifier
ENV PATH=/opt/notifier/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_ARENA_MAX=1 \
    MALLOC_TRIM_THRESHOLD_=131072 \
    HOME=/var/lib/notifier \
    LIVEZ=http://127.0.0.1:9464/livez
WORKDIR /var/lib/notifier
USER 65532:65532
EXPOSE 9464 8080
STOPSIGNAL SIGTERM
# Kubernetes has probes of its own and ignores it. LIVEZ: for another `ops.listen`.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
    CMD ["python", "-c", "import os; os.environ['no_proxy'] = '*'; import urllib.request; urllib.request.urlopen(os.environ['LIVEZ'], timeout=4)"]
ENTRYPOINT ["notifier"]
CMD ["run", "-c", "/etc/notifier/config/notifier.yaml"]
