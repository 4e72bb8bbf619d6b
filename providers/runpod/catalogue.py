"""Which machine to ask for: RunPod's catalogue of GPUs as it is now, and our candidates under a price cap."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal

from pydantic import Field

from domain.errors import NotConfigured, Unavailable
from domain.records import Record
from providers.runpod.client import RunPodClient, date_of, json_of, read_usd

QUERY = {"include": "AVAILABILITY", "product": "POD"}
"""`availability` is told for a stated product alone (api-reference-v2, GpuProductFilter)."""

_CUDA = re.compile(r"(\d+)(?:\.(\d+))?")


class Gpu(Record):
    """A GPU of the catalogue, on the secure cloud. `stock` is NONE, LOW, MEDIUM or HIGH, None where it is not told;
    `cuda_versions` maps what its machines have to whether one is free, and is empty where nothing is told."""

    gpu_id: str
    usd_per_hour: Decimal
    stock: str | None = None
    cuda_versions: dict[str, bool] = Field(default_factory=dict)

    def may_be_free(self, min_cuda_version: str | None) -> bool:
        """Whether the catalogue leaves a hope; it is a hint and reserves nothing."""
        if self.stock == "NONE":
            return False
        if min_cuda_version is None or not self.cuda_versions:
            return True
        return any(
            is_free and _number(version) >= _number(min_cuda_version) for version, is_free in self.cuda_versions.items()
        )


class Catalogue(Record):
    """What can be rented now, by RunPod's clock at `read_at` (None where it does not say)."""

    gpus: dict[str, Gpu]
    read_at: datetime | None


def read_catalogue(client: RunPodClient) -> Catalogue:
    """The secure cloud's GPUs. `Unavailable` when it cannot be asked or read; nothing is ordered without it."""
    response = client.look("GET", "/catalog/gpus", "reading which machines there are", query=QUERY)
    answer = json_of(response)
    entries = answer.get("gpus") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise Unavailable("RunPod's catalogue of GPUs could not be read; it can be asked again.")
    found = [gpu for gpu in map(_gpu, entries) if gpu is not None]
    return Catalogue(gpus={gpu.gpu_id: gpu for gpu in found}, read_at=date_of(response))


def candidates(
    catalogue: Catalogue, wanted: tuple[str, ...], *, cap: Decimal, min_cuda_version: str | None
) -> tuple[Gpu, ...]:
    """Those of the wanted GPUs that may be free under the price cap, in the order they are wanted in; at least one.

    `Unavailable` when none is free now, `NotConfigured` when none is under the cap or none is offered at all: then only
    another cap or another GPU helps.
    """
    offered = [catalogue.gpus[name] for name in wanted if name in catalogue.gpus]
    affordable = [gpu for gpu in offered if gpu.usd_per_hour <= cap]
    if not affordable:
        seen = ", ".join(f"{gpu.gpu_id} {gpu.usd_per_hour} USD" for gpu in offered) or "none of them is offered"
        raise NotConfigured(
            f"None of {', '.join(wanted)} can be rented at RunPod's secure cloud for {cap} USD per hour ({seen}): "
            "raise price_cap_usd_per_hour or name another GPU in domain/models/runpod.toml."
        )
    possible = tuple(gpu for gpu in affordable if gpu.may_be_free(min_cuda_version))
    if not possible:
        names = ", ".join(gpu.gpu_id for gpu in affordable)
        raise Unavailable(f"RunPod has no machine free now with {names}; it is ordered later.")
    return possible


def _gpu(entry: object) -> Gpu | None:
    """One entry; None for what is not on the secure cloud or cannot be read, which is then simply not chosen."""
    if not isinstance(entry, dict) or entry.get("secure") is False:
        return None
    price = entry.get("price")
    usd = read_usd(price.get("secure")) if isinstance(price, dict) else None
    if not isinstance(entry.get("id"), str) or not usd:
        return None
    stock = entry.get("availability")
    told = entry.get("cudaVersions")
    versions = {
        one["version"]: one.get("available") is not False
        for one in (told if isinstance(told, list) else [])
        if isinstance(one, dict) and isinstance(one.get("version"), str) and _CUDA.fullmatch(one["version"])
    }
    return Gpu(
        gpu_id=entry["id"],
        usd_per_hour=usd,
        stock=stock if isinstance(stock, str) else None,
        cuda_versions=versions,
    )


def _number(version: str) -> tuple[int, int]:
    """12.11 is above 12.2 (api-reference-v2, CreateGpuConfig)."""
    found = _CUDA.fullmatch(version)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)
