# One image with all programs: an upgrade changes one tag, and a node pulls one set of layers.
#   dev/images build ovation        or: docker build --build-arg VERSION=0.1.0 -t ovation:0.1.0 .

FROM rust:1.95-bookworm AS build
WORKDIR /ovation
COPY . .
# Remove line tables, which are only useful for profiling on the build machine: with them each program has about 150 MB,
# without them all five together have 175 MB. Keep symbol names for backtraces of panics: they are 33 MB of the 175.
ENV CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=debuginfo CARGO_INCREMENTAL=0
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/ovation/target,sharing=locked \
    cargo build --release --locked --bins -p ovation -p rest-producer -p grpc-producer -p consumer -p results \
    && cd target/release && install -D -t /programs ovation rest-producer grpc-producer consumer results

FROM debian:bookworm-slim
# CA certificates, to verify external stores and trace collectors over TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65532 -g 65532 /var/lib/ovation
COPY --from=build /programs /usr/local/bin/

# A numeric user: Kubernetes cannot verify runAsNonRoot with a user name.
USER 65532:65532
# Only embedded stores (`ovation up`) write files, to ./ovation-data. Mount a volume at this folder to keep them.
WORKDIR /var/lib/ovation
EXPOSE 8000 8080 50051 50052 9100
ENTRYPOINT ["ovation"]

# Labels are last, since they change with every commit and invalidate the build cache.
ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="Ovation" \
    org.opencontainers.image.description="Counts votes: an acknowledged vote is never lost and never counted twice" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.source="$SOURCE"
