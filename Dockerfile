# One file for docker and for buildah: no heredocs, no BuildKit mounts. BASE is any image with
# python3 >= 3.11, venv and pip; a release sets it by digest. Both stages stand on the same one, so
# the interpreter that the virtual environment points to is the same in both.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# Two environments: /tools has pip and the build backend and stays here; /opt/synsweep has neither.
RUN python3 -m venv /tools && python3 -m venv --without-pip /opt/synsweep
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN /tools/bin/pip install --require-hashes -r requirements/build.txt \
 && /tools/bin/pip --python /opt/synsweep/bin/python install --require-hashes --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /dist . \
 && /tools/bin/pip --python /opt/synsweep/bin/python install --no-deps --no-index /dist/*.whl

FROM ${BASE}
ARG VERSION=dev
LABEL org.opencontainers.image.title="synsweep" \
      org.opencontainers.image.description="Removes half-open connections to backends that are gone, before their IP is used again" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /opt/synsweep /opt/synsweep
# pip compiled the modules; nothing is written at run time, so that the root may be read-only.
ENV PATH=/opt/synsweep/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# The controller runs as this user. The node helper is given uid 0 and NET_ADMIN alone by its
# manifest: Kubernetes cannot hand a capability to another uid.
USER 65532:65532
ENTRYPOINT ["synsweep"]
