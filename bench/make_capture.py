"""Make a large capture from a small one: the same rows again and again, each round some seconds later.

python bench/make_capture.py capture.csv big.csv 2000000
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from readings.times import SECOND, format_time, parse_time

STEP_S = 10


def main(source: Path, target: Path, rows: int) -> None:
    """Write ``rows`` rows."""
    with source.open(newline="") as file:
        header, *lines = list(csv.reader(file))
    column = header.index("timestamp")
    times = [parse_time(line[column]) for line in lines]
    written = round_ = 0
    with target.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        file.write(",".join(header) + "\n")
        while written < rows:
            texts: dict[int, str] = {}
            for line, time_ns in zip(lines, times, strict=True):
                text = texts.get(time_ns)
                if text is None:
                    text = texts[time_ns] = format_time(time_ns + round_ * STEP_S * SECOND)
                line[column] = text
                writer.writerow(line)
                written += 1
                if written == rows:
                    break
            round_ += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
