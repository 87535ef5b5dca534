#!/bin/sh
# Takes out of a site-packages folder what no service uses: tests, headers, translations, and Arrow's network parts.
# Usage: slim.sh SITE_PACKAGES
set -eu
cd "$1"
rm -rf pyarrow/include pyarrow/src
rm -f pyarrow/libarrow_flight.* pyarrow/libarrow_s3.* pyarrow/_flight.* pyarrow/_s3fs.*
find . -type d \( -name tests -o -name LC_MESSAGES \) -prune -exec rm -rf {} +
find . -type f \( -name '*.pyi' -o -name '*.pxi' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.c' -o -name '*.h' \) -delete
