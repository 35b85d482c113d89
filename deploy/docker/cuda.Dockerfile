# The server for NVIDIA GPUs. From the root of the sources; building needs no GPU:
#   docker build -f deploy/docker/cuda.Dockerfile -t lanner:cuda .
#   docker run --gpus all -p 23333:23333 -v /srv/models:/models:ro -e LANNER_API_KEY=… lanner:cuda /models/MODEL
# The CUDA runtime is linked statically; the driver comes from the host, cuBLASLt from the image below.
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04 AS build
WORKDIR /src
COPY . .
ARG CUDA_ARCHITECTURES=
RUN scripts/setup.sh --for build && make cuda SETUP=0 CUDA_ARCHITECTURES="$CUDA_ARCHITECTURES" && strip build-cuda/lanner

FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libedit2 libfmt9 libsentencepiece0 libssl3t64 libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /var/cache/lanner lanner
COPY --from=build /src/build-cuda/lanner /usr/local/bin/lanner
ENV HF_HOME=/var/cache/lanner
USER 10001
EXPOSE 23333
STOPSIGNAL SIGTERM
ENTRYPOINT ["lanner", "serve", "api_server", "--server-name", "0.0.0.0"]
