"""The file of prices."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from health.checks import check_prices
from health.usage.prices import PricesError, load_prices

GOOD = """
currency = "EUR"
energy_per_kwh = 0.21
pue = 1.3
co2_grams_per_kwh = 380
[gpu_hour]
"H100" = 2.50
"H100 80GB" = 3
"a100" = 1.40
"""


def write(folder: Path, text: str) -> str:
    path = folder / "prices.toml"
    path.write_text(text)
    return str(path)


def test_the_longest_part_of_the_models_name_counts(tmp_path: Path) -> None:
    prices = load_prices(write(tmp_path, GOOD))
    assert prices is not None
    assert prices.of_model("NVIDIA H100 80GB HBM3") == Decimal(3)
    assert prices.of_model("NVIDIA H100 NVL") == Decimal("2.5")
    assert prices.of_model("NVIDIA A100-SXM4-40GB") == Decimal("1.4")
    assert prices.of_model("Tesla T4") is None
    assert (prices.energy_per_kwh, prices.pue, prices.co2_grams_per_kwh) == (
        Decimal("0.21"),
        Decimal("1.3"),
        Decimal(380),
    )


def test_without_a_file_there_are_no_prices() -> None:
    assert load_prices("") is None


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    load_prices(path)
    write(tmp_path, GOOD.replace('"EUR"', '"Franken"'))
    prices = load_prices(path)
    assert prices is not None
    assert prices.currency == "Franken"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("currency = ", "is no TOML file"),
        ("[gpu_hour]\nH100 = 2.5", "currency: a text of 1 to 8 characters is needed"),
        ('currency = "EUR"', "has no price"),
        ('currency = "EUR"\nprice = 3', "price is not known; allowed are currency,"),
        (
            'currency = "EUR"\n[gpu_hour]\nH100 = "2.5"',
            r"gpu_hour.H100: '2.5' is no number; a number from 0 to 1,000,000",
        ),
        ('currency = "EUR"\n[gpu_hour]\nH100 = -1', "gpu_hour.H100: is -1; a number from 0"),
        ('currency = "EUR"\n[gpu_hour]\nH100 = nan', "gpu_hour.H100: is NaN"),
        ('currency = "EUR"\n[gpu_hour]\nH100 = true', "gpu_hour.H100: True is no number"),
        ('currency = "EUR"\n[gpu_hour]\nH100 = 1.1234567', "with at most 6 decimals"),
        ('currency = "EUR"\ngpu_hour = 2', "gpu_hour: a table"),
        ('currency = "EUR"\nenergy_per_kwh = 1\npue = 0.5', "pue: is 0.5; a number from 1 to 10"),
        ('currency = "EUR"\nenergy_per_kwh = 1e400', "energy_per_kwh: is 1E"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PricesError, match=reason) as error:
        load_prices(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_bad_file_stops_the_start(settings: Settings, tmp_path: Path) -> None:
    settings.USAGE_PRICES = write(tmp_path, "currency = 1")
    [found] = check_prices()
    assert found.msg.startswith(f"USAGE_PRICES: {settings.USAGE_PRICES}: currency: ")
    with pytest.raises(CommandError, match=r"USAGE_PRICES \(--usage-prices\): .*currency"):
        call_command("serve")
    settings.USAGE_PRICES = str(tmp_path / "missing.toml")
    with pytest.raises(CommandError, match=r"missing\.toml: cannot be read: No such file"):
        call_command("serve")
    settings.USAGE_PRICES = ""
    assert check_prices() == []
