#!/usr/bin/env bash
# Get a real Alertmanager for the tests: Debian's package, unpacked under ~/.cache/gpu-telemetry without being installed.
# Prints where the program is. `ci/alertmanager.sh --find` only looks: the path if there is one, else nothing and exit code 1.
set -euo pipefail

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/gpu-telemetry"
BINARY="$CACHE/alertmanager/alertmanager"

fail() { echo "error: $*" >&2; exit 1; }

if command -v alertmanager; then exit 0; fi
if command -v prometheus-alertmanager; then exit 0; fi
if [ -x "$BINARY" ]; then echo "$BINARY"; exit 0; fi
[ "${1:-}" != --find ] || exit 1

for tool in apt-get dpkg-deb; do
    command -v "$tool" > /dev/null || fail "the Alertmanager comes from Debian's package, and $tool is not here (put an alertmanager on PATH)"
done

mkdir -p "$CACHE"
# Two at once would do the same twice.
exec 9> "$CACHE/alertmanager.lock"
flock 9
if [ -x "$BINARY" ]; then echo "$BINARY"; exit 0; fi

# Beside its final place: the last step is a rename, so that a half-made one is never found.
work="$(mktemp -d "$CACHE/alertmanager-get.XXXXXX")"
trap 'rm -rf "$work"' EXIT
cd "$work"
{
    apt-get download -qq prometheus-alertmanager && dpkg-deb -x prometheus-alertmanager_*.deb .
} >&2 || fail "Debian's package prometheus-alertmanager cannot be had: apt-get update first (or put an alertmanager on PATH)"
usr/bin/prometheus-alertmanager --version > /dev/null 2>&1 || fail "the Alertmanager of the package does not run"
mkdir -p "$(dirname "$BINARY")"
mv usr/bin/prometheus-alertmanager "$BINARY"
echo "$BINARY"
