"""What a GPU-hour and a kWh cost: a TOML file that USAGE_PRICES names. Without it, nothing about money or CO2 is shown.

currency = "EUR"
energy_per_kwh = 0.21      # optional
pue = 1.3                  # power usage effectiveness: energy of the site for each kWh of the GPUs; optional, 1 without it
co2_grams_per_kwh = 380    # optional

[gpu_hour]                 # a part of the model's name, in either case: the longest that fits counts
"H100" = 2.50
"A100" = 1.40
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

_MOST_MODELS = 1000
_MOST_BYTES = 1 << 20
_DECIMALS = 6
_KEYS = ("currency", "energy_per_kwh", "pue", "co2_grams_per_kwh", "gpu_hour")


class PricesError(ValueError):
    """The file of prices cannot be used. One line: the file, the key, and what is allowed."""


class Prices(msgspec.Struct, frozen=True):
    """Prices in ``currency``. None: not set."""

    currency: str
    gpu_hour: Mapping[str, Decimal]
    energy_per_kwh: Decimal | None = None
    pue: Decimal = Decimal(1)
    co2_grams_per_kwh: Decimal | None = None

    def of_model(self, model: str) -> Decimal | None:
        """The price of an hour of a GPU of this model, None if there is none."""
        name = model.lower()
        fitting = [part for part in self.gpu_hour if part.lower() in name]
        return self.gpu_hour[max(fitting, key=len)] if fitting else None


def load_prices(path: str) -> Prices | None:
    """The prices in this file; None for an empty path. A file is read again once it has changed. Raises PricesError."""
    if not path:
        return None
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise PricesError(f"{path}: cannot be read: {error.strerror}") from None
    return _load(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _load(path: str, _mtime_ns: int, size: int) -> Prices:
    if size > _MOST_BYTES:
        raise PricesError(f"{path}: has {size:,} bytes; at most {_MOST_BYTES:,} are allowed")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        found = tomllib.loads(text, parse_float=Decimal)
    except OSError as error:
        raise PricesError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PricesError(f"{path}: is no TOML file: {error}") from None
    return _checked(path, found)


def _checked(path: str, found: Mapping[str, Any]) -> Prices:
    for key in found:
        if key not in _KEYS:
            raise PricesError(f"{path}: {key} is not known; allowed are {', '.join(_KEYS)}")
    currency = found.get("currency")
    if not isinstance(currency, str) or not 1 <= len(currency) <= 8 or not currency.isprintable():
        raise PricesError(f"{path}: currency: a text of 1 to 8 characters is needed, as EUR")
    models = found.get("gpu_hour", {})
    if not isinstance(models, Mapping) or len(models) > _MOST_MODELS or not all(models):
        raise PricesError(f"{path}: gpu_hour: a table of at most {_MOST_MODELS} models and prices is needed")
    by_model = {name: _number(path, f"gpu_hour.{name}", price) for name, price in models.items()}
    energy, co2 = found.get("energy_per_kwh"), found.get("co2_grams_per_kwh")
    if not by_model and energy is None and co2 is None:
        raise PricesError(f"{path}: has no price: set gpu_hour, energy_per_kwh or co2_grams_per_kwh")
    return Prices(
        currency,
        by_model,
        None if energy is None else _number(path, "energy_per_kwh", energy),
        _number(path, "pue", found.get("pue", 1), Decimal(1), Decimal(10), 3),
        None if co2 is None else _number(path, "co2_grams_per_kwh", co2),
    )


def _number(
    path: str,
    key: str,
    value: Any,
    least: Decimal = Decimal(0),
    most: Decimal = Decimal(1_000_000),
    decimals: int = _DECIMALS,
) -> Decimal:
    allowed = f"a number from {least} to {most:,} with at most {decimals} decimals is allowed"
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise PricesError(f"{path}: {key}: {value!r:.40} is no number; {allowed}")
    number = Decimal(value)
    if not number.is_finite() or not least <= number <= most or number != round(number, decimals):
        raise PricesError(f"{path}: {key}: is {value!s:.40}; {allowed}")
    return number
