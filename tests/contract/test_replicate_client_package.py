"""Replicate's own client package, unmodified, against the stand-in: over plain http, as REPLICATE_BASE_URL allows.

It runs in a process of its own, since it reads its settings from the environment at import.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.contract.sandbox_fixtures import running_sandbox, training_zip

ROOT = Path(__file__).resolve().parents[2]
CLIENT = """
import sys, time
from replicate.client import Client
from replicate.exceptions import ReplicateError

replicate = Client()

def over(job):
    for _ in range(400):
        job.reload()
        if job.status in ("succeeded", "failed", "canceled"):
            return job
        time.sleep(0.02)
    raise SystemExit("it did not end")

assert replicate.accounts.current().username == "sandbox"
model = replicate.models.get("black-forest-labs/flux-dev-lora")
fields = model.latest_version.openapi_schema["components"]["schemas"]["Input"]["properties"]
assert fields["lora_weights"]["type"] == "string", fields

uploaded = replicate.files.create(sys.argv[1])
assert replicate.files.get(uploaded.id).checksums["sha256"] == uploaded.checksums["sha256"]

replicate.models.create("sandbox", "mine", visibility="private", hardware="gpu-t4")
trainer = replicate.models.get("ostris/flux-dev-lora-trainer")
training = over(replicate.trainings.create(
    model=trainer,
    version=trainer.latest_version.id,
    destination="sandbox/mine",
    input={"input_images": uploaded.urls["get"], "trigger_word": "MEI_01", "steps": 5},
))
assert training.status == "succeeded", training.error
assert training.output["weights"].endswith(".tar"), training.output

still = over(replicate.predictions.create(
    model="black-forest-labs/flux-dev-lora", input={"prompt": "a harbour", "seed": 7, "output_format": "png"}
))
assert still.status == "succeeded" and still.output[0].startswith("https://replicate.delivery/"), still.output
assert replicate.predictions.get(still.id).input["seed"] == 7
assert still.id in [one.id for one in replicate.predictions.list().results]

version = replicate.models.get("zsxkib/hunyuan-video-lora").latest_version
clip = replicate.predictions.create(version=version, input={"prompt": "a harbour", "num_frames": 25})
clip.cancel()
assert over(clip).status in ("canceled", "succeeded")

try:
    replicate.predictions.create(model="black-forest-labs/flux-dev-lora", input={"promt": "a harbour"})
except ReplicateError as refused:
    assert refused.status == 422 and "prompt is required" in refused.detail, refused
else:
    raise SystemExit("an unknown field was taken")
print("passed")
"""


def test_the_unmodified_client_package_trains_draws_films_cancels_and_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    archive.write_bytes(training_zip())
    with running_sandbox(tmp_path / "home") as server:
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
            "REPLICATE_API_TOKEN": "r8_test",
            "REPLICATE_BASE_URL": f"{server.url}/_as/api.replicate.com",
        }
        command = [sys.executable, "-c", CLIENT, str(archive)]
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "passed", ended.stderr[-3000:]
