#!/usr/bin/env bash
# Get Helm for the chart's tests: built once with Go, kept by version under ~/.cache/gpu-telemetry. Prints where the program is.
# `ci/helm.sh --find` only looks: the path if there is one, else nothing and exit code 1.
set -euo pipefail

VERSION=3.22.0
# What `helm template` takes for the cluster's version where it is told of none.
KUBERNETES_MAJOR=1 KUBERNETES_MINOR=36
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/gpu-telemetry"
FOLDER="$CACHE/helm-$VERSION"
BINARY="$FOLDER/helm"

fail() { echo "error: $*" >&2; exit 1; }

if command -v helm; then exit 0; fi
if [ -x "$BINARY" ]; then echo "$BINARY"; exit 0; fi
[ "${1:-}" != --find ] || exit 1

command -v go > /dev/null || fail "helm is built with Go, which is not here (or put a Helm 3 on PATH)"

mkdir -p "$FOLDER"
# Two builds at once would take twice as long for one result.
exec 9> "$CACHE/helm.lock"
flock 9
if [ -x "$BINARY" ]; then echo "$BINARY"; exit 0; fi

# Beside its final place: the last step is a rename, so that a half-made one is never found.
work="$(mktemp -d "$FOLDER/build.XXXXXX")"
trap 'rm -rf "$work"' EXIT
echo "building helm $VERSION: a minute or two, once" >&2
package=helm.sh/helm/v3
flags="-X $package/internal/version.version=v$VERSION"
for where in chartutil lint/rules; do
    flags+=" -X $package/pkg/$where.k8sVersionMajor=$KUBERNETES_MAJOR -X $package/pkg/$where.k8sVersionMinor=$KUBERNETES_MINOR"
done
GOTOOLCHAIN=local GOFLAGS='' GOBIN="$work" CGO_ENABLED=0 go install -ldflags "-s -w $flags" "$package/cmd/helm@v$VERSION" >&2 \
    || fail "helm $VERSION did not build; the lines above say why"

"$work/helm" version > /dev/null || fail "the helm that was built does not run"
mv "$work/helm" "$BINARY"
echo "$BINARY"
