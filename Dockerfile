# All programs in one image: they share one build, one base and one release, so an upgrade is one tag and a node pulls one set of layers.
#   dev/images build ovation        or: docker build --build-arg VERSION=0.1.0 -t ovation:0.1.0 .

FROM rust:1.95-bookworm AS build
WORKDIR /ovation
COPY . .
# Line tables are for profiling on the machine that built them: with them each program has some 150 MB, without them all five have 175.
# Names stay, for the backtrace of a panic; they are 33 MB of those.
ENV CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=debuginfo CARGO_INCREMENTAL=0
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/ovation/target,sharing=locked \
    cargo build --release --locked --bins -p ovation -p rest-producer -p grpc-producer -p consumer -p results \
    && cd target/release && install -D -t /programs ovation rest-producer grpc-producer consumer results

FROM debian:bookworm-slim
# Against whom stores, brokers and collectors outside prove who they are.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65532 -g 65532 /var/lib/ovation
COPY --from=build /programs /usr/local/bin/

# A number, since Kubernetes can't know of a name that it isn't root.
USER 65532:65532
# Nothing is written with stores on servers. Embedded ones (`up`) are in ovation-data here, so mount a volume at this place.
WORKDIR /var/lib/ovation
EXPOSE 8000 8080 50051 50052 9100
ENTRYPOINT ["ovation"]

# Last, as it changes with each commit.
ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="Ovation" \
    org.opencontainers.image.description="Counts votes: an acknowledged vote is never lost and never counted twice" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.source="$SOURCE"
