"""Django's settings and the pipeline's. Nothing else reads the environment (options.py has the names)."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from telemetry_site import options
from telemetry_site.database import database_config
from telemetry_site.env import SettingError
from telemetry_site.logs import log_config, process_ids
from telemetry_site.secret_key import load_or_make_secret_key
from telemetry_site.state_dir import keep_file_private, keep_folder_private

BASE_DIR = Path(__file__).resolve().parent.parent
# What the paths of telemetry_site.urls begin with.
OWN_PATHS = frozenset(
    {"admin", "api", "health", "login", "logout", "metrics", "ready", "redoc", "static", "swagger"}
    | {"events", "explore", "gpus", "hosts", "hot", "pipeline", "power", "usage"}
)
STATE_DIR = Path(options.STATE_DIR.read()).expanduser().absolute()
keep_folder_private(STATE_DIR)

# --- the pipeline -----------------------------------------------------------------------------------------------
TCP_ADDR = options.TCP_ADDR.read()
HTTP_ADDR = options.HTTP_ADDR.read()
BUFFER_SIZE = options.BUFFER_SIZE.read()
FSYNC = options.FSYNC.read()
SEGMENT_BYTES = options.SEGMENT_BYTES.read()
RETENTION_BYTES = options.RETENTION_BYTES.read()
RETENTION_AGE = options.RETENTION_AGE.read()
MAX_FRAME_BYTES = options.MAX_FRAME_BYTES.read()
MAX_CONNECTIONS = options.MAX_CONNECTIONS.read()
FREE_SPACE_RESERVE = options.FREE_SPACE_RESERVE.read()
BROKER_ALLOW_ANONYMOUS = options.BROKER_ALLOW_ANONYMOUS.read()
BROKER_TOKEN = options.BROKER_TOKEN.read()
BROKER_TLS_CERT = options.BROKER_TLS_CERT.read()
BROKER_TLS_KEY = options.BROKER_TLS_KEY.read()
BROKER_TLS_CA = options.BROKER_TLS_CA.read()

MQ_HOST = options.MQ_HOST.read()
MQ_PORT = options.MQ_PORT.read()

SOURCE = options.SOURCE.read()
SHARD = options.SHARD.read()
SPOOL_BYTES = options.SPOOL_BYTES.read()
METRICS_ADDR = options.METRICS_ADDR.read()
CSV_PATH = options.CSV_PATH.read()
FOLLOW = options.FOLLOW.read()
CSV_TZ = options.CSV_TZ.read()
CSV_COLUMNS = options.CSV_COLUMNS.read()
CSV_HOSTNAME = options.CSV_HOSTNAME.read()
SPEED = options.SPEED.read()
TARGETS = options.TARGETS.read()
SCRAPE_INTERVAL = options.SCRAPE_INTERVAL.read()
SCRAPE_TIMEOUT = options.SCRAPE_TIMEOUT.read()
SCRAPE_MAX_BYTES = options.SCRAPE_MAX_BYTES.read()
SCRAPE_TOKEN = options.SCRAPE_TOKEN.read()
SCRAPE_USER = options.SCRAPE_USER.read()
SCRAPE_PASSWORD = options.SCRAPE_PASSWORD.read()
SCRAPE_TLS_CA = options.SCRAPE_TLS_CA.read()
SIM_HOSTS = options.SIM_HOSTS.read()
SIM_GPUS_PER_HOST = options.SIM_GPUS_PER_HOST.read()
SIM_METRICS = options.SIM_METRICS.read()
SIM_FAULTS = options.SIM_FAULTS.read()
SIM_FAULT_RATE = options.SIM_FAULT_RATE.read()
SIM_SCENARIO = options.SIM_SCENARIO.read()
SIM_HISTORY = options.SIM_HISTORY.read()
SIM_SEED = options.SIM_SEED.read()
BATCH_SIZE = options.BATCH_SIZE.read()
BATCH_FORMAT = options.BATCH_FORMAT.read()
COLLECT_INTERVAL = options.COLLECT_INTERVAL.read()
INSTANCE_ID = options.INSTANCE_ID.read()
LOOP = options.LOOP.read()
RATE = options.RATE.read()
TIMESTAMPS = options.TIMESTAMPS.read()

COLLECTOR_ID = options.COLLECTOR_ID.read()
START_OFFSET = options.START_OFFSET.read()
FLUSH_INTERVAL = options.FLUSH_INTERVAL.read()
RETENTION_PERIOD = options.RETENTION_PERIOD.read()
# A default must not shorten the retention of a bucket that exists already.
RETENTION_PERIOD_IS_GIVEN = options.RETENTION_PERIOD.is_given()
PLACEMENT_RETENTION = options.PLACEMENT_RETENTION.read()
GPU_RETENTION = options.GPU_RETENTION.read()
MAX_GPUS, MAX_NEW_GPUS = options.MAX_GPUS.read(), options.MAX_NEW_GPUS.read()
MAX_METRICS, MAX_NEW_METRICS = options.MAX_METRICS.read(), options.MAX_NEW_METRICS.read()

SQLITE_PATH = Path(options.SQLITE_PATH.read() or STATE_DIR / "readings.sqlite3").expanduser().absolute()
INFLUXDB_URL = options.INFLUXDB_URL.read()
INFLUXDB_TLS_CA = options.INFLUXDB_TLS_CA.read()
INFLUXDB_TOKEN = options.INFLUXDB_TOKEN.read()
STORAGE_TYPE = options.STORAGE_TYPE.read() or ("influxdb" if INFLUXDB_TOKEN else "sqlite")
INFLUXDB_ORG = options.INFLUXDB_ORG.read()
INFLUXDB_BUCKET = options.INFLUXDB_BUCKET.read()
ROLLUPS = options.ROLLUPS.read()
RETENTION_1M, RETENTION_1H = options.RETENTION_1M.read(), options.RETENTION_1H.read()
RETENTION_1M_IS_GIVEN, RETENTION_1H_IS_GIVEN = options.RETENTION_1M.is_given(), options.RETENTION_1H.is_given()

WATCH_ID = options.WATCH_ID.read()
HEALTH_RULES = options.HEALTH_RULES.read()
EVENT_RETENTION = options.EVENT_RETENTION.read()
USAGE_IDLE_PERCENT = options.USAGE_IDLE_PERCENT.read()
USAGE_RETENTION = options.USAGE_RETENTION.read()
USAGE_PRICES = options.USAGE_PRICES.read()

NOTIFY_URLS = options.NOTIFY_URLS.read()
NOTIFY_SEVERITY = options.NOTIFY_SEVERITY.read()
NOTIFY_GROUP_BY = options.NOTIFY_GROUP_BY.read()
NOTIFY_WAIT = options.NOTIFY_WAIT.read()
NOTIFY_REPEAT = options.NOTIFY_REPEAT.read()
NOTIFY_MOST = options.NOTIFY_MOST.read()
ALERTMANAGER_URL = options.ALERTMANAGER_URL.read()
ALERTMANAGER_TLS_CA = options.ALERTMANAGER_TLS_CA.read()
HEARTBEAT_URL = options.HEARTBEAT_URL.read()
HEARTBEAT_INTERVAL = options.HEARTBEAT_INTERVAL.read()

HOST = options.HOST.read()
PORT = options.PORT.read()
WEB_CONCURRENCY = options.WEB_CONCURRENCY.read()
MAX_PAGE_SIZE = options.MAX_PAGE_SIZE.read()
QUERIES_AT_ONCE = options.QUERIES_AT_ONCE.read()
QUERY_MEMORY = options.QUERY_MEMORY.read()
STALE_AFTER = options.STALE_AFTER.read()
# How old the state of the fleet that pages show may be: those who look at the same time share one.
FLEET_SECONDS = 1.0
# The same for hosts, places and pods, which seldom change.
INVENTORY_SECONDS = 5.0
# The same for the size of the store.
STORE_SECONDS = 15.0

API_RATE_PER_TOKEN = options.API_RATE_PER_TOKEN.read()
API_RATE_PER_ADDRESS = options.API_RATE_PER_ADDRESS.read()
LOGIN_RATE = options.LOGIN_RATE.read()
PUBLIC_URL = options.PUBLIC_URL.read()
TRUSTED_PROXIES = options.TRUSTED_PROXIES.read()
# None: open to who asks from this machine (api.auth.openness).
API_AUTH_REQUIRED = options.auth_required()
CORS_ALLOWED_ORIGINS = options.CORS_ALLOWED_ORIGINS.read()
API_URL = options.API_URL.read()
API_TOKEN = options.API_TOKEN.read()
API_TLS_CA = options.API_TLS_CA.read()

# --- Django -----------------------------------------------------------------------------------------------------
DEBUG = options.DEBUG.read()
ALLOWED_HOSTS = options.ALLOWED_HOSTS.read()
SECRET_KEY = options.SECRET_KEY.read() or load_or_make_secret_key(STATE_DIR)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "corsheaders",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "telemetry_site",
    "broker",
    "ingest",
    "inventory",
    "health",
    "api",
    "dashboard",
]

MIDDLEWARE = [
    "telemetry_site.request_ids.RequestIdMiddleware",
    "api.middleware.ProbeMiddleware",
    "api.middleware.HeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "api.auth.middleware.AccessMiddleware",
]
if CORS_ALLOWED_ORIGINS:
    # Before every middleware that may answer, so that the calling page can read a refusal too.
    MIDDLEWARE.insert(2, "corsheaders.middleware.CorsMiddleware")
CORS_ALLOW_METHODS = ("GET", "HEAD", "OPTIONS")
CORS_ALLOW_HEADERS = ("accept", "authorization", "x-request-id")
CORS_EXPOSE_HEADERS = ("Retry-After", "X-Request-ID")
CORS_URLS_REGEX = r"^/api/"

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "dashboard:fleet"
LOGOUT_REDIRECT_URL = "login"
SESSION_ENGINE = "api.auth.sessions"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 7 * 86400
CSRF_COOKIE_HTTPONLY = True  # forms contain the token; no script reads the cookie
X_FRAME_OPTIONS = "DENY"

if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Where the service is below a path of its public address, telemetry_site.wsgi takes that path off, if the proxy has not.
PUBLIC_PATH = urlsplit(PUBLIC_URL).path
if PUBLIC_PATH.split("/")[1:2] and PUBLIC_PATH.split("/")[1] in OWN_PATHS:
    raise SettingError(
        f"PUBLIC_URL (--public-url): {PUBLIC_URL} has a path that the service itself begins paths with: use another"
    )
if PUBLIC_PATH:
    FORCE_SCRIPT_NAME = PUBLIC_PATH
    SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = f"{PUBLIC_PATH}/"
if PUBLIC_URL:
    ALLOWED_HOSTS = [*ALLOWED_HOSTS, str(urlsplit(PUBLIC_URL).hostname)]
    CSRF_TRUSTED_ORIGINS = [PUBLIC_URL.removesuffix(PUBLIC_PATH)]
if PUBLIC_URL.startswith("https:"):
    if not TRUSTED_PROXIES:
        raise SettingError(
            f"PUBLIC_URL (--public-url): {PUBLIC_URL} needs a proxy that speaks TLS: set TRUSTED_PROXIES to the number of proxies"
        )
    SECURE_SSL_REDIRECT = True
    SECURE_SSL_HOST = urlsplit(PUBLIC_URL).netloc
    # Prometheus scrapes each replica by its own address, past the proxy.
    SECURE_REDIRECT_EXEMPT = [f"^{re.escape(f'{PUBLIC_PATH}/metrics'.removeprefix('/'))}$"]
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = 30 * 86400
# HSTS for all subdomains and preloading are decisions of the domain's owner, for the proxy.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

ROOT_URLCONF = "telemetry_site.urls"
WSGI_APPLICATION = "telemetry_site.wsgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def _database() -> dict[str, Any]:
    try:
        return database_config(options.DATABASE_URL.read(), STATE_DIR)
    except ValueError as error:
        raise SettingError(f"DATABASE_URL: the value {error}") from None


DATABASES = {"default": _database()}
keep_file_private(SQLITE_PATH)
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    keep_file_private(Path(str(DATABASES["default"]["NAME"])))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{validator}"}
    for validator in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
FORMAT_MODULE_PATH = "telemetry_site.formats"  # UTC and RFC 3339's order, like every time in the API
USE_TZ = True

STATIC_URL = f"{PUBLIC_PATH}/static/"
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "dashboard.finders.UplotFinder",
]
# Served straight from the packages that ship them, so there is no collectstatic step to forget.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["api.browse.renderers.JsonRenderer", "api.browse.renderers.PageRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "api.browse.renderers.Negotiation",
    "DEFAULT_SCHEMA_CLASS": "api.schema.schema.TableSchema",
    "EXCEPTION_HANDLER": "api.errors.exception_handler",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "GPU telemetry API",
    "DESCRIPTION": (
        "The GPUs of the fleet, what they report and how the pipeline is doing. Times are RFC 3339 in UTC. Every error is"
        ' `{"error": code, "message": text}`. A parameter that is not known, or whose value cannot be used, is a 400 that'
        " names it. Prometheus metrics of the pipeline are at `/metrics`."
    ),
    "VERSION": "1.0.0",
    "TAGS": [
        {"name": "fleet", "description": "GPUs and the hosts they sit in"},
        {"name": "telemetry", "description": "readings, and what the metrics mean"},
        {"name": "health", "description": "what is wrong with the fleet: events, the rules that find them, and mutes"},
        {"name": "pipeline", "description": "how broker, collectors and store are doing"},
        {"name": "access", "description": "who may ask"},
        {"name": "probes", "description": "for load balancers and container platforms; answered on any host name"},
    ],
    "SERVE_INCLUDE_SCHEMA": False,
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "a token of `manage.py apitoken create NAME`, or of the admin",
            },
            "session": {
                "type": "apiKey",
                "in": "cookie",
                "name": "sessionid",
                "description": "a login at `/login`, for people",
            },
        }
    },
    # Two fields have the name state.
    "ENUM_NAME_OVERRIDES": {
        "EventStateEnum": ["open", "unknown", "closed"],
        "MuteStateEnum": ["active", "ended"],
        "AssetStateEnum": ["active", "maintenance", "retired"],
        "FleetHostStateEnum": ["active", "maintenance"],
        "GpuStateEnum": ["reporting", "stale"],
        "TokenStateEnum": ["active", "expired", "revoked"],
    },
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVERS": [{"url": PUBLIC_PATH}] if PUBLIC_PATH else [],
    "SORT_OPERATION_PARAMETERS": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    # No validator: it would send this service's address to a third party.
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None, "defaultModelsExpandDepth": 0},
    "REDOC_DIST": "SIDECAR",
}

LOG_FORMAT = options.LOG_FORMAT.read()
VERBOSITY = options.VERBOSITY.read()
LOGGING = log_config(LOG_FORMAT, VERBOSITY, process_ids(sys.argv, COLLECTOR_ID, INSTANCE_ID, WATCH_ID))
