"""Limits of the web server. Times are in seconds, by the monotonic clock."""

from __future__ import annotations

# A request must be whole, head and body, this long after its first byte; a new connection's first, after it was accepted.
REQUEST_SECONDS = 20.0
# A whole request that waited this long for a thread is refused: by now its client asks again.
QUEUE_SECONDS = 30.0
# A client must take something this often, and the whole answer in SEND_SECONDS plus its size at MIN_BYTES_PER_SECOND.
STALL_SECONDS = 30.0
SEND_SECONDS = 60.0
MIN_BYTES_PER_SECOND = 4096
# After an answer that closes the connection, until the client closes it too. A reset could destroy the answer.
LINGER_SECONDS = 2.0
# How often connections are checked against these times.
SWEEP_SECONDS = 1.0

# A stopping worker waits this long for requests that are on their way.
STOP_IDLE_SECONDS = 1.0
# Exports end this long after the worker was told to stop, so that their last line has time.
STOP_EXPORT_SECONDS = 5.0
# It has this long for everything. gunicorn.conf.py grants it a little more.
STOP_SECONDS = 7.5

# The request line and all headers. One line has gunicorn's limits.
MAX_HEAD_BYTES = 64 * 1024
# Bodies are forms: a login, a page of the admin.
MAX_BODY_BYTES = 1024 * 1024
# Whole bodies and answers that wait in a worker's memory, each. Beyond it the slowest client is cut off.
MAX_WAITING_BYTES = 64 * 1024 * 1024
# An answer of unknown length goes on when its client has left no more than this of it.
STREAM_WAITING_BYTES = 64 * 1024
# Descriptors that a worker keeps for files, databases and stores.
RESERVED_DESCRIPTORS = 128
# Clients cut off for their slowness are told of in the log this often.
TELL_SECONDS = 60.0
