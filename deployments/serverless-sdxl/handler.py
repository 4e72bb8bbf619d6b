"""Our RunPod serverless worker: one picture per job by Stable Diffusion XL, with LoRAs, put where the job says.

The picture goes to the job's `put_url`, a small status.json to its `status_url`, before and after the work; RunPod's
own answer repeats what the status says. It holds no key: every address is a link signed for one file.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import sys
import traceback
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from orders import Order, OrderRefused, read_order
from prompts import prompt_arguments
from weights import TIMEOUT_SECONDS, load_loras, unload_loras

DEFAULT_MODEL = "stabilityai/stable-diffusion-xl-base-1.0"
PUT_TRIES = 3


class Worker:
    """Draws pictures with one model, loaded at the first job: from a folder, or by its name at Hugging Face.

    LoRAs are kept in `lora_folder` by their digest. Links must be https unless `is_http_fine`, which is for tests on
    one machine alone.
    """

    def __init__(self, model: str = DEFAULT_MODEL, *, lora_folder: Path, is_http_fine: bool = False) -> None:
        self._model = model
        self._lora_folder = lora_folder
        self._is_http_fine = is_http_fine

    def handle(self, job: dict[str, Any]) -> dict[str, Any]:
        """RunPod's handler: `{"box", "sha256", "size_bytes", "width", "height", "seed"}`, or `{"error": text}`.

        Safe to repeat: the same job draws the same picture and puts it to the same address.
        """
        job_id = str(job.get("id", ""))
        try:
            order = read_order(job.get("input"), is_http_fine=self._is_http_fine)
        except OrderRefused as refused:
            return dict(refused.answer())
        _put_status(order, {"job_id": job_id, "state": "running"})
        try:
            output = self._draw(order)
        except OrderRefused as refused:
            return _failed(order, job_id, refused)
        except Exception as error:  # noqa: BLE001 (the job ends with a sentence, and a fresh worker takes the next)
            traceback.print_exc()
            is_memory = type(error).__name__ == "OutOfMemoryError"
            code = "out_of_memory" if is_memory else "worker_failed"
            words = "The GPU's memory was too small for this picture" if is_memory else "The worker failed"
            broken = OrderRefused(code, f"{words} ({type(error).__name__}).")
            return {**_failed(order, job_id, broken), "refresh_worker": True}
        _put_status(order, {"job_id": job_id, "state": "completed", "output": output})
        return output

    def _draw(self, order: Order) -> dict[str, Any]:
        import torch

        pipe = self.pipeline
        try:
            load_loras(pipe, order.loras, self._lora_folder)
            made = pipe(
                **prompt_arguments(pipe, order.prompt, order.negative_prompt),
                width=order.width,
                height=order.height,
                num_inference_steps=order.steps,
                guidance_scale=order.guidance,
                # On the CPU, so that one seed is one picture whatever the GPU.
                generator=torch.Generator("cpu").manual_seed(order.seed),
            )
        finally:
            unload_loras(pipe)
        out = io.BytesIO()
        made.images[0].save(out, "PNG")
        picture = out.getvalue()
        _put(order.put_url, picture, "image/png")
        return {
            "box": order.box,
            "sha256": hashlib.sha256(picture).hexdigest(),
            "size_bytes": len(picture),
            "width": order.width,
            "height": order.height,
            "seed": order.seed,
        }

    @functools.cached_property
    def pipeline(self) -> Any:
        """The model, ready to draw: on the GPU in 16 bits where there is one, else on the CPU in 32."""
        import torch
        from diffusers import StableDiffusionXLPipeline

        on_gpu = torch.cuda.is_available()
        wish: dict[str, Any] = (
            {"torch_dtype": torch.float16, "variant": "fp16"} if on_gpu and not Path(self._model).is_dir() else {}
        )
        pipe = StableDiffusionXLPipeline.from_pretrained(
            self._model, use_safetensors=True, add_watermarker=False, **wish
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe.to("cuda", torch.float16) if on_gpu else pipe


def _failed(order: Order, job_id: str, refused: OrderRefused) -> dict[str, Any]:
    error = {"code": refused.code, "message": refused.message}
    _put_status(order, {"job_id": job_id, "state": "failed", "error": error})
    return dict(refused.answer())


def _put_status(order: Order, status: dict[str, Any]) -> None:
    # RunPod's own answer says the same: without this file the job is only harder to find again.
    try:
        _put(order.status_url, json.dumps(status).encode(), "application/json")
    except OrderRefused as refused:
        sys.stderr.write(f"status.json was not taken: {refused.message}\n")


def _put(url: str, data: bytes, media_type: str) -> None:
    for attempt in range(1, PUT_TRIES + 1):
        headers = {"Content-Type": media_type}
        request = urllib.request.Request(url, data=data, method="PUT", headers=headers)  # noqa: S310 (`read_order`)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310
                return
        except (urllib.error.URLError, OSError) as error:
            is_final = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if is_final or attempt == PUT_TRIES:
                code = getattr(error, "code", type(error).__name__)
                raise OrderRefused("store_refused", f"The store did not take the file ({code}).") from error


def main() -> None:
    """Load the model, then take jobs until RunPod ends this worker."""
    import runpod

    worker = Worker(
        os.environ.get("ONMODEL_SDXL") or DEFAULT_MODEL,
        lora_folder=Path(os.environ.get("ONMODEL_LORA_FOLDER") or "/loras"),
    )
    _ = worker.pipeline  # a worker that cannot load its model must not take jobs
    runpod.serverless.start({"handler": worker.handle})


if __name__ == "__main__":
    main()
