"""As which user the embedded server runs (ourselves or, as root, somebody without rights) and folders of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import subprocess
from pathlib import Path

from domain.errors import NotConfigured
from domain.records import Record

_UNPRIVILEGED = ("nobody", "postgres", "daemon")


class Account(Record):
    """The user the server runs as; `is_other` when we, being root, have to step down to it."""

    name: str
    uid: int
    gid: int
    is_other: bool

    def run(self, command: list[str], environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a short command as this user, in the root folder, with a bare environment and a session of its own."""
        return subprocess.run(
            command,
            user=self.uid if self.is_other else None,
            group=self.gid if self.is_other else None,
            extra_groups=[] if self.is_other else None,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"} | (environ or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )

    def can(self, flag: str, path: Path) -> bool:
        """Whether this user may read (`-r`) or enter or execute (`-x`) the path."""
        return self.run(["test", flag, str(path)]).returncode == 0


def choose_account(tree: Path) -> Account:
    """The user of the server whose data are, or will be, in `tree`: the owner of the data where there are any.

    `NotConfigured` when that is not us and we are not root, or when no user can be found at all.
    """
    if os.geteuid() != 0:
        try:
            me = pwd.getpwuid(os.geteuid())
        except KeyError:
            raise NotConfigured(
                f"PostgreSQL needs a user with a name and user id {os.geteuid()} has none in /etc/passwd: "
                "run as a named user, or set ONMODEL_DATABASE_URL to a server of your own."
            ) from None
        owner = _owner_of(tree / "data")
        if owner not in (None, me.pw_uid):
            raise NotConfigured(
                f"The database in {tree} belongs to user id {owner} and you are {me.pw_name}: "
                "run as that user, or set ONMODEL_HOME to a folder of your own."
            )
        return Account(name=me.pw_name, uid=me.pw_uid, gid=me.pw_gid, is_other=False)
    # Data that an ordinary user made stays that user's, also when root comes along.
    owner = _owner_of(tree / "data")
    if owner:
        with contextlib.suppress(KeyError):
            found = pwd.getpwuid(owner)
            return Account(name=found.pw_name, uid=found.pw_uid, gid=found.pw_gid, is_other=True)
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError, OSError):
            found = pwd.getpwnam(name)
            account = Account(name=name, uid=found.pw_uid, gid=found.pw_gid, is_other=True)
            if account.run(["test", "-d", "/"]).returncode == 0:
                return account
    raise NotConfigured(
        f"PostgreSQL does not run as root, and none of the users {', '.join(_UNPRIVILEGED)} can be used here: "
        "run as an ordinary user, or set ONMODEL_DATABASE_URL to a server of your own."
    )


def make_private_folder(folder: Path, account: Account) -> None:
    """A 0700 folder of `account`. One that somebody else made (they may, in /tmp) is refused with `NotConfigured`."""
    try:
        folder.mkdir(mode=0o700)
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    except FileExistsError:
        found = folder.lstat()
        if found.st_uid == 0 != account.uid and stat.S_ISDIR(found.st_mode) and os.geteuid() == 0:
            # We were killed between the two lines above.
            os.chown(folder, account.uid, account.gid, follow_symlinks=False)
            found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or stat.S_IMODE(found.st_mode) & 0o077:
            raise NotConfigured(
                f"{folder} should be a folder that only the user {account.name} can enter, and is not: delete it."
            ) from None


def _owner_of(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise NotConfigured(
            f"{path.parent} is closed to you: run as the user who made it, or set ONMODEL_HOME."
        ) from error
