#!/usr/bin/env bash
# Get a real Kubernetes API (etcd, kube-apiserver, kube-controller-manager; no nodes), and the kinds of Prometheus' operator, for the
# chart's tests: built once with Go, kept by version under ~/.cache/gpu-telemetry. Some ten minutes on two cores. Prints the folder.
# `ci/kubernetes.sh --find` only looks: the folder if it is there, else nothing and exit code 1.
set -euo pipefail

VERSION=1.37.2
ETCD_VERSION=3.7.0
# Whose kinds ServiceMonitor and PrometheusRule are.
OPERATOR_VERSION=0.85.0
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/gpu-telemetry"
FOLDER="$CACHE/kubernetes-$VERSION"

fail() { echo "error: $*" >&2; exit 1; }

if [ -x "$FOLDER/kube-controller-manager" ]; then echo "$FOLDER"; exit 0; fi
[ "${1:-}" != --find ] || exit 1

command -v go > /dev/null || fail "the Kubernetes API is built with Go 1.26 or newer, which is not here"

mkdir -p "$CACHE"
exec 9> "$CACHE/kubernetes.lock"
flock 9
if [ -x "$FOLDER/kube-controller-manager" ]; then echo "$FOLDER"; exit 0; fi

work="$(mktemp -d "$CACHE/kubernetes-build.XXXXXX")"
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "building Kubernetes' API $VERSION: some ten minutes, once" >&2
export GOTOOLCHAIN=local GOFLAGS=-mod=mod CGO_ENABLED=0

# `go install …@version` refuses a module with replace lines of its own: hence a module around it, which takes its parts as they are published.
go mod download "k8s.io/kubernetes@v$VERSION" >&2
{
    echo "module kubernetes-build"
    echo "go 1.26.0"
    echo "require k8s.io/kubernetes v$VERSION"
    echo "require go.etcd.io/etcd/server/v3 v$ETCD_VERSION"
    grep -oE '^\s*k8s.io/[a-z-]+ => \./staging' "$(go env GOMODCACHE)/cache/download/k8s.io/kubernetes/@v/v$VERSION.mod" \
        | awk -v version="v0.${VERSION#1.}" '{print "replace " $1 " => " $1 " " version}'
} > go.mod
cat > tools.go <<GO
//go:build tools

package tools

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
)
GO
minor="${VERSION#1.}"
flags="-s -w -X k8s.io/component-base/version.gitVersion=v$VERSION -X k8s.io/component-base/version.gitMajor=1"
flags+=" -X k8s.io/component-base/version.gitMinor=${minor%.*}"
{
    go mod tidy
    mkdir bin
    go build -ldflags "$flags" -o bin/etcd go.etcd.io/etcd/server/v3
    go build -ldflags "$flags" -o bin/kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
    go build -ldflags "$flags" -o bin/kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
} >&2 || fail "Kubernetes' API $VERSION did not build; the lines above say why"
operator="github.com/prometheus-operator/prometheus-operator"
go mod download "$operator@v$OPERATOR_VERSION" >&2
for kind in servicemonitors prometheusrules; do
    cp "$(go env GOMODCACHE)/$operator@v$OPERATOR_VERSION/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" bin/
done
mv bin "$FOLDER"
echo "$FOLDER"
