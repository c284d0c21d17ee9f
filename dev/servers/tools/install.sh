# shellcheck shell=bash
# The parts of dev/install for the servers of dev/stack, for what watches them, and for dev/images and dev/compose. Each is rebuilt only
# if its sources change.

# Kafka's jars.
kafka() {
    local into=target/tools/kafka pom=dev/servers/tools/kafka/pom.xml
    is_current $into $pom && return
    packages $(lacking mvn:maven)
    echo "dev/install: fetching Kafka"
    rm -rf $into
    local output
    output=$(mvn --quiet --batch-mode --strict-checksums --file $pom dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$PWD/$into/libs") || { echo "$output" >&2; exit 1; }
    stamp $into $pom
}

# The agent that exports the JMX metrics of Kafka's brokers to Prometheus.
jmx() {
    local into=target/tools/jmx pom=dev/servers/tools/jmx/pom.xml output
    is_current $into $pom && return
    packages $(lacking mvn:maven)
    echo "dev/install: fetching the JMX exporter for Kafka's brokers"
    rm -rf $into
    output=$(mvn --quiet --batch-mode --strict-checksums --file $pom dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$PWD/$into" -Dmdep.stripVersion=true) || { echo "$output" >&2; exit 1; }
    stamp $into $pom
}

# mongo-java-server, which speaks MongoDB's protocol and keeps data and indexes in memory, and the class that starts it.
mongo-java() {
    local into=target/tools/mongo-java source=dev/servers/tools/mongo-java output
    is_current $into $source/* && return
    packages $(lacking mvn:maven javac:default-jdk-headless)
    echo "dev/install: fetching mongo-java-server"
    rm -rf $into
    output=$(mvn --quiet --batch-mode --strict-checksums --file $source/pom.xml dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$PWD/$into/libs") || { echo "$output" >&2; exit 1; }
    javac -cp "$into/libs/*" -d $into $source/Server.java
    stamp $into $source/*
}

# FerretDB, with our patch: the module, verified by go.sum, is copied and patched, and replaces the original. It needs no C library,
# so it also runs in images with an older or newer Debian.
mongo() {
    local into=target/tools/mongo source=dev/servers/tools/mongo module=github.com/FerretDB/FerretDB
    is_current $into $source/* && return
    packages $(lacking go:golang-go patch:patch)
    echo "dev/install: building FerretDB (a minute or two)"
    rm -rf $into
    mkdir -p $into/build
    cp $source/* $into/build
    (
        cd $into/build
        # A configured proxy or toolchain stays in effect; settings that bypass go.mod do not.
        export GOWORK=off GOFLAGS=-mod=mod CGO_ENABLED=0
        go mod download $module
        cp -r "$(go list -m -f '{{.Dir}}' $module)" ferretdb
        chmod -R u+w ferretdb
        patch --quiet --strip=1 --fuzz=0 --directory=ferretdb <ferretdb.patch
        go mod edit -replace $module=./ferretdb
        go build -buildvcs=false -trimpath -ldflags='-s -w' -o ../mongo .
    )
    rm -rf $into/build
    stamp $into $source/*
}

stack() {
    packages $(lacking redis-server:redis-server redis-cli:redis-tools java:default-jre-headless openssl:openssl)
    kafka
    mongo
}

# Versity S3 Gateway, which serves a folder over S3. Our module pins it and has the checksums of its dependencies.
s3() {
    local into=$PWD/target/tools/s3 source=dev/servers/tools/s3
    is_current "$into" $source/* && return
    packages $(lacking go:golang-go)
    echo "dev/install: building the S3 gateway (two minutes)"
    rm -rf "$into"
    (
        cd $source
        export GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0
        nice -n 10 go build -buildvcs=false -trimpath -ldflags='-s -w' -o "$into/" tool 2> >(grep -v '^go: downloading' >&2)
    )
    stamp "$into" $source/*
}

# Prometheus, Alertmanager and their tools, and the exporters of Redis and Kafka. FerretDB serves its metrics itself.
watch() {
    packages_without_service $(lacking prometheus:prometheus promtool:prometheus prometheus-alertmanager:prometheus-alertmanager \
        amtool:prometheus-alertmanager prometheus-redis-exporter:prometheus-redis-exporter | sort -u)
    jmx
}

# The files that dev/images packs. If no Docker runs, also a Docker daemon and the tools that build the base images.
images() {
    if ! docker info >/dev/null 2>&1; then
        local lacks
        lacks=$(lacking dockerd:docker.io debootstrap:debootstrap ip:iproute2 nsenter:util-linux)
        packages_without_service $lacks
        # The service has another name than the package.
        [[ $lacks != *docker.io* ]] || update-rc.d docker disable >/dev/null 2>&1 || true
    fi
    kafka
    jmx
    mongo
}

# The `docker compose` plugin, if Docker has none.
compose() {
    local into=$PWD/target/tools/compose source=dev/servers/tools/compose module=github.com/docker/compose/v2
    docker compose version >/dev/null 2>&1 && return
    is_current "$into" $source/* && return
    packages $(lacking go:golang-go)
    echo "dev/install: building docker compose (some minutes)"
    rm -rf "$into"
    (
        cd $source
        export GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0
        version=$(go list -m -f '{{.Version}}' $module)
        go build -buildvcs=false -trimpath -ldflags="-s -w -X $module/internal.Version=$version" -o "$into"/cli-plugins/docker-compose $module/cmd
    )
    stamp "$into" $source/*
}
