"""The vendors that the sandbox plays beside fal: each a part that answers for host names of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from providers.sandbox.faults import FaultPlan
from providers.sandbox.journal import Journal
from providers.sandbox.shelf import Shelf
from providers.sandbox.wire import Reply, Request
from providers.sandbox.work import Workshop


@dataclass(frozen=True)
class Stage:
    """What all parts share: the jobs kept on disk, the workshop that does them, the files made, the faults in force.

    `folder` is the sandbox's; a part keeps what is its own in a folder below. `url` is the address of the server,
    `http://127.0.0.1:PORT`, once it listens.
    """

    journal: Journal
    workshop: Workshop
    shelf: Shelf
    faults: FaultPlan
    folder: Path
    is_stopping: Callable[[], bool]
    url: Callable[[], str]


class Part(Protocol):
    """One vendor's stand-in."""

    hosts: frozenset[str]

    def answer(self, request: Request) -> Reply: ...

    def posts(self) -> dict[str, int]:
        """Every paid submit that arrived since this server started, accepted or not, by endpoint."""
        ...

    def start(self) -> None:
        """Take up what an earlier server left."""
        ...

    def stop(self) -> None:
        """End everything that runs for this part."""
        ...


def open_parts(stage: Stage) -> tuple[Part, ...]:
    """Every part, in no order; each host name belongs to one."""
    from providers.sandbox.comfy_wire import ComfyPart
    from providers.sandbox.handover_wire import SandboxHandoverPart
    from providers.sandbox.replicate_wire import ReplicatePart
    from providers.sandbox.runpod_wire import RunPodPart
    from providers.sandbox.serverless_wire import ServerlessPart

    return (
        SandboxHandoverPart(stage.folder / "handover", stage.faults, stage.url),
        RunPodPart(stage),
        ServerlessPart(stage),
        ReplicatePart(stage),
        ComfyPart(stage),
    )
