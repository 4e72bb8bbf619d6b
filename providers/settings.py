"""The one place where the environment is read: every setting, its variable, its default and what it means.

Nothing is read at import. `Settings.from_environ()` is called by wiring, once per process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from domain.errors import BadInput
from domain.records import Record


class Settings(Record):
    """What the machine's owner decided. Secrets print as `**********`."""

    home: Path
    database_url: SecretStr | None = None
    storage_url: str
    s3_endpoint_url: str | None = None
    s3_region: str = "auto"
    fal_key: SecretStr | None = None
    runpod_api_key: SecretStr | None = None
    comfyui_url: str | None = None
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
            comfyui_url=_checked_comfyui_url(env.get("ONMODEL_COMFYUI_URL")),
            prefect_api_url=env.get("PREFECT_API_URL") or None,
            sandbox_faults=env.get("ONMODEL_SANDBOX_FAULTS") or None,
        )


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
