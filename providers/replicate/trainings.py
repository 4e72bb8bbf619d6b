"""What a training at Replicate needs beside its input: a model of ours for the weights, and a trainer's version.

Both are found, and the model made where it is missing, by free calls that may be repeated (replicate_comfyui.md 1.1).
"""

from __future__ import annotations

import json
import re

from domain.errors import NotConfigured, Rejected, Unavailable
from domain.jobs import VendorRequest
from domain.model_rules import Model
from domain.records import Record
from providers.replicate.client import ReplicateClient, in_path
from providers.replicate.schemas import ReplicateSchemas
from providers.vendor_words import json_of

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
VERSION = re.compile(r"[0-9a-f]{64}")

HARDWARE = {"qwen/qwen-image-lora-trainer": "gpu-h200"}
DEFAULT_HARDWARE = "gpu-t4"
"""What a new destination runs on. Replicate's guide names the cheapest and says that a fine-tune's own takes its place;
a public runbook of 2026-08 says that the Qwen trainer refuses a destination on any other than its own H200."""


class TrainingPlace(Record):
    """Where a training is sent, and the model of ours that it goes into."""

    url: str
    destination: str


class TrainingGround:
    """Prepares trainings. `destination` is "owner/name" of a private model in our account."""

    def __init__(self, client: ReplicateClient, schemas: ReplicateSchemas, destination: str | None) -> None:
        self._client = client
        self._schemas = schemas
        self._destination = destination
        self._is_there = False

    def prepare(self, model: Model, request: VendorRequest) -> TrainingPlace:
        """Address and destination of a training by this trainer, whose fields are looked at first: trainers change.

        Free, and safe to repeat. `NotConfigured` without a destination or with one that cannot be ours; `Rejected`
        when the trainer is gone or takes other fields; `Unavailable` when Replicate could not be asked.
        """
        trainer, _, pinned = request.endpoint.partition(":")
        destination = self._destination
        if destination is None or not MODEL_NAME.fullmatch(destination):
            raise NotConfigured(
                "A training at Replicate needs a model of yours to put its weights into: set "
                "ONMODEL_REPLICATE_DESTINATION=your-name/onmodel-loras (it is made, private, if it is missing)."
            )
        if not self._is_there:
            self._ensure(destination, trainer)
            self._is_there = True
        self._schemas.check_schema(model, request)
        version = pinned or self._latest_version(trainer)
        return TrainingPlace(url=f"/models/{trainer}/versions/{version}/trainings", destination=destination)

    def _latest_version(self, trainer: str) -> str:
        response = self._client.look("GET", f"/models/{trainer}")
        if response.status_code == 404:
            raise Rejected(f"Replicate has no trainer {trainer} any more (404): choose another one.")
        self._client.check_look(response, f"reading the version of {trainer}")
        model = json_of(response)
        latest = model.get("latest_version") if isinstance(model, dict) else None
        version = latest.get("id") if isinstance(latest, dict) else None
        if not isinstance(version, str) or not VERSION.fullmatch(version):
            raise Unavailable(f"Replicate names no version of {trainer} that can be read; it can be asked again.")
        return version

    def _ensure(self, destination: str, trainer: str) -> None:
        owner, _, name = destination.partition("/")
        doing = f"looking for the model {destination}"
        response = self._client.look("GET", f"/models/{in_path(owner)}/{in_path(name)}")
        if response.status_code != 404:
            self._client.check_look(response, doing)
            return
        wanted = {
            "owner": owner,
            "name": name,
            "visibility": "private",
            "hardware": HARDWARE.get(trainer, DEFAULT_HARDWARE),
            "description": "LoRAs of characters, trained by OnModel",
        }
        made = self._client.look("POST", "/models", content=json.dumps(wanted).encode())
        if made.is_success or made.status_code == 409:  # another process was quicker
            return
        account = self._client.account_error(made, f"making the model {destination}")
        if account is not None:
            raise account
        said = self._client.words(made)
        if 400 <= said.status < 500:
            raise NotConfigured(
                f"Replicate did not make the model {destination} ({said.status}: {said.text}): set "
                "ONMODEL_REPLICATE_DESTINATION to a model in your own account."
            )
        raise Unavailable(f"Replicate failed when making the model {destination} ({said.status}: {said.text}).")
