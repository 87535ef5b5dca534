"""Formats gunicorn's log lines like those of every other service."""

from __future__ import annotations

import logging
import logging.config
from typing import Any

from gunicorn.glogging import Logger

from telemetry_site import options
from telemetry_site.logs import log_config


class GunicornLogger(Logger):
    """Hands every record to the handlers of ``log_config``. Django configures the same handlers again in each worker."""

    def setup(self, cfg: Any) -> None:
        """gunicorn calls this before it logs anything."""
        config = log_config(options.LOG_FORMAT.read(), options.VERBOSITY.read(), {"service": "serve"})
        logging.config.dictConfig(config)
        self.error_log, self.access_log = logging.getLogger("gunicorn.error"), logging.getLogger("gunicorn.access")
        for logger in (self.error_log, self.access_log):
            logger.propagate = True
            logger.handlers.clear()

    def reopen_files(self) -> None:
        """Does nothing: logs go to standard error."""
