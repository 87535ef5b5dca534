"""Every setting of the pipeline: name, default, help. settings.py reads them; commands take them as flags."""

from __future__ import annotations

from typing import Any

from telemetry_site.env import (
    Address,
    Option,
    address,
    boolean,
    boolean_or_auto,
    duration,
    group_names,
    host,
    login_urls,
    name,
    no_address_or,
    no_ping_url_or,
    no_public_url_or,
    nothing_or,
    one_of,
    origins,
    rate,
    request_rate,
    secret,
    shard,
    size,
    some_of,
    spaced_words,
    speed,
    start_offset,
    text,
    time_zone,
    user_name,
    web_url,
    whole_number,
    words,
)

MIB = 1 << 20

SITE, BROKER, CLIENT, STREAM, COLLECT, STORE, WEB = "site", "broker", "client", "stream", "collect", "store", "web"
MONITOR, TOP, HEALTH, WATCH = "monitor", "top", "health", "watch"

# The groups of settings that a command takes as flags. SITE holds everything that Django itself needs.
COMMAND_GROUPS: dict[str, tuple[str, ...]] = {
    "runbroker": (SITE, BROKER),
    "stream": (SITE, CLIENT, STREAM, MONITOR),
    "collect": (SITE, CLIENT, COLLECT, STORE, MONITOR),
    "serve": (SITE, CLIENT, COLLECT, STORE, HEALTH, WEB),
    "watch": (SITE, CLIENT, STORE, HEALTH, WATCH, MONITOR),
    "top": (SITE, CLIENT, TOP),
    "pipeline": (SITE, BROKER, CLIENT, STREAM, COLLECT, STORE, HEALTH, WATCH, WEB),
}

STATE_DIR = Option(
    "STATE_DIR",
    "var",
    text,
    "folder for all state: broker log, SQLite files, dead letters, resume positions, secret key",
    (SITE,),
)
DATABASE_URL = Option(
    "DATABASE_URL",
    "",
    text,
    "Django's database (hosts, GPUs, users): postgres://user:password@host:5432/name or sqlite:///path; unset: SQLite under STATE_DIR",
    (SITE,),
    secret=True,
)
SECRET_KEY = Option(
    "SECRET_KEY", "", text, "Django's signing key; unset: generated once and kept under STATE_DIR", (SITE,), secret=True
)
LOG_FORMAT = Option(
    "LOG_FORMAT",
    "human",
    one_of("human", "json"),
    "log format: lines for people (human), or one JSON object a line (json)",
    (SITE,),
)
VERBOSITY = Option(
    "VERBOSITY",
    "1",
    whole_number(0, 3),
    "how much to log: warnings and errors (0), changes of state (1), each step (2), libraries' debug output too (3)",
    (SITE,),
)
DEBUG = Option(
    "DEBUG", "false", boolean, "Django's debug pages; never turn them on where others can reach the service", (SITE,)
)
ALLOWED_HOSTS = Option(
    "ALLOWED_HOSTS",
    "localhost,127.0.0.1,[::1]",
    words,
    "host names the web service answers to (health checks are answered on any)",
    (SITE,),
)

TCP_ADDR = Option("TCP_ADDR", ":9000", address, "where the broker listens; without a host: the loopback", (BROKER,))
HTTP_ADDR = Option("HTTP_ADDR", ":9001", address, "where the broker answers /health, /stats and /metrics", (BROKER,))
BUFFER_SIZE = Option(
    "BUFFER_SIZE",
    "10000",
    whole_number(0, 1_000_000),
    "how many of the newest messages to keep in memory (2 MiB at most)",
    (BROKER,),
)
FSYNC = Option(
    "FSYNC",
    "always",
    one_of("always", "interval", "never"),
    "when the broker answers a publish: after fsync (always), or after the write, with one fsync a second (interval) or none (never)",
    (BROKER,),
)
SEGMENT_BYTES = Option(
    "SEGMENT_BYTES", "64MiB", size(4096, 1 << 32), "size at which the log starts a new segment file", (BROKER,)
)
RETENTION_BYTES = Option(
    "RETENTION_BYTES",
    "10GiB",
    size(0, 1 << 50),
    "the log's oldest segments are dropped while it is larger; 0: no limit",
    (BROKER,),
)
RETENTION_AGE = Option(
    "RETENTION_AGE",
    "7d",
    duration(zero=True),
    "a segment of the log is dropped when every message in it is older; 0: never",
    (BROKER,),
)
MAX_FRAME_BYTES = Option(
    "MAX_FRAME_BYTES", "8MiB", size(1024, 128 * MIB), "largest frame that the broker accepts", (BROKER,)
)
MAX_CONNECTIONS = Option(
    "MAX_CONNECTIONS",
    "2000",
    whole_number(1, 1_000_000),
    "most clients connected at once; fewer if the limit of open files allows no more",
    (BROKER,),
)
FREE_SPACE_RESERVE = Option(
    "FREE_SPACE_RESERVE",
    "256MiB",
    size(0, 1 << 50),
    "free disk space below which the broker reports itself unhealthy",
    (BROKER,),
)
BROKER_ALLOW_ANONYMOUS = Option(
    "BROKER_ALLOW_ANONYMOUS", "false", boolean, "let the broker listen beyond this machine without a token", (BROKER,)
)
BROKER_TOKEN = Option(
    "BROKER_TOKEN",
    "",
    secret(16),
    "shared secret of the broker and its clients, 16 characters or more; unset: the broker asks for none",
    (BROKER, CLIENT),
    secret=True,
)

BROKER_TLS_CERT = Option(
    "BROKER_TLS_CERT",
    "",
    text,
    "the broker's certificate (PEM file): the broker then speaks only TLS, over TCP and HTTP; for clients: their own certificate, where the broker asks for one",
    (BROKER, CLIENT),
)
BROKER_TLS_KEY = Option("BROKER_TLS_KEY", "", text, "the key of that certificate (PEM file)", (BROKER, CLIENT))
BROKER_TLS_CA = Option(
    "BROKER_TLS_CA",
    "",
    text,
    "for clients: speak TLS, and trust this CA for the broker's certificate (PEM file, or system); for the broker: accept only clients with a certificate of this CA",
    (BROKER, CLIENT),
)

MQ_HOST = Option("MQ_HOST", "localhost", host, "broker host: a name or an address, as 10.0.0.5 or ::1", (CLIENT,))
MQ_PORT = Option("MQ_PORT", "9000", whole_number(1, 65535), "broker port", (CLIENT,))

SOURCE = Option(
    "SOURCE",
    "csv",
    one_of("csv", "dcgm", "simulate"),
    "where readings come from: captures (csv), live dcgm-exporters (dcgm), or a synthetic fleet (simulate)",
    (STREAM,),
)
SHARD = Option(
    "SHARD",
    "",
    shard,
    "this streamer's part of the source where several streamers share it: i/n, the i-th of n",
    (STREAM,),
)
SPOOL_BYTES = Option(
    "SPOOL_BYTES",
    "1GiB",
    size(1 << 20, 1 << 40),
    "size limit of a live source's spool while the broker is away; beyond it the streamer drops the oldest readings and counts them",
    (STREAM,),
)
METRICS_ADDR = Option(
    "METRICS_ADDR",
    "",
    no_address_or,
    "where a streamer or collector serves its own /health, /ready and /metrics; unset: nowhere",
    (MONITOR,),
)

CSV_PATH = Option(
    "CSV_PATH",
    "",
    text,
    "the DCGM captures to stream: a CSV file (also .gz, .zst), a folder, a pattern as logs/*.csv, or - for standard input",
    (STREAM,),
)
FOLLOW = Option(
    "FOLLOW", "false", boolean, "wait for more at the capture's end, also when the file is rotated", (STREAM,)
)
CSV_TZ = Option(
    "CSV_TZ", "UTC", time_zone, "time zone of a capture's times that name no zone", (STREAM,), flag_name="tz"
)
CSV_COLUMNS = Option(
    "CSV_COLUMNS",
    "",
    words,
    "column names of a capture that has no header, as nvidia-smi's --query-gpu was given them: timestamp,uuid,index,power.draw",
    (STREAM,),
    flag_name="columns",
)
CSV_HOSTNAME = Option(
    "CSV_HOSTNAME",
    "",
    text,
    "the host of nvidia-smi's captures, which do not say it; unset: this machine's name",
    (STREAM,),
    flag_name="hostname",
)
SPEED = Option(
    "SPEED", "0", speed, "pace: 1x is the capture's own, 10x ten times that; 0: as fast as possible", (STREAM,)
)

TARGETS = Option(
    "TARGETS",
    "",
    words,
    "exporters to scrape: URLs, files that list them (one a line, or Prometheus' file_sd JSON), DNS names",
    (STREAM,),
    many=True,
)
SCRAPE_INTERVAL = Option(
    "SCRAPE_INTERVAL",
    "5s",
    duration(0.05),
    "time between two scrapes of an exporter, or two samples of the synthetic fleet",
    (STREAM,),
    flag_name="interval",
)
SCRAPE_TIMEOUT = Option("SCRAPE_TIMEOUT", "5s", duration(0.05), "time-out of a scrape", (STREAM,))
SCRAPE_MAX_BYTES = Option(
    "SCRAPE_MAX_BYTES", "64MiB", size(1024, 1 << 30), "largest answer of an exporter, uncompressed", (STREAM,)
)
SCRAPE_TOKEN = Option("SCRAPE_TOKEN", "", text, "bearer token that exporters ask for", (STREAM,), secret=True)
SCRAPE_USER = Option("SCRAPE_USER", "", user_name, "user name that exporters ask for", (STREAM,))
SCRAPE_PASSWORD = Option("SCRAPE_PASSWORD", "", text, "password of SCRAPE_USER", (STREAM,), secret=True)
SCRAPE_TLS_CA = Option(
    "SCRAPE_TLS_CA", "", text, "CA certificates (PEM file) for exporters that use TLS; unset: the system's", (STREAM,)
)

SIM_HOSTS = Option(
    "SIM_HOSTS", "4", whole_number(1, 10_000), "hosts of the synthetic fleet", (STREAM,), flag_name="hosts"
)
SIM_GPUS_PER_HOST = Option(
    "SIM_GPUS_PER_HOST", "8", whole_number(1, 64), "GPUs of each of its hosts", (STREAM,), flag_name="gpus-per-host"
)
SIM_METRICS = Option(
    "SIM_METRICS",
    "default",
    one_of("default", "health", "all"),
    "metrics of the synthetic fleet: dcgm-exporter's default set (default), that of deploy/dcgm-exporter/health.csv (health), or the"
    " whole catalogue (all)",
    (STREAM,),
    flag_name="metrics",
)
SIM_FAULTS = Option(
    "SIM_FAULTS",
    "",
    some_of("xid", "overheat", "throttle", "missing", "blank", "spike", "silent", besides="@"),
    "faults of the synthetic fleet: now and then xid, overheat, throttle, missing, blank, spike, silent, or all; or by name at a place"
    " and a time, as xid:79@3/5+60s (docs/sources.md)",
    (STREAM,),
    flag_name="faults",
    many=True,
)
SIM_FAULT_RATE = Option(
    "SIM_FAULT_RATE",
    "0",
    whole_number(0, 3600),
    "how many faults an hour the synthetic fleet has by lot, of all that have a name; 0: none",
    (STREAM,),
    flag_name="fault-rate",
)
SIM_SCENARIO = Option(
    "SIM_SCENARIO",
    "random",
    one_of("random", "demo"),
    "what happens in the synthetic fleet: jobs come and go by chance (random), or every kind of job, an idle team, a hot host and"
    " failing GPUs from the first minute on (demo); manage.py pipeline without a source runs the demo",
    (STREAM,),
    flag_name="scenario",
)
SIM_HISTORY = Option(
    "SIM_HISTORY",
    "0",
    duration(zero=True),
    "how much of its past the synthetic fleet reports first; 0: none",
    (STREAM,),
    flag_name="history",
)
SIM_SEED = Option(
    "SIM_SEED",
    "1",
    whole_number(0, 1 << 32),
    "seed of the synthetic fleet: another number makes another fleet",
    (STREAM,),
    flag_name="seed",
)

BATCH_SIZE = Option("BATCH_SIZE", "100", whole_number(1, 20_000), "readings in one published batch, at most", (STREAM,))
BATCH_FORMAT = Option(
    "BATCH_FORMAT",
    "compact",
    one_of("compact", "plain"),
    "form of published batches: each GPU described once (compact), or one JSON object a reading (plain), for collectors that know no other",
    (STREAM,),
)
COLLECT_INTERVAL = Option(
    "COLLECT_INTERVAL",
    "5s",
    duration(0.01),
    "longest time that the streamer gathers readings before it publishes them",
    (STREAM,),
)
INSTANCE_ID = Option("INSTANCE_ID", "streamer-1", name, "this streamer's name: the source of its batches", (STREAM,))
LOOP = Option("LOOP", "false", boolean, "start the capture again when it ends", (STREAM,))
RATE = Option("RATE", "0", rate, "readings per second; 0: as fast as possible", (STREAM,))
TIMESTAMPS = Option(
    "TIMESTAMPS",
    "auto",
    one_of("auto", "source", "now", "shift"),
    "times of readings: the capture's own (source), the time of sending (now), moved so that the last one is now (shift), or source unless the capture is older than RETENTION_PERIOD, then shift (auto)",
    (STREAM,),
)

COLLECTOR_ID = Option(
    "COLLECTOR_ID",
    "collector-1",
    name,
    "this collector's name: the broker keeps its committed offset under it",
    (COLLECT,),
)
START_OFFSET = Option(
    "START_OFFSET",
    "",
    start_offset,
    "where to begin: earliest, latest or an offset; unset: after the last commit, else earliest",
    (COLLECT,),
)
FLUSH_INTERVAL = Option(
    "FLUSH_INTERVAL",
    "10s",
    duration(0.01),
    "longest time between a message's arrival and its write to the store",
    (COLLECT,),
)
RETENTION_PERIOD = Option(
    "RETENTION_PERIOD", "24h", duration(zero=True), "how long readings are kept; 0: for ever", (COLLECT, STREAM, STORE)
)
PLACEMENT_RETENTION = Option(
    "PLACEMENT_RETENTION",
    "400d",
    duration(zero=True),
    "how long the inventory remembers which pods a GPU had, after they were last seen; 0: for ever",
    (COLLECT,),
)
GPU_RETENTION = Option(
    "GPU_RETENTION",
    "0",
    duration(zero=True),
    "a GPU is taken out of the inventory, with its history, when it was not seen for this long; 0: never",
    (COLLECT,),
)
MAX_GPUS = Option(
    "MAX_GPUS",
    "500000",
    whole_number(1, 100_000_000),
    "most GPUs and MIG instances in the inventory, and most hosts; readings of further ones are refused",
    (COLLECT,),
)
MAX_NEW_GPUS = Option(
    "MAX_NEW_GPUS",
    "250000",
    whole_number(1, 100_000_000),
    "most GPUs and MIG instances, and most hosts, that a collector takes up within an hour",
    (COLLECT,),
)
MAX_METRICS = Option(
    "MAX_METRICS",
    "20000",
    whole_number(1, 1_000_000),
    "most metric names in the store; readings of further ones are refused",
    (COLLECT,),
)
MAX_NEW_METRICS = Option(
    "MAX_NEW_METRICS",
    "10000",
    whole_number(1, 1_000_000),
    "most metric names that a collector takes up within an hour",
    (COLLECT,),
)

STORAGE_TYPE = Option(
    "STORAGE_TYPE",
    "",
    nothing_or(one_of("sqlite", "influxdb", "memory")),
    "where readings are kept: sqlite (a file), influxdb (a server), or memory (in the web process, gone with it); unset: influxdb where INFLUXDB_TOKEN is set, else sqlite",
    (STORE,),
)
SQLITE_PATH = Option(
    "SQLITE_PATH", "", text, "the readings' SQLite file; unset: readings.sqlite3 under STATE_DIR", (STORE,)
)

INFLUXDB_URL = Option(
    "INFLUXDB_URL", "http://localhost:8086", web_url("http://host:8086"), "the InfluxDB 2 server", (STORE,)
)
INFLUXDB_TLS_CA = Option(
    "INFLUXDB_TLS_CA",
    "",
    text,
    "CA certificates (PEM file) for an InfluxDB with an https URL; unset: the system's",
    (STORE,),
)
INFLUXDB_TOKEN = Option(
    "INFLUXDB_TOKEN",
    "",
    text,
    "InfluxDB's API token; STORAGE_TYPE=influxdb needs it",
    (STORE,),
    secret=True,
)
INFLUXDB_ORG = Option("INFLUXDB_ORG", "cisco", text, "InfluxDB's organization", (STORE,))
INFLUXDB_BUCKET = Option(
    "INFLUXDB_BUCKET",
    "gpu_telemetry",
    text,
    "the bucket for the readings; created with RETENTION_PERIOD if it is missing",
    (STORE,),
)

ROLLUPS = Option(
    "ROLLUPS",
    "true",
    boolean,
    "keep roll-ups beside the readings, for questions about long ranges and large fleets: statistics of each host, each model and"
    " the fleet by minute, and of each GPU too by hour",
    (STORE,),
)
RETENTION_1M = Option(
    "RETENTION_1M", "90d", duration(zero=True), "how long the roll-ups of a minute are kept; 0: for ever", (STORE,)
)
RETENTION_1H = Option(
    "RETENTION_1H", "730d", duration(zero=True), "how long the roll-ups of an hour are kept; 0: for ever", (STORE,)
)

HEALTH_RULES = Option(
    "HEALTH_RULES",
    "",
    text,
    "a TOML file with changes to the rules of the fleet's health: thresholds, and rules that are off or only store; unset: the rules as they come",
    (HEALTH,),
)
EVENT_RETENTION = Option(
    "EVENT_RETENTION",
    "400d",
    duration(zero=True),
    "how long events of the fleet's health are kept after they closed; 0: for ever",
    (HEALTH,),
)
USAGE_IDLE_PERCENT = Option(
    "USAGE_IDLE_PERCENT",
    "5",
    whole_number(1, 50),
    "utilisation in % below which a GPU that is held counts as idle; usage also shows what twice as much would give",
    (HEALTH,),
)
USAGE_RETENTION = Option(
    "USAGE_RETENTION",
    "400d",
    duration(zero=True),
    "how long it is kept what GPUs did and who held them, by the hour for 8 days and then by the day; 0: for ever",
    (HEALTH,),
)
USAGE_PRICES = Option(
    "USAGE_PRICES",
    "",
    text,
    "a TOML file with what a GPU-hour and a kWh cost (docs/usage.md); unset: usage shows no money and no CO2",
    (HEALTH,),
)

WATCH_ID = Option(
    "WATCH_ID",
    "watch",
    name,
    "name under which watch reads the log; its place in the log is kept in the database",
    (WATCH,),
)
NOTIFY_URLS = Option(
    "NOTIFY_URLS",
    "",
    spaced_words,
    "who hears of events of the fleet's health: Apprise URLs (mail, Slack, Teams, PagerDuty, webhooks …) with blanks between them,"
    " each with filters in brackets before it if need be, as [severity>=critical,tag.team=ml]slack://…; unset: nobody",
    (WATCH,),
    secret=True,
    many=True,
)
NOTIFY_SEVERITY = Option(
    "NOTIFY_SEVERITY",
    "warning",
    one_of("info", "warning", "critical"),
    "the least severity of events that anybody hears of: info, warning or critical",
    (WATCH,),
)
NOTIFY_GROUP_BY = Option(
    "NOTIFY_GROUP_BY",
    "host,rule",
    group_names,
    "events that are alike in these go out as one message: host, rule, severity, model, namespace, or names of tags, as rack",
    (WATCH,),
    many=True,
)
NOTIFY_WAIT = Option(
    "NOTIFY_WAIT",
    "30s",
    duration(zero=True),
    "how long events are collected before their message is sent",
    (WATCH,),
)
NOTIFY_REPEAT = Option(
    "NOTIFY_REPEAT",
    "0",
    duration(60.0, zero=True),
    "how often to remind of critical events that are open and not acknowledged, as 4h; 0: never",
    (WATCH,),
)
NOTIFY_MOST = Option(
    "NOTIFY_MOST",
    "60",
    whole_number(4, 100_000),
    "most messages an hour by each of NOTIFY_URLS; what is beyond waits, and goes out as one digest",
    (WATCH,),
)
ALERTMANAGER_URL = Option(
    "ALERTMANAGER_URL",
    "",
    login_urls,
    "Prometheus Alertmanagers that get each event as an alert, as https://user:password@alertmanager:9093; several with blanks"
    " between them: all get all",
    (WATCH,),
    secret=True,
    many=True,
)
ALERTMANAGER_TLS_CA = Option(
    "ALERTMANAGER_TLS_CA",
    "",
    text,
    "CA certificates (PEM file) for an ALERTMANAGER_URL with https; unset: the system's",
    (WATCH,),
)
HEARTBEAT_URL = Option(
    "HEARTBEAT_URL",
    "",
    no_ping_url_or,
    "a URL that is asked for at each HEARTBEAT_INTERVAL while events are judged, as healthchecks.io and Uptime Kuma give them: its silence is noticed there",
    (WATCH,),
    secret=True,
)
HEARTBEAT_INTERVAL = Option("HEARTBEAT_INTERVAL", "1m", duration(1.0), "time between two heartbeats", (WATCH,))

HOST = Option("HOST", "127.0.0.1", host, "address the web service listens on", (WEB,))
PORT = Option("PORT", "8080", whole_number(0, 65535), "port the web service listens on", (WEB,))
WEB_CONCURRENCY = Option(
    "WEB_CONCURRENCY", "2", whole_number(1, 64), "web worker processes (memory storage always has one)", (WEB,)
)
MAX_PAGE_SIZE = Option("MAX_PAGE_SIZE", "1000", whole_number(1, 100_000), "most rows in one answer of the API", (WEB,))
QUERIES_AT_ONCE = Option(
    "QUERIES_AT_ONCE",
    "2",
    whole_number(1, 64),
    "heavy questions (over 200,000 readings) that one web worker answers at once; one more gets 503",
    (WEB,),
)
QUERY_MEMORY = Option(
    "QUERY_MEMORY",
    "128MiB",
    size(32 * MIB, 1 << 40),
    "memory that the answer to one question about windows may take, however many readings there are",
    (WEB,),
)
STALE_AFTER = Option(
    "STALE_AFTER",
    "5m",
    duration(1.0),
    "a GPU is stale when its last reading is this much older than the fleet's newest",
    (WEB, TOP),
)

API_AUTH_REQUIRED = Option(
    "API_AUTH_REQUIRED",
    "auto",
    boolean_or_auto,
    "answer only requests with a token or a login: true, false, or true unless only this machine can ask (auto)",
    (WEB,),
)
API_RATE_PER_TOKEN = Option(
    "API_RATE_PER_TOKEN",
    "0",
    request_rate,
    "rate limit of one token or one logged-in user, as 10/s or 600/m; 0: no limit",
    (WEB,),
)
API_RATE_PER_ADDRESS = Option(
    "API_RATE_PER_ADDRESS",
    "0",
    request_rate,
    "rate limit of one address without a valid token or login, as 10/s or 600/m; 0: no limit",
    (WEB,),
)
LOGIN_RATE = Option(
    "LOGIN_RATE", "10/m", request_rate, "rate limit of login attempts from one address; 0: no limit", (WEB,)
)
PUBLIC_URL = Option(
    "PUBLIC_URL",
    "",
    no_public_url_or,
    "the public address of the web service, as https://gpus.example.com, or https://example.com/gpu where it is below a path; with https, plain HTTP is redirected to it",
    (WEB, WATCH),
)
TRUSTED_PROXIES = Option(
    "TRUSTED_PROXIES",
    "0",
    whole_number(0, 10),
    "how many trusted proxies stand before the web service: it trusts that many X-Forwarded-* entries",
    (WEB, WATCH),
)
CORS_ALLOWED_ORIGINS = Option(
    "CORS_ALLOWED_ORIGINS",
    "",
    origins,
    "origins of other web pages that may call the API from a browser, as https://grafana.example.com; with a token, never with a login",
    (WEB,),
    many=True,
)

API_URL = Option(
    "API_URL",
    "",
    no_public_url_or,
    "the web service that manage.py top asks, as https://gpus.example.com; unset: Django's database and the broker themselves",
    (TOP,),
    flag_name="url",
)
API_TOKEN = Option("API_TOKEN", "", text, "API token for API_URL, of scope read", (TOP,), secret=True)
API_TLS_CA = Option(
    "API_TLS_CA",
    "",
    text,
    "CA certificates (PEM file) for an API_URL with https; unset: the system's",
    (TOP,),
    flag_name="tls-ca",
)

OPTIONS: tuple[Option[Any], ...] = tuple(value for value in list(globals().values()) if isinstance(value, Option))
BY_NAME: dict[str, Option[Any]] = {option.name: option for option in OPTIONS}


def auth_required() -> bool | None:
    """API_AUTH_REQUIRED; for auto True where others can ask, and None where the server's sockets and each request decide."""
    required = API_AUTH_REQUIRED.read()
    is_local = Address(HOST.read(), PORT.read()).is_loopback
    if required is None and (PUBLIC_URL.read() or TRUSTED_PROXIES.read() or not is_local):
        return True
    return required


def options_for(command: str) -> list[Option[Any]]:
    """The settings that a command takes as flags, in the table's order; none for a command that is not a service."""
    groups = set(COMMAND_GROUPS.get(command, ()))
    return [option for option in OPTIONS if groups.intersection(option.groups)]
