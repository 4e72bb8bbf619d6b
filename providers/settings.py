"""The one place where the environment is read: every setting, its variable, its default and what it means.

Nothing is read at import. `Settings.from_environ()` is called by wiring, once per process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from domain.errors import BadInput
from domain.model_rules import TrainerKind
from domain.records import Record

TRAINER_HOME_VARIABLES = {
    TrainerKind.AI_TOOLKIT: "ONMODEL_AI_TOOLKIT_HOME",
    TrainerKind.MUSUBI: "ONMODEL_MUSUBI_HOME",
    TrainerKind.SD_SCRIPTS: "ONMODEL_SD_SCRIPTS_HOME",
}
"""Where each training program is installed on one's own machine."""


class Settings(Record):
    """What the machine's owner decided. Secrets print as `**********`."""

    home: Path
    database_url: SecretStr | None = None
    storage_url: str
    s3_endpoint_url: str | None = None
    s3_region: str = "auto"
    fal_key: SecretStr | None = None
    runpod_api_key: SecretStr | None = None
    runpod_endpoint: str | None = None
    runpod_hugging_face_secret: str | None = None
    replicate_api_token: SecretStr | None = None
    replicate_destination: str | None = None
    comfyui_url: str | None = None
    comfyui_loras: Path | None = None
    comfyui_lora_sync: str | None = None
    trainer_homes: dict[TrainerKind, Path] = Field(default_factory=dict)
    trainer_python: Path | None = None
    prefect_api_url: str | None = None
    sandbox_faults: str | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read every variable. `BadInput` names the variable that makes no sense and what to write."""
        env = os.environ if environ is None else environ
        home = Path(env.get("ONMODEL_HOME") or Path(env.get("HOME") or "~").expanduser() / ".onmodel").expanduser()
        if not home.is_absolute():
            home = Path.cwd() / home
        storage_url = env.get("ONMODEL_STORAGE_URL") or (home / "blobs").as_uri()
        _check_storage_url(storage_url)
        database_url = env.get("ONMODEL_DATABASE_URL")
        if database_url and _scheme(database_url) not in ("postgresql", "postgres"):
            raise BadInput(
                f"ONMODEL_DATABASE_URL starts with {_scheme(database_url)!r}: "
                "write postgresql://user:password@host/database, or unset it to use the built-in server."
            )
        fal_key = env.get("FAL_KEY") or env.get("FAL_API_KEY")
        return cls(
            home=home,
            database_url=SecretStr(database_url) if database_url else None,
            storage_url=storage_url,
            s3_endpoint_url=env.get("ONMODEL_S3_ENDPOINT_URL") or env.get("AWS_ENDPOINT_URL_S3") or None,
            s3_region=env.get("ONMODEL_S3_REGION") or env.get("AWS_REGION") or "auto",
            fal_key=SecretStr(fal_key) if fal_key else None,
            runpod_api_key=SecretStr(key) if (key := env.get("RUNPOD_API_KEY")) else None,
            runpod_endpoint=env.get("ONMODEL_RUNPOD_ENDPOINT") or None,
            runpod_hugging_face_secret=env.get("ONMODEL_RUNPOD_HF_SECRET") or None,
            replicate_api_token=SecretStr(token) if (token := env.get("REPLICATE_API_TOKEN")) else None,
            replicate_destination=env.get("ONMODEL_REPLICATE_DESTINATION") or None,
            comfyui_url=_checked_comfyui_url(env.get("ONMODEL_COMFYUI_URL")),
            comfyui_loras=_folder(env, "ONMODEL_COMFYUI_LORAS"),
            comfyui_lora_sync=env.get("ONMODEL_COMFYUI_LORA_SYNC") or None,
            trainer_homes={
                program: folder
                for program, variable in TRAINER_HOME_VARIABLES.items()
                if (folder := _folder(env, variable)) is not None
            },
            trainer_python=_folder(env, "ONMODEL_TRAINER_PYTHON"),
            prefect_api_url=env.get("PREFECT_API_URL") or None,
            sandbox_faults=env.get("ONMODEL_SANDBOX_FAULTS") or None,
        )


def _folder(env: Mapping[str, str], variable: str) -> Path | None:
    """A path of this machine, absolute; None when it is not set."""
    return Path(value).expanduser().absolute() if (value := env.get(variable)) else None


def _scheme(url: str) -> str:
    """What stands before `://`; nothing of what follows, which may hold a password."""
    try:
        return urlsplit(url).scheme
    except ValueError:
        return "something unreadable"


def _checked_comfyui_url(url: str | None) -> str | None:
    if not url:
        return None
    if _scheme(url) not in ("http", "https") or not urlsplit(url).hostname:
        raise BadInput("ONMODEL_COMFYUI_URL is no web address: write http://127.0.0.1:8188, or unset it.")
    return url.rstrip("/")


def _check_storage_url(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadInput(
            "ONMODEL_STORAGE_URL cannot be read: write file:///absolute/folder or s3://bucket/prefix."
        ) from None
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return
    if parts.scheme == "s3" and parts.netloc:
        return
    raise BadInput(f"ONMODEL_STORAGE_URL is {url!r}: write file:///absolute/folder or s3://bucket/prefix.")
