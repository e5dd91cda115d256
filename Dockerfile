# syntax=docker/dockerfile:1
# `passerby-worker`, with `passerby` for operators beside it, in a small image without root.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
# Symbols stay for readable backtraces; the line tables would be most of the image.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package passerby-consumer --package passerby --bins \
    && install -Dt /out/usr/local/bin target/release/passerby-worker target/release/passerby \
    # To verify servers by, where they are reached over TLS.
    && install -Dm 644 -t /out/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt \
    && install -Dm 644 -t /out/usr/share/doc/passerby LICENSE-MIT LICENSE-APACHE

# Nothing is run here: no package is installed, and no user is made.
FROM debian:12.12-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Passerby" \
      org.opencontainers.image.description="Stores what cameras see: Redis Stream to Postgres, exactly once" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/ /
# Metrics, and the answers to probes. It holds no row and no password.
ENV PASSERBY_LISTEN=0.0.0.0:9464
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["passerby-worker", "--check-ready"]
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
# The worker finishes what it has read; give it more than its --grace-period of 25 s.
STOPSIGNAL SIGTERM
ENTRYPOINT ["passerby-worker"]
