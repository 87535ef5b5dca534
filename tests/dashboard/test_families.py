"""dashboard.families: every metric of the catalogue has its place in the lists of pages."""

from __future__ import annotations

import pytest

from dashboard.families import OTHER, by_family, family_of, title_of
from readings.catalogue import CATALOGUE


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_metric_of_the_catalogue_has_a_family(name: str) -> None:
    assert family_of(name) != OTHER


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("DCGM_FI_DEV_GPU_UTIL", "Utilisation"),
        ("DCGM_FI_PROF_PCIE_TX_BYTES", "NVLink, PCIe and fabric"),
        ("DCGM_FI_DEV_POWER_VIOLATION", "Throttling"),
        ("DCGM_FI_DEV_XID_ERRORS", "Errors and memory repair"),
        ("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL:nvlink:3", "NVLink, PCIe and fabric"),
        ("of_nobody", OTHER),
    ],
)
def test_families(name: str, family: str) -> None:
    assert family_of(name) == family


def test_lists_begin_with_use_and_keep_every_metric() -> None:
    names = [*reversed(list(CATALOGUE)), "of_nobody"]
    families = by_family(names)
    assert next(iter(families)) == "Utilisation"
    assert list(families)[-1] == OTHER
    assert sorted(name for each in families.values() for name in each) == sorted(names)


def test_a_part_is_named_after_its_whole() -> None:
    assert title_of("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL:nvlink:3").endswith(", nvlink 3")
    assert title_of("of_nobody") == "of_nobody"
