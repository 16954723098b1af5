# The appliance on CPUs. Needs BuildKit (docker 23 or newer) or buildah.
#
#   docker build -t appliance .                              docker build --build-arg WITH_STARTER=1 -t appliance .
#   docker run --rm -v appliance:/var/lib/appliance appliance models pull starter
#   docker run --network host -v appliance:/var/lib/appliance --stop-timeout 35 appliance
#
# Baseline: x86-64-v3 (AVX2, FMA, F16C, BMI2) and no more, or the image dies with an illegal instruction on the next
# machine. arm64 images get llama.cpp's plain armv8-a. docs/containers.md has the rest.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim-bookworm AS builder
# Debian keeps only the newest of a release, so a pinned version would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends build-essential cmake ninja-build \
 && rm -rf /var/lib/apt/lists/*
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_BMI2=ON -DGGML_FMA=ON -DGGML_F16C=ON" \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies first: an edit of our own sources does not compile llama.cpp again.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > /tmp/requirements.txt \
 && CMAKE_BUILD_PARALLEL_LEVEL="$(nproc)" pip wheel --wheel-dir /wheels --requirement /tmp/requirements.txt
COPY README.md LICENSE ./
COPY models ./models
COPY appliance ./appliance
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim-bookworm AS runtime
LABEL org.opencontainers.image.title="fallback-appliance" \
      org.opencontainers.image.description="A local-first LLM fallback appliance (CPU, x86-64-v3)" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 8484 --user-group --home-dir /var/lib/appliance --create-home --shell /usr/sbin/nologin appliance
# What was built above, and nothing else: there is no version to choose.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=builder,source=/wheels,target=/wheels \
    pip install --no-cache-dir --root-user-action=ignore --no-index --find-links=/wheels fallback-appliance
ENV APPLIANCE_HOME=/var/lib/appliance PYTHONUNBUFFERED=1
USER 8484:8484
WORKDIR /var/lib/appliance
ARG WITH_STARTER=0
RUN if [ "$WITH_STARTER" = 1 ]; then appliance models pull starter; fi
VOLUME /var/lib/appliance
EXPOSE 8484
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8484, timeout=3); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["appliance"]
CMD ["serve"]
