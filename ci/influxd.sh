#!/usr/bin/env bash
# Get a real influxd for the tests: built once from its Go module, kept by version under ~/.cache/gpu-telemetry.
# Users install InfluxDB their own way; this is for CI and for developers without Docker. Prints where the program is.
# `ci/influxd.sh --find` only looks: the path if there is one, else nothing and exit code 1.
set -euo pipefail

VERSION=2.9.1
PKG_CONFIG_VERSION=0.3.0
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/gpu-telemetry"
BINARY="$CACHE/influxd-$VERSION/influxd"

fail() { echo "error: $*" >&2; exit 1; }

if command -v influxd; then exit 0; fi
if [ -x "$BINARY" ]; then echo "$BINARY"; exit 0; fi
[ "${1:-}" != --find ] || exit 1

command -v go > /dev/null || fail "influxd is built with Go 1.25.10 or newer, which is not here (or put an influxd on PATH)"
command -v cargo > /dev/null || fail "influxd's query engine is built with Rust, and cargo is not here (or put an influxd on PATH)"
command -v clang > /dev/null || fail "influxd is built with clang, which is not here: apt-get install clang (or put an influxd on PATH)"
command -v protoc > /dev/null || fail "influxd is built with protoc, which is not here: apt-get install protobuf-compiler (or put an influxd on PATH)"

mkdir -p "$CACHE"
# Two builds at once would take twice as long for one result.
exec 9> "$CACHE/influxd.lock"
flock 9
if [ -x "$BINARY" ]; then echo "$BINARY"; exit 0; fi

# Beside its final place, not in /tmp: the last step is a rename, so that a half-made one is never found.
work="$(mktemp -d "$CACHE/influxd-build.XXXXXX")"
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "building influxd $VERSION: some minutes, once" >&2

# `go install …@version` refuses a module with a replace line of its own: hence a module around it that repeats the line.
cat > go.mod <<MOD
module influxd-build

go 1.25.10

require github.com/influxdata/influxdb/v2 v$VERSION

replace github.com/nats-io/nats-streaming-server v0.11.2 => github.com/influxdata/nats-streaming-server v0.11.3-0.20201112040610-c277f7560803
MOD
cat > tools.go <<GO
//go:build tools

package tools

import _ "github.com/influxdata/influxdb/v2/cmd/influxd"
GO

export GOTOOLCHAIN=local GOFLAGS=-mod=mod GOBIN="$work/bin"
{
    # This pkg-config builds flux's Rust library while Go builds.
    GOFLAGS='' go install "github.com/influxdata/pkg-config@v$PKG_CONFIG_VERSION"
    go mod tidy
    # flux asks for an older Rust by a toolchain file and denies warnings: use the Rust that is here, with warnings as such.
    if command -v rustup > /dev/null; then
        RUSTUP_TOOLCHAIN="${RUSTUP_TOOLCHAIN:-$(rustup show active-toolchain | awk '{print $1}')}"
        export RUSTUP_TOOLCHAIN
    fi
    PATH="$GOBIN:$PATH" PKG_CONFIG="$GOBIN/pkg-config" RUSTFLAGS="--cap-lints warn" \
        go build -tags 'sqlite_foreign_keys,sqlite_json' -o influxd github.com/influxdata/influxdb/v2/cmd/influxd
} >&2 || fail "influxd $VERSION did not build; the lines above say why"

./influxd version > /dev/null || fail "the influxd that was built does not run"
mkdir -p "$(dirname "$BINARY")"
mv influxd "$BINARY"
echo "$BINARY"
