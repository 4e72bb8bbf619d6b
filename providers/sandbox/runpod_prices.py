"""What the sandbox's RunPod rents out, and what it says it costs: figures for a rehearsal, under our price caps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Price:
    """A GPU's memory in GB and its price on the secure cloud."""

    memory_gb: int
    usd_per_hour: float


PRICES = {
    "NVIDIA GeForce RTX 4090": Price(24, 0.69),
    "NVIDIA L40S": Price(48, 0.86),
    "NVIDIA RTX 6000 Ada Generation": Price(48, 0.77),
    "NVIDIA RTX A6000": Price(48, 0.49),
    "NVIDIA A40": Price(48, 0.40),
    "NVIDIA A100 80GB PCIe": Price(80, 1.39),
    "NVIDIA A100-SXM4-80GB": Price(80, 1.49),
    "NVIDIA H100 PCIe": Price(80, 1.99),
    "NVIDIA H100 80GB HBM3": Price(80, 2.69),
}
"""Ids as in RunPod's catalogue. Prices: the A100's and the H100s' as runpod_trainers.md 6 has them, the others of that
order; none is a promise."""


def gpu_type(name: str, *, with_stock: bool) -> dict[str, Any]:
    """An entry of `GET /v2/catalog/gpus` (GpuType)."""
    price = PRICES[name]
    usd = price.usd_per_hour
    entry: dict[str, Any] = {
        "id": name,
        "name": name.removeprefix("NVIDIA "),
        "pool": None,
        "manufacturer": "NVIDIA",
        "memory": price.memory_gb,
        "secure": True,
        "community": True,
        "price": {"secure": usd, "community": round(usd * 0.8, 2)},
        "maxCount": {"secure": 8, "community": 4},
    }
    if with_stock:
        versions = [{"version": version, "available": True} for version in ("12.8", "13.0")]
        entry |= {"availability": "HIGH", "cudaVersions": versions}
    return entry
