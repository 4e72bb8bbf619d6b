"""Where the embedded server's files lie and as which user it runs, so that no folder is ever opened wider for it.

    HOME/postgres/            0700, as root 0711; `lock`, and `elsewhere` when the rest is not here
        data/                 0700, of the server's user
        socket/               0700, of the server's user
        server.log

PostgreSQL refuses to run as root, so under root it runs as `nobody`. Where `nobody` cannot reach HOME, everything but
the lock lies in /var/lib/onmodel/NAME instead; HOME/postgres/elsewhere remembers NAME, so that an emptied home starts
afresh and a moved home finds its data again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from domain.errors import NotConfigured, Unavailable
from domain.records import Record
from providers.postgres.accounts import Account, choose_account, make_private_folder

SHELTER = Path("/var/lib/onmodel")
SOCKET_NAME = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH_BYTES = 107  # sun_path holds 108 with the closing zero (unix(7))
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./-]+")
_PLAIN_NAME = re.compile(r"[0-9a-f]{12}(-\d+)?")
_LOCK_WAIT_SECONDS = 120.0


class Place(Record):
    """One server's folder. `where_note` says in a sentence that, and why, it is not under HOME."""

    tree: Path
    account: Account
    where_note: str | None = None

    @property
    def data_dir(self) -> Path:
        return self.tree / "data"

    @property
    def log_path(self) -> Path:
        return self.tree / "server.log"

    @property
    def socket_dir(self) -> Path:
        """A path short and plain enough for a unix socket: beside the data, else a private folder in /tmp."""
        beside = self.tree / "socket"
        length = len(os.fsencode(beside / SOCKET_NAME))
        if length <= _LONGEST_SOCKET_PATH_BYTES and _PLAIN_PATH.fullmatch(str(beside)):
            return beside
        digest = hashlib.sha256(os.fsencode(self.tree)).hexdigest()[:16]
        return Path("/tmp") / f"onmodel-{self.account.uid}-{digest}"  # noqa: S108 (ownership is checked in make_private_folder)

    @property
    def data_major(self) -> int | None:
        """The major version that made the data, or None where there is none yet."""
        try:
            return int((self.data_dir / "PG_VERSION").read_text().strip())
        except (FileNotFoundError, ValueError):
            return None


def find_place(home: Path, shelter: Path) -> Place:
    """Where the server of `home` lives or would live. Only looks; `NotConfigured` where we may not go there."""
    anchor = anchor_of(home)
    name = _remembered_name(anchor)
    if name is not None and os.geteuid() != 0:
        raise NotConfigured(
            f"The database of {home} was made by root and lies in {shelter / name}: run as root, or delete "
            f"{anchor / 'elsewhere'} to begin with an empty one."
        )
    account = choose_account(anchor if name is None else shelter / name)
    if name is None and not account.is_other:
        return Place(tree=anchor, account=account)
    if name is None:
        nearest = next(folder for folder in (anchor, *anchor.parents) if folder.exists())
        if account.can("-x", nearest):
            return Place(tree=anchor, account=account)
        name = _free_name(home, shelter)
        if (anchor / "data").exists():
            raise NotConfigured(
                f"{home} has been closed to the user {account.name}, as whom the database in {anchor} runs: "
                f"open it for passage again, or mkdir -p {shelter / name} && mv {anchor}/data {shelter / name}/ "
                f"&& echo {name} > {anchor}/elsewhere."
            )
    tree = shelter / name
    note = (
        f"PostgreSQL does not run as root and the user {account.name} cannot enter {home}, "
        f"so the database lies in {tree}, with a copy of its programs beside it where those are closed too."
    )
    return Place(tree=tree, account=account, where_note=note)


def prepare_place(home: Path, shelter: Path) -> Place:
    """Make the folders of `find_place`, narrow; existing ones keep their modes. Call it under `hold_lock`."""
    place = find_place(home, shelter)
    anchor = anchor_of(home)
    if place.tree != anchor:
        try:
            shelter.mkdir(mode=0o711, parents=True, exist_ok=True)
            place.tree.mkdir(mode=0o711, exist_ok=True)
        except OSError as error:
            raise NotConfigured(
                f"{place.where_note} But that folder cannot be made ({error.strerror}): "
                "set ONMODEL_HOME to a folder that others may enter, or ONMODEL_DATABASE_URL to a server of your own."
            ) from error
        if not (anchor / "elsewhere").exists():
            aside = anchor / "elsewhere.new"
            aside.write_text(f"{place.tree.name}\n")
            aside.rename(anchor / "elsewhere")
        if not place.account.can("-x", place.tree):
            raise NotConfigured(
                f"The user {place.account.name} cannot enter {place.tree}: its parent folders are closed."
            )
    make_private_folder(place.socket_dir, place.account)
    if not place.log_path.exists():
        _make_log(place)
    return place


def anchor_of(home: Path) -> Path:
    """The folder in HOME that always exists once a server was wanted, wherever its data went."""
    return home / "postgres"


@contextlib.contextmanager
def hold_lock(home: Path) -> Iterator[None]:
    """One process at a time looks after the server of `home`. Makes HOME/postgres; `Unavailable` after two minutes."""
    anchor = anchor_of(home)
    try:
        is_root = os.geteuid() == 0
        home.mkdir(mode=0o711 if is_root else 0o700, parents=True, exist_ok=True)
        anchor.mkdir(mode=0o711 if is_root else 0o700, exist_ok=True)
        lock = os.open(anchor / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotConfigured(
            f"{anchor} cannot be used for the database ({error.strerror}): "
            "set ONMODEL_HOME to a folder of your own, or ONMODEL_DATABASE_URL to a server."
        ) from error
    try:
        deadline = time.monotonic() + _LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"Another process has been starting the database of {home} for "
                        f"{_LOCK_WAIT_SECONDS:.0f} seconds: see {anchor}, end that process, and run this again."
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(lock)


def _remembered_name(anchor: Path) -> str | None:
    try:
        name = (anchor / "elsewhere").read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotConfigured(
            f"{anchor / 'elsewhere'} cannot be read ({error.strerror}): run as the user who made it."
        ) from error
    if not _PLAIN_NAME.fullmatch(name):
        raise NotConfigured(
            f"{anchor / 'elsewhere'} holds {name!r}, which is no folder name of ours: delete that file."
        )
    return name


def _free_name(home: Path, shelter: Path) -> str:
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    name, number = digest, 1
    while (shelter / name / "data").exists():  # an earlier home of this name, emptied since: its data are left alone
        number += 1
        name = f"{digest}-{number}"
    return name


def _make_log(place: Place) -> None:
    opened = os.open(place.log_path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if place.account.is_other:
            os.fchown(opened, place.account.uid, place.account.gid)
    finally:
        os.close(opened)
