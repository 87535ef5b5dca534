"""Makes a large capture from a small one: the same rows again and again, each round some seconds later.

python -m bench.make_capture capture.csv big.csv 2000000
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

from readings.times import SECOND, format_time, parse_time

STEP_S = 10


def make_capture(source: Path, target: Path, rows: int) -> None:
    """Write ``rows`` rows under the columns of ``source``."""
    with source.open(newline="") as file:
        header, *lines = list(csv.reader(file))
    column = header.index("timestamp")
    places: dict[int, bytes] = {}
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for line in lines:
        time_ns = parse_time(line[column])
        line[column] = places.setdefault(time_ns, b"\x01%d\x01" % len(places)).decode()
        writer.writerow(line)
    text = out.getvalue().encode()
    with target.open("wb") as big:
        big.write(",".join(header).encode() + b"\n")
        for number in range(-(-rows // len(lines))):
            round_ = text
            for time_ns, place in places.items():
                round_ = round_.replace(place, format_time(time_ns + number * STEP_S * SECOND).encode())
            rest = rows - number * len(lines)
            if rest < len(lines):
                round_ = b"".join(round_.splitlines(keepends=True)[:rest])
            big.write(round_)


def change_pods(source: Path, target: Path) -> None:
    """Write the rows of ``source`` twice, five seconds apart. In between, every 16th GPU gets another pod."""
    with source.open(newline="") as file:
        header, *lines = list(csv.reader(file))
    time, uuid, pod = (header.index(name) for name in ("timestamp", "uuid", "pod"))
    changing = set(sorted({line[uuid] for line in lines})[::16])
    with target.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(header)
        for number in range(2):
            for line in lines:
                fields = list(line)
                fields[time] = format_time(parse_time(line[time]) + number * 5 * SECOND)
                if line[uuid] in changing:
                    fields[pod] = f"pod-{number}"
                writer.writerow(fields)


if __name__ == "__main__":
    make_capture(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
