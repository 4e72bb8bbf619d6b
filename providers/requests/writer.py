"""One vendor's orders written as its requests, from the registry alone: what most vendors' makers are."""

from __future__ import annotations

from typing import Any

from domain.errors import BadInput
from domain.jobs import VendorRequest
from domain.model_rules import Model
from domain.registry import Registry
from domain.vendors import catalogue_of
from providers.requests.captions import caption_arguments
from providers.requests.stills import still_arguments
from providers.requests.training import training_arguments
from providers.requests.videos import video_arguments
from providers.vendor_ports import CaptionOrder, StillOrder, TrainingOrder, VideoOrder


class RequestWriter:
    """`LoraTrainer`, `ImageMaker`, `VideoMaker` and `Captioner` for every model that the registry lists at a vendor.

    `vendor` is its name, or its stand-in's. Pure: nothing is sent, nothing costs, equal orders make equal requests.
    """

    def __init__(self, registry: Registry, vendor: str) -> None:
        self._registry = registry
        self._vendor = vendor

    def training_request(self, order: TrainingOrder) -> VendorRequest:
        """As `vendor_ports.LoraTrainer`."""
        model = self._model(order.trainer_key)
        return self._request(model, training_arguments(model, order))

    def still_request(self, order: StillOrder) -> VendorRequest:
        """As `vendor_ports.ImageMaker`."""
        model = self._model(order.model_key)
        return self._request(model, still_arguments(model, order))

    def video_request(self, order: VideoOrder) -> VendorRequest:
        """As `vendor_ports.VideoMaker`."""
        model = self._model(order.model_key)
        return self._request(model, video_arguments(model, order))

    def caption_request(self, order: CaptionOrder) -> VendorRequest:
        """As `vendor_ports.Captioner`."""
        model = self._model(order.model_key)
        return self._request(model, caption_arguments(model, order))

    def _model(self, key: str) -> Model:
        model = self._registry.model(key)
        if model.vendor != catalogue_of(self._vendor):
            raise BadInput(f"{key} is {model.vendor}'s and was ordered from {self._vendor}: choose a model it has.")
        return model

    def _request(self, model: Model, arguments: dict[str, Any]) -> VendorRequest:
        return VendorRequest(vendor=self._vendor, endpoint=model.endpoint, arguments=arguments)
