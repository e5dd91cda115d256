# Builds `passerby-worker` and `passerby`, and ships them in a small image without root.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package passerby-consumer --package passerby --bins \
    && install -Dt /out target/release/passerby-worker target/release/passerby

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home passerby
COPY --from=build /out/ /usr/local/bin/
USER passerby
# The worker finishes what it has read; give it more than its --grace-period of 25 s.
STOPSIGNAL SIGTERM
ENTRYPOINT ["passerby-worker"]
