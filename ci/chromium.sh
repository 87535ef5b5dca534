#!/usr/bin/env bash
# Prints the path of a Chromium for the browser tests; without one, installs it first.
#   ci/chromium.sh [--find]      --find: only look, and fail where there is none
set -euo pipefail
cd "$(dirname "$0")/.."

find_chromium() {
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" && return 0
    done
    .venv/bin/python - << 'PYTHON'
import os, sys
from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    path = playwright.chromium.executable_path
if not os.path.exists(path):
    sys.exit(1)
print(path)
PYTHON
}

if find_chromium; then exit 0; fi
if [ "${1:-}" = --find ]; then exit 1; fi
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >&2 || true
fi
find_chromium || { .venv/bin/python -m playwright install chromium >&2 && find_chromium; }
