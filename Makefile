# Everything a developer or a user runs. Needs Python 3.11+, git and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
ROOMS  := telemetry_site broker readings stores ingest inventory health api dashboard
COMMON := telemetry_site readings

.DEFAULT_GOAL := help
.PHONY: help all setup setup-dev run test build build-api build-mq-server build-streamer build-collector build-watch \
        run-mq run-stream run-streamer run-collect run-collector run-watch run-api influxd helm kubernetes chart-docs kind-up kind-down fmt lint vet check coverage coverage-summary swagger soak nats-server bench-api bench-broker bench-capture lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

all: check test build ## check, test and build

# --- environment ---------------------------------------------------------------------------------------------------
setup: $(VENV)/.runtime ## create .venv for the services
setup-dev: $(VENV)/.dev ## create .venv for the services and the tests

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: requirements.txt | $(VENV)/.python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

# --- the two commands ----------------------------------------------------------------------------------------------
run: setup ## run the whole pipeline on this machine: make run, or CSV_PATH=capture.csv make run
	@exec $(MANAGE) pipeline

.PHONY: top
top: setup ## show the fleet in this terminal: make top, or API_URL=https://gpus.example.com make top
	@API_URL="$${API_URL:-http://127.0.0.1:$${PORT:-8080}}" exec $(MANAGE) top

# A file's tests run in one worker. Files keep the order of their folders, in which some share what is started for them.
PYTEST_WORKERS ?= auto
PYTEST = $(BIN)/python -m pytest --numprocesses $(PYTEST_WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: setup-dev ## run all tests, with a worker for each core, at most 4 (PYTEST_WORKERS=0: in one process)
	$(PYTEST) $(PYTEST_ARGS)

helm: ## get Helm for the chart's tests (builds it once with Go, in a minute or two, unless it is on PATH)
	@ci/helm.sh

kubernetes: ## get a real Kubernetes API, without nodes, for the chart's tests (builds it once with Go, in some ten minutes)
	@ci/kubernetes.sh

chart-docs: setup-dev ## write the chart's README.md and values.schema.json from its values
	$(BIN)/python -m ci.chart_docs

.PHONY: test-postgres
test-postgres: setup-dev ## run the tests of inventory and API again, with Django's database on a real PostgreSQL
	TEST_DATABASE=postgresql $(PYTEST) -q tests/inventory tests/api $(patsubst %,--ignore tests/%.py,$(OWN_DATABASE)) $(PYTEST_ARGS)
# These tests start services of their own, with another database.
OWN_DATABASE := api/test_serve api/test_influxdb api/test_serve_exports inventory/test_postgres

.PHONY: chromium screenshots bench-pages bench-health
chromium: setup-dev ## get Chromium for the tests of the pages (installs it, unless it is on PATH)
	@ci/chromium.sh

screenshots: setup-dev chromium ## write the pictures of docs/images from the synthetic fleet
	$(BIN)/python -m tests.dashboard.browser.screenshots

bench-pages: setup-dev chromium ## measure the pages: bytes, first paint, server time and the heat map, at 247 and 10,000 GPUs
	$(BIN)/python -m bench.pages

SEED ?= 1
bench-health: setup-dev ## run the rules of health against a ground truth: what they miss, make up, cost (SEED=7: another fleet)
	$(BIN)/python -m bench.health --seed $(SEED)

influxd: ## get a real InfluxDB for the tests (builds it once, in some minutes, unless it is on PATH)
	@ci/influxd.sh

.PHONY: alertmanager
alertmanager: ## get a real Alertmanager for the tests (unpacks Debian's package, unless it is on PATH)
	@ci/alertmanager.sh

# --- one service each ----------------------------------------------------------------------------------------------
run-mq: setup ## run the broker
	@exec $(MANAGE) runbroker

run-stream: setup ## run a streamer: CSV_PATH=capture.csv make run-stream
	@exec $(MANAGE) stream

run-streamer: run-stream ## the same as run-stream
run-collector: run-collect ## the same as run-collect

run-collect: setup ## run a collector
	@exec $(MANAGE) collect

run-watch: setup ## judge the fleet's health
	@exec $(MANAGE) watch

run-api: setup ## run the web service
	@exec $(MANAGE) serve

# --- builds: the installed environment, compiled and checked -------------------------------------------------------
build: setup ## compile and check all services
	$(BIN)/python -m compileall -q $(ROOMS) manage.py
	$(MANAGE) check

build-api: setup ## compile and check the web service
	$(BIN)/python -m compileall -q $(COMMON) stores inventory broker api dashboard && $(MANAGE) check && $(MANAGE) serve --help > /dev/null

build-mq-server: setup ## compile and check the broker
	$(BIN)/python -m compileall -q telemetry_site broker && $(MANAGE) runbroker --help > /dev/null

build-streamer: setup ## compile and check the streamer
	$(BIN)/python -m compileall -q $(COMMON) broker ingest && $(MANAGE) stream --help > /dev/null

build-collector: setup ## compile and check the collector
	$(BIN)/python -m compileall -q $(COMMON) broker stores inventory ingest && $(MANAGE) collect --help > /dev/null

build-watch: setup ## compile and check the watch
	$(BIN)/python -m compileall -q $(COMMON) broker stores inventory health && $(MANAGE) watch --help > /dev/null

# --- images and compose --------------------------------------------------------------------------------------------
DOCKER  ?= docker
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGES  := mq-server streamer collector watch api pipeline
# $(call image,api): the image's name, under DOCKER_REGISTRY where it is set, with or without a trailing slash
image    = $(if $(DOCKER_REGISTRY),$(patsubst %/,%,$(DOCKER_REGISTRY))/)gpu-telemetry-pipeline/$(1):$(VERSION)

.PHONY: docker-build $(IMAGES:%=docker-build-%) docker-push
docker-build: $(IMAGES:%=docker-build-%) ## build all images, tagged gpu-telemetry-pipeline/SERVICE:VERSION (DOCKER_REGISTRY=… before it)
docker-build-mq-server: ## build the broker's image
docker-build-streamer: ## build the streamer's image
docker-build-collector: ## build the collector's image
docker-build-watch: ## build the watch's image
docker-build-api: ## build the image of the web service
docker-build-pipeline: ## build the image that runs any of them by its command

$(IMAGES:%=docker-build-%): docker-build-%:
	$(DOCKER) build --file deploy/Dockerfile --target $* --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD 2> /dev/null || echo unknown) --tag $(call image,$*) .

docker-push: ## build all images and push them to DOCKER_REGISTRY
	@test -n "$(DOCKER_REGISTRY)" || { echo "error: set DOCKER_REGISTRY to the registry, as registry.example.com/team" >&2; exit 1; }
	@$(MAKE) --no-print-directory docker-build
	$(foreach each,$(IMAGES),$(DOCKER) push $(call image,$(each)) && ) true

kind-up: ## the whole pipeline in a kind cluster on this machine (needs docker, kind, kubectl, helm)
	@deploy/kind/up.sh

kind-down: ## remove that cluster
	@deploy/kind/up.sh --delete

COMPOSE ?= docker compose
.PHONY: compose-env compose-up compose-down
compose-env: ## generate passwords and tokens into deploy/.env, where they are missing
	@sh deploy/make-env.sh

compose-up: compose-env ## run the whole pipeline in containers, with InfluxDB and PostgreSQL: make compose-up, or with CSV_PATH=capture.csv
	@mkdir -p deploy/captures deploy/certificates
	$(if $(CSV_PATH),SOURCE=csv CAPTURES="$(abspath $(dir $(CSV_PATH)))" CSV_PATH="/captures/$(notdir $(CSV_PATH))") VERSION=$(VERSION) $(COMPOSE) --file deploy/docker-compose.yml up --build --detach
	@echo "http://127.0.0.1:8080; a login: $(COMPOSE) --file deploy/docker-compose.yml exec api python manage.py createsuperuser"

compose-down: ## stop the containers; the data stays, in volumes
	$(COMPOSE) --file deploy/docker-compose.yml down

# --- checks --------------------------------------------------------------------------------------------------------
fmt: setup-dev ## format the code
	$(BIN)/ruff check --fix --select I . && $(BIN)/ruff format .

lint: setup-dev ## check style and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

vet: setup-dev ## check types
	$(BIN)/mypy .

check: lint vet ## check style, types, migrations, settings and the API's description
	$(MANAGE) makemigrations --check --dry-run
	$(MANAGE) check
	@mkdir -p build
	$(MANAGE) spectacular --validate --fail-on-warn --file build/openapi.yaml && diff -u docs/openapi.yaml build/openapi.yaml

.PHONY: audit
AUDIT := $(VENV)-audit
audit: setup-dev $(AUDIT)/.done ## look for known vulnerabilities and unwanted licences in the dependencies; writes build/audit/
	$(BIN)/ruff check --select S .
	$(AUDIT)/bin/python ci/audit.py --python $(BIN)/python

$(AUDIT)/.done: requirements-audit.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.txt
	@touch $@

coverage: setup-dev ## run the tests with branch coverage, written to coverage/coverage.html
	$(PYTEST) --cov --cov-report= $(PYTEST_ARGS)
	$(BIN)/coverage html --directory coverage && cp coverage/index.html coverage/coverage.html

coverage-summary: setup-dev ## show the figures of the last coverage run
	$(BIN)/coverage report

swagger: setup-dev ## write docs/openapi.yaml
	$(MANAGE) spectacular --validate --fail-on-warn --file docs/openapi.yaml

soak: setup-dev influxd ## the long run: kills while a capture streams, 500 exporters, a broker away, and the fault matrix in full (CAPTURE=file: that one)
	@mkdir -p build
	@test -n "$(CAPTURE)" || $(MANAGE) makecapture build/soak.csv --hosts 31 --samples 1
	$(BIN)/python -m tests.ingest.kills all --capture $(or $(CAPTURE),build/soak.csv) --rounds 10
	$(BIN)/python -m tests.ingest.kills streamer --capture $(or $(CAPTURE),build/soak.csv) --rows 2000000 --rounds 10
	$(BIN)/python -m tests.ingest.kills broker-away --seconds 60
	$(BIN)/python -m tests.ingest.kills targets --targets 500 --minutes 10
	$(BIN)/python -m tests.health.watch.kills --kills 45
	$(BIN)/python -m tests.deploy.restarts --rounds 50
	$(BIN)/python -m tests.broker.faults.kills --rounds 100
	$(BIN)/python -m tests.broker.faults.kills --rounds 50 --graceful
	$(BIN)/python -m tests.broker.faults.power --rounds 15
	$(BIN)/python -m tests.broker.faults.power --rounds 5 --fsync interval
	$(BIN)/python -m tests.broker.faults.long_peers
	$(BIN)/python -m bench.broker_alone --parts behind
	FAULT_EXAMPLES=2000 FAULT_FLIPS=4000 FAULT_LAST=2500 FAULT_FRAMES=50000000 $(BIN)/python -m pytest -q --timeout 7200 \
		tests/broker/faults/test_histories.py tests/broker/faults/test_crashes.py tests/broker/faults/test_peers.py
	$(BIN)/python -m tests.ingest.kills spool --away 300 --rounds 5
	$(BIN)/python -m tests.ingest.kills spool --away 60 --rounds 2 --spool-bytes 1MiB
	$(BIN)/python -m tests.ingest.kills collector --rounds 50
	$(BIN)/python -m tests.ingest.kills influxd --rounds 5
	$(BIN)/python -m tests.ingest.kills influxd --readings 200000 --rate 2000 --rounds 1 --away 60

$(VENV)/schemathesis/.installed: requirements-schemathesis.txt | $(VENV)/.python
	$(PYTHON) -m venv $(VENV)/schemathesis
	$(VENV)/schemathesis/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-schemathesis.txt
	@touch $@

.PHONY: schemathesis
schemathesis: setup-dev $(VENV)/schemathesis/.installed ## ask the API everything that its description allows, and much that it does not (SECONDS=600 EXAMPLES=500: longer)
	$(BIN)/python -m tests.api.schemathesis_run --seconds $(or $(SECONDS),60) --examples $(or $(EXAMPLES),20)

NATS_VERSION := 2.15.2
NATS := $(HOME)/.cache/gpu-telemetry/nats-server-$(NATS_VERSION)
nats-server: $(NATS)/nats-server ## build the NATS server for the comparison in bench/ (needs Go)
$(NATS)/nats-server:
	GOTOOLCHAIN=local GOBIN=$(NATS) go install github.com/nats-io/nats-server/v2@v$(NATS_VERSION)

ACTIONLINT_VERSION := 1.7.12
ACTIONLINT := $(HOME)/.cache/gpu-telemetry/actionlint-$(ACTIONLINT_VERSION)
.PHONY: actionlint
actionlint: $(ACTIONLINT)/actionlint ## build the linter for the GitHub workflow that the tests use (needs Go)
$(ACTIONLINT)/actionlint:
	GOTOOLCHAIN=local GOBIN=$(ACTIONLINT) go install github.com/rhysd/actionlint/cmd/actionlint@v$(ACTIONLINT_VERSION)

bench-api: setup-dev ## measure the web service: requests/s of the most used queries, on sqlite and influxdb (needs wrk)
	$(BIN)/python -m bench.api

COMPOSE_GO_VERSION := 2.16.2
COMPOSE_GO := $(HOME)/.cache/gpu-telemetry/compose-go-$(COMPOSE_GO_VERSION)
.PHONY: compose-go
compose-go: $(COMPOSE_GO)/cmd ## build compose's own loader, with which the tests check the compose file (needs Go)
$(COMPOSE_GO)/cmd:
	GOTOOLCHAIN=local GOBIN=$(COMPOSE_GO) go install github.com/compose-spec/compose-go/v2/cmd@v$(COMPOSE_GO_VERSION)

bench-broker: setup-dev nats-server ## measure the broker beside NATS JetStream and Redis (needs redis-server)
	$(BIN)/python -m bench.broker

bench-capture: setup-dev ## measure how fast a large capture streams (CAPTURE=file: made from that one)
	@mkdir -p build
	@test -n "$(CAPTURE)" || $(MANAGE) makecapture build/bench.csv --hosts 31 --samples 1
	$(BIN)/python -m bench.capture $(or $(CAPTURE),build/bench.csv)

lock: setup-dev ## pin the dependencies of requirements*.in again, with hashes
	$(BIN)/uv pip compile requirements.in $(LOCK) --output-file requirements.txt
	$(BIN)/uv pip compile requirements-dev.in $(LOCK) --output-file requirements-dev.txt
	$(BIN)/uv pip compile requirements-audit.in $(LOCK) --output-file requirements-audit.txt
	$(BIN)/uv pip compile requirements-schemathesis.in $(LOCK) --output-file requirements-schemathesis.txt
LOCK := --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

clean: ## remove .venv and all build products (never var/, which holds the data)
	rm -rf $(VENV) $(AUDIT) build coverage .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis
	find . -name __pycache__ -not -path './var/*' -prune -exec rm -rf {} +
