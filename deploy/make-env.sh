#!/bin/sh
# Makes the passwords and tokens of deploy/docker-compose.yml: make-env.sh [FILE]. What is there already stays as it is.
set -eu
file=${1:-$(dirname "$0")/.env}
umask 077
touch "$file"
chmod 600 "$file"
for name in BROKER_TOKEN SECRET_KEY INFLUXDB_TOKEN INFLUXDB_PASSWORD POSTGRES_PASSWORD GRAFANA_PASSWORD; do
    grep -q "^$name=." "$file" || printf '%s=%s\n' "$name" "$(od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n')" >> "$file"
done
