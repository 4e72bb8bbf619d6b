"""Where each vendor's adapter is put together: the real ones from the settings, their stand-ins on the sandbox.

Adapters are imported inside the functions that build them, so that a command that asks no vendor loads none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from domain.errors import NotConfigured
from domain.registry import Registry
from domain.vendors import SANDBOX
from providers.settings import TRAINER_HOME_VARIABLES, Settings

if TYPE_CHECKING:
    import httpx

    from providers.ports import BlobStore, Clock
    from providers.sandbox.launcher import SandboxAddress
    from providers.vendor_ports import Handover, JobVendor

SANDBOX_KEY = SecretStr("sandbox")


@dataclass(frozen=True)
class Surroundings:
    """What adapters are built of. The functions open what they give when it is first asked for."""

    settings: Settings
    registry: Registry
    clock: Clock
    blobs: Callable[[], BlobStore]
    sandbox: Callable[[], SandboxAddress]
    keep: Callable[[httpx.Client], httpx.Client]
    """Takes note of a client that is closed with the process's other connections."""


def open_vendor(around: Surroundings, name: str) -> JobVendor:
    """The adapter of a vendor or of its stand-in; `NotConfigured` says what is missing for it."""
    openers = {
        SANDBOX: _sandbox_fal,
        "fal": _fal,
        "replicate": _replicate,
        "runpod": _runpod,
        "comfyui": _comfyui,
        "local": _local,
        "sandbox-replicate": _sandbox_replicate,
        "sandbox-runpod": _sandbox_runpod,
        "sandbox-comfyui": _sandbox_comfyui,
        "sandbox-local": _sandbox_local,
    }
    if name not in openers:
        raise NotConfigured(f"The vendor {name!r} is none of ours: write one of {', '.join(openers)}.")
    return openers[name](around)


def handover_of(around: Surroundings) -> Handover:
    """Where rented machines read and leave files: our own bucket, since they cannot reach this disk."""
    if around.settings.storage_url.startswith("s3://"):
        from providers.blobs.s3 import S3BlobStore
        from providers.blobs.s3_handover import StoreHandover

        blobs = around.blobs()
        assert isinstance(blobs, S3BlobStore)
        return StoreHandover(blobs)
    from providers.blobs.handover import LocalHandover

    return LocalHandover(around.settings.home / "handover")


# --- the vendors themselves ---


def _fal(around: Surroundings) -> JobVendor:
    from providers.fal.vendor import FalVendor

    if around.settings.fal_key is None:
        raise NotConfigured(
            "The season's vendor is fal, but FAL_KEY is not set: export FAL_KEY=… (from your fal dashboard), "
            "or write vendor: sandbox in the manifest to rehearse at no cost."
        )
    return FalVendor(_web(around), around.settings.fal_key, around.registry)


def _replicate(around: Surroundings) -> JobVendor:
    from providers.replicate.vendor import ReplicateVendor

    settings = around.settings
    if settings.replicate_api_token is None:
        raise NotConfigured(
            "The vendor is replicate, but REPLICATE_API_TOKEN is not set: export REPLICATE_API_TOKEN=… (Replicate's "
            "account page), or write sandbox: true in the manifest to rehearse at no cost."
        )
    return ReplicateVendor(
        _web(around),
        settings.replicate_api_token,
        around.registry,
        handover=handover_of(around),
        destination=settings.replicate_destination,
        clock=around.clock,
    )


def _runpod(around: Surroundings) -> JobVendor:
    from providers.runpod.joined import RunPod
    from providers.runpod.serverless import ServerlessVendor
    from providers.runpod.vendor import RunPodVendor

    settings = around.settings
    if settings.runpod_api_key is None:
        raise NotConfigured(
            "The vendor is runpod, but RUNPOD_API_KEY is not set: export RUNPOD_API_KEY=… (RunPod's settings page)."
        )
    http, handover = _web(around), handover_of(around)
    pods = RunPodVendor(
        http,
        settings.runpod_api_key,
        around.registry,
        handover=handover,
        clock=around.clock,
        hugging_face_secret=settings.runpod_hugging_face_secret,
    )
    serverless = None
    if settings.runpod_endpoint is not None:
        serverless = ServerlessVendor(
            settings.runpod_api_key,
            around.registry,
            endpoint_id=settings.runpod_endpoint,
            handover=handover,
            http=http,
        )
    return RunPod(pods, serverless)


def _comfyui(around: Surroundings) -> JobVendor:
    from providers.comfyui.placing import LoraFolder, LoraPlace, LoraSync
    from providers.comfyui.vendor import ComfyUiVendor

    settings = around.settings
    if settings.comfyui_url is None:
        raise NotConfigured(
            "The vendor is comfyui, but ONMODEL_COMFYUI_URL is not set: export ONMODEL_COMFYUI_URL="
            "http://127.0.0.1:8188, or where your ComfyUI answers."
        )
    place: LoraPlace | None = None
    if settings.comfyui_lora_sync is not None:
        place = LoraSync(settings.comfyui_lora_sync)
    elif settings.comfyui_loras is not None:
        place = LoraFolder(settings.comfyui_loras)
    return ComfyUiVendor(_web(around), settings.comfyui_url, around.registry, loras=place)


def _local(around: Surroundings) -> JobVendor:
    from providers.local.vendor import LocalVendor

    settings = around.settings
    if not settings.trainer_homes:
        variables = ", ".join(TRAINER_HOME_VARIABLES.values())
        raise NotConfigured(
            f"The vendor is local, but no trainer is named: export one of {variables}, the folder it is installed in."
        )
    return LocalVendor(
        settings.home / "trainings",
        around.registry,
        trainer_homes=settings.trainer_homes,
        python=settings.trainer_python,
    )


# --- their stand-ins on the sandbox ---


def _sandbox_fal(around: Surroundings) -> JobVendor:
    from providers.fal.vendor import FalVendor
    from providers.sandbox.wire import FAL_HOSTS

    return FalVendor(_to_sandbox(around, FAL_HOSTS), SANDBOX_KEY, around.registry, name=SANDBOX)


def _sandbox_replicate(around: Surroundings) -> JobVendor:
    from providers.replicate.vendor import ReplicateVendor
    from providers.sandbox.handover import SandboxHandover
    from providers.sandbox.places import HANDOVER_HOST
    from providers.sandbox.replicate_wire import REPLICATE_HOSTS

    http = _to_sandbox(around, REPLICATE_HOSTS | {HANDOVER_HOST})
    return ReplicateVendor(
        http,
        SANDBOX_KEY,
        around.registry,
        handover=SandboxHandover(http),
        destination="sandbox/onmodel",
        clock=around.clock,
        name="sandbox-replicate",
    )


def _sandbox_runpod(around: Surroundings) -> JobVendor:
    from providers.runpod.joined import RunPod
    from providers.runpod.serverless import ServerlessVendor
    from providers.runpod.vendor import RunPodVendor
    from providers.sandbox.handover import SandboxHandover
    from providers.sandbox.places import RENTED_HOSTS

    http = _to_sandbox(around, RENTED_HOSTS)
    handover = SandboxHandover(http)
    name = "sandbox-runpod"
    pods = RunPodVendor(
        http,
        SANDBOX_KEY,
        around.registry,
        handover=handover,
        clock=around.clock,
        name=name,
        counts_hours=False,
        hugging_face_secret="rehearsal",  # noqa: S106 (the name of a secret that the stand-in's machines have)
    )
    serverless = ServerlessVendor(
        SANDBOX_KEY, around.registry, endpoint_id="sandbox", handover=handover, http=http, name=name
    )
    return RunPod(pods, serverless)


def _web(around: Surroundings) -> httpx.Client:
    from providers.web import open_http

    return around.keep(open_http())


def _to_sandbox(around: Surroundings, hosts: frozenset[str]) -> httpx.Client:
    from providers.sandbox.transport import SandboxTransport
    from providers.web import open_http

    transport = SandboxTransport(around.sandbox().url, reopen=lambda: around.sandbox().url, hosts=hosts)
    return around.keep(open_http(sandbox_transport=transport))


def _sandbox_comfyui(around: Surroundings) -> JobVendor:
    from providers.comfyui.listening import Socket, open_web_socket
    from providers.comfyui.placing import LoraFolder
    from providers.comfyui.vendor import ComfyUiVendor
    from providers.sandbox.comfy_files import comfyui_loras_folder
    from providers.sandbox.comfy_wire import HOST

    def open_socket(url: str, headers: Mapping[str, str]) -> Socket:
        here = around.sandbox().url.replace("http://", "ws://", 1)
        return open_web_socket(f"{here}/_as/{HOST}/{url.partition(f'://{HOST}/')[2]}", headers)

    return ComfyUiVendor(
        _to_sandbox(around, frozenset({HOST})),
        f"https://{HOST}",
        around.registry,
        loras=LoraFolder(comfyui_loras_folder(around.settings.home)),
        name="sandbox-comfyui",
        open_socket=open_socket,
    )


def _sandbox_local(around: Surroundings) -> JobVendor:
    from providers.local.vendor import LocalVendor
    from providers.sandbox.trainers.homes import HOMES, stand_in_commands

    folder = around.settings.home / "sandbox"
    return LocalVendor(
        folder / "trainings",
        around.registry,
        trainer_homes=HOMES,
        python=stand_in_commands(folder / "trainer-commands"),
        name="sandbox-local",
    )
