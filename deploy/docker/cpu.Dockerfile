# The server for processors. From the root of the sources:
#   docker build -f deploy/docker/cpu.Dockerfile -t lanner:cpu .
#   docker run -p 23333:23333 -v /srv/models:/models:ro -e LANNER_API_KEY=… lanner:cpu /models/MODEL
# One image serves every x86-64 processor: the program picks its kernels when it starts.
FROM debian:bookworm-slim AS build
WORKDIR /src
COPY . .
RUN scripts/setup.sh --for build && make build SETUP=0 && strip build/lanner

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libedit2 libfmt9 libsentencepiece0 libssl3 libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /var/cache/lanner lanner
COPY --from=build /src/build/lanner /usr/local/bin/lanner
ENV HF_HOME=/var/cache/lanner
USER 10001
EXPOSE 23333
STOPSIGNAL SIGTERM
ENTRYPOINT ["lanner", "serve", "api_server", "--server-name", "0.0.0.0"]
