#!/usr/bin/env bash
# The whole pipeline in a kind cluster on this machine. Run again, it builds, loads and upgrades.
#   deploy/kind/up.sh                    a synthetic fleet
#   deploy/kind/up.sh capture.csv …      your captures (1 MiB in all, as a ConfigMap; .csv.gz works too)
#   deploy/kind/up.sh --delete           remove the cluster and all that is in it
set -euo pipefail
cd "$(dirname "$0")/../.."

CLUSTER=gpu-telemetry NAMESPACE=gpu-telemetry RELEASE=tele
SERVICES=(mq-server streamer collector watch api)

fail() { echo "error: $*" >&2; exit 1; }
step() { echo "--- $*"; }

for tool in docker kind kubectl helm make; do
    command -v "$tool" > /dev/null || fail "$tool is not here; needed are docker, kind, kubectl, helm and make"
done

if [ "${1:-}" = --delete ]; then
    exec kind delete cluster --name "$CLUSTER"
fi
for capture in "$@"; do
    [ -f "$capture" ] || fail "$capture is no file"
done

step "cluster"
if ! kind get clusters 2> /dev/null | grep -qx "$CLUSTER"; then
    kind create cluster --config deploy/kind/cluster.yaml --wait 120s
fi
# Never another cluster than this one, whatever kubectl points at.
kubectl() { command kubectl --context "kind-$CLUSTER" --namespace "$NAMESPACE" "$@"; }
helm() { command helm --kube-context "kind-$CLUSTER" --namespace "$NAMESPACE" "$@"; }

step "images"
make docker-build VERSION=latest
for service in "${SERVICES[@]}"; do
    kind load docker-image "gpu-telemetry-pipeline/$service:latest" --name "$CLUSTER"
done

step "InfluxDB"
kubectl create namespace "$NAMESPACE" --dry-run=client --output yaml | kubectl apply --filename -
kubectl label namespace "$NAMESPACE" pod-security.kubernetes.io/enforce=restricted --overwrite
if ! kubectl get secret influxdb > /dev/null 2>&1; then
    secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
    kubectl create secret generic influxdb --from-literal=password="$(secret)" --from-literal=token="$(secret)"
fi
kubectl apply --filename deploy/kind/influxdb.yaml
kubectl rollout status statefulset/influxdb --timeout 300s

step "pipeline"
values=(--values helm/gpu-telemetry/values-kind.yaml)
if [ "$#" -gt 0 ]; then
    files=()
    for capture in "$@"; do files+=(--from-file="$capture"); done
    kubectl create configmap dcgm-capture "${files[@]}" --dry-run=client --output yaml | kubectl apply --server-side --force-conflicts --filename -
    values+=(--set streamer.data.existingConfigMap=dcgm-capture)
fi
helm upgrade --install "$RELEASE" helm/gpu-telemetry "${values[@]}" --wait --timeout 10m
# Images of one tag are not seen to have changed.
kubectl rollout restart statefulset,deployment --selector "app.kubernetes.io/instance=$RELEASE,app.kubernetes.io/component in (mq-server,collector,streamer,watch,api)"
for workload in statefulset/$RELEASE-mq-server statefulset/$RELEASE-collector statefulset/$RELEASE-streamer deployment/$RELEASE-watch deployment/$RELEASE-api; do
    kubectl rollout status "$workload" --timeout 300s
done

step "test"
helm test "$RELEASE" --timeout 5m

cat <<TEXT
--- ready
API        http://127.0.0.1:8080/api/v1/gpus
Dashboard  http://127.0.0.1:8080/
Swagger    http://127.0.0.1:8080/swagger/index.html
InfluxDB   http://127.0.0.1:8086   user admin, password: kubectl --context kind-$CLUSTER --namespace $NAMESPACE get secret influxdb --output jsonpath='{.data.password}' | base64 --decode
Admin      kubectl --context kind-$CLUSTER --namespace $NAMESPACE exec -it deployment/$RELEASE-api -c api -- python manage.py createsuperuser
           then http://127.0.0.1:8080/admin/
Remove it  deploy/kind/up.sh --delete
TEXT
