"""Settings: one place, read when asked, clear about what is wrong, silent about secrets."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from domain.errors import BadInput
from providers.settings import Settings

HOME = {"HOME": "/home/mei"}


def test_an_empty_environment_gives_the_embedded_defaults() -> None:
    settings = Settings.from_environ(HOME)
    assert settings.home == Path("/home/mei/.onmodel")
    assert settings.storage_url == "file:///home/mei/.onmodel/blobs"
    assert (settings.database_url, settings.fal_key, settings.prefect_api_url, settings.s3_endpoint_url) == (None,) * 4


def test_the_home_of_onmodel_wins_and_moves_the_blobs_with_it() -> None:
    settings = Settings.from_environ({**HOME, "ONMODEL_HOME": "/srv/on model"})
    assert settings.home == Path("/srv/on model")
    assert settings.storage_url == "file:///srv/on%20model/blobs"


def test_a_relative_home_is_taken_from_where_we_are() -> None:
    assert Settings.from_environ({**HOME, "ONMODEL_HOME": "here"}).home == Path.cwd() / "here"


@pytest.mark.parametrize("name", ["ONMODEL_HOME", "ONMODEL_STORAGE_URL", "ONMODEL_DATABASE_URL", "FAL_KEY"])
def test_an_empty_variable_is_as_good_as_none(name: str) -> None:
    assert Settings.from_environ({**HOME, name: ""}) == Settings.from_environ(HOME)


@pytest.mark.parametrize("url", ["file:///srv/blobs", "s3://bucket", "s3://bucket/prefix/deeper"])
def test_a_storage_address_is_taken(url: str) -> None:
    assert Settings.from_environ({**HOME, "ONMODEL_STORAGE_URL": url}).storage_url == url


@pytest.mark.parametrize(
    "url", ["/srv/blobs", "file://srv/blobs", "file:blobs", "s3://", "gs://bucket", "https://x/y", "s3"]
)
def test_a_storage_address_that_makes_no_sense_is_named_with_what_to_write(url: str) -> None:
    with pytest.raises(BadInput, match=r"ONMODEL_STORAGE_URL is .*write file:///absolute/folder or s3://bucket"):
        Settings.from_environ({**HOME, "ONMODEL_STORAGE_URL": url})


@pytest.mark.parametrize("url", ["postgresql://u:p@h/d", "postgres://h/d", "postgresql:///d?host=/run"])
def test_a_database_address_is_taken(url: str) -> None:
    settings = Settings.from_environ({**HOME, "ONMODEL_DATABASE_URL": url})
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == url


@pytest.mark.parametrize("url", ["mysql://u:hunter2@h/d", "sqlite:///x", "host=h password=hunter2", "u:hunter2@h/d"])
def test_a_database_address_of_another_kind_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(BadInput, match=r"ONMODEL_DATABASE_URL starts with .*write postgresql://") as refused:
        Settings.from_environ({**HOME, "ONMODEL_DATABASE_URL": url})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["ONMODEL_DATABASE_URL", "ONMODEL_STORAGE_URL"])
def test_an_address_that_nobody_can_read_is_bad_input_not_a_crash(name: str) -> None:
    with pytest.raises(BadInput, match=name):
        Settings.from_environ({**HOME, name: "postgresql://[::1:hunter2"})


@pytest.mark.parametrize(
    ("environ", "key"),
    [
        ({"FAL_KEY": "a:b"}, "a:b"),
        ({"FAL_API_KEY": "c:d"}, "c:d"),
        ({"FAL_KEY": "a:b", "FAL_API_KEY": "c:d"}, "a:b"),
        ({"FAL_KEY": "", "FAL_API_KEY": "c:d"}, "c:d"),
    ],
)
def test_the_key_of_fal_has_two_names_and_the_first_wins(environ: dict[str, str], key: str) -> None:
    fal_key = Settings.from_environ({**HOME, **environ}).fal_key
    assert fal_key is not None
    assert fal_key.get_secret_value() == key


def test_no_secret_shows_in_any_text_of_the_settings() -> None:
    settings = Settings.from_environ(
        {**HOME, "FAL_KEY": "hunter2", "ONMODEL_DATABASE_URL": "postgresql://mei:hunter2@db.example/onmodel"}
    )
    for text in (str(settings), repr(settings), json.dumps(settings.model_dump(mode="json")), str(settings.fal_key)):
        assert "hunter2" not in text
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_an_s3_endpoint_and_region_come_from_our_names_or_from_the_common_ones() -> None:
    common = {**HOME, "AWS_ENDPOINT_URL_S3": "http://a", "AWS_REGION": "eu-west-1"}
    assert Settings.from_environ(common).s3_endpoint_url == "http://a"
    assert Settings.from_environ(common).s3_region == "eu-west-1"
    ours = {**common, "ONMODEL_S3_ENDPOINT_URL": "http://b", "ONMODEL_S3_REGION": "auto"}
    assert (Settings.from_environ(ours).s3_endpoint_url, Settings.from_environ(ours).s3_region) == ("http://b", "auto")
