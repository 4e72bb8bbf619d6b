"""Where adapters are chosen and put together: the only file that knows their names.

`open_ports()` is called once per process; everything in it opens when first used, so that a command that needs no
database starts none. Heavy packages are imported inside the factories.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domain.characters import CharacterKind
from domain.errors import NotConfigured
from domain.jobs import Operation, ProviderJob
from domain.profiles import WorkflowTemplate
from domain.registry import Registry, load_registry
from domain.vendors import STAND_INS, is_stand_in
from providers.settings import Settings
from providers.vendor_wiring import Surroundings, open_vendor

if TYPE_CHECKING:
    from httpx import Client

    from providers.media import FfmpegMediaTools
    from providers.ports import (
        Appearance,
        BlobStore,
        IdentityScorer,
        LoraFileReport,
        LoraPairReport,
        PictureDescriber,
        PictureLook,
        SubjectFinder,
        TrainingCuts,
    )
    from providers.postgres.budgets import BudgetTable
    from providers.postgres.cast import CastTable
    from providers.postgres.circuits import CircuitTable
    from providers.postgres.database import Database
    from providers.postgres.datasets import DatasetTable
    from providers.postgres.decisions import DecisionTable
    from providers.postgres.embedded import EmbeddedServer
    from providers.postgres.ledger import Ledger
    from providers.postgres.loras import LoraTable
    from providers.postgres.profiles import ProfileTable, TemplateTable
    from providers.postgres.proofs import ProofTable
    from providers.postgres.renders import RenderTable
    from providers.postgres.runs import RunTable
    from providers.postgres.seasons import SeasonTable
    from providers.postgres.upkeep import UpkeepTable
    from providers.sandbox.launcher import SandboxAddress
    from providers.vendor_ports import (
        Captioner,
        ImageMaker,
        JobVendor,
        LoraTrainer,
        PodHost,
        UsageReader,
        VideoMaker,
    )


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Ports:
    """Everything outside this process that a task may ask for, each opened when first used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self._vendors: dict[str, JobVendor] = {}
        self._connections: list[Client] = []
        self._appearances: dict[str, Appearance] = {}
        self._looks: dict[tuple[str, CharacterKind], PictureLook] = {}

    # --- the database ---

    @cached_property
    def embedded_server(self) -> EmbeddedServer | None:
        """Our own PostgreSQL, started when needed; None when ONMODEL_DATABASE_URL names another."""
        from providers.postgres.embedded import ensure_server

        return None if self.settings.database_url else ensure_server(self.settings.home)

    @cached_property
    def database(self) -> Database:
        """The database, with all migrations applied and the registry written to it."""
        from providers.comfyui.templates import built_in_templates
        from providers.postgres.database import Database
        from providers.postgres.migrate import run_migrations
        from providers.postgres.models import keep_models
        from providers.postgres.profiles import keep_templates

        if self.settings.database_url:
            database = Database.open(self.settings.database_url.get_secret_value())
        else:
            from providers.postgres.embedded import ensure_server

            assert self.embedded_server is not None
            database = Database.open(self.embedded_server.url, lambda: ensure_server(self.settings.home))
        run_migrations(database)
        keep_models(database, self.registry)
        keep_templates(database, built_in_templates())
        return database

    @cached_property
    def seasons(self) -> SeasonTable:
        from providers.postgres.seasons import SeasonTable

        return SeasonTable(self.database)

    @cached_property
    def cast(self) -> CastTable:
        from providers.postgres.cast import CastTable

        return CastTable(self.database)

    @cached_property
    def decisions(self) -> DecisionTable:
        from providers.postgres.decisions import DecisionTable

        return DecisionTable(self.database)

    @cached_property
    def datasets(self) -> DatasetTable:
        from providers.postgres.datasets import DatasetTable

        return DatasetTable(self.database)

    @cached_property
    def loras(self) -> LoraTable:
        from providers.postgres.loras import LoraTable

        return LoraTable(self.database)

    @cached_property
    def renders(self) -> RenderTable:
        from providers.postgres.renders import RenderTable

        return RenderTable(self.database)

    @cached_property
    def ledger(self) -> Ledger:
        from providers.postgres.ledger import Ledger

        return Ledger(self.database)

    @cached_property
    def budgets(self) -> BudgetTable:
        from providers.postgres.budgets import BudgetTable

        return BudgetTable(self.database)

    @cached_property
    def circuits(self) -> CircuitTable:
        from providers.postgres.circuits import CircuitTable

        return CircuitTable(self.database)

    @cached_property
    def runs(self) -> RunTable:
        from providers.postgres.runs import RunTable

        return RunTable(self.database)

    @cached_property
    def upkeep(self) -> UpkeepTable:
        from providers.postgres.upkeep import UpkeepTable

        return UpkeepTable(self.database)

    @cached_property
    def proofs(self) -> ProofTable:
        from providers.postgres.proofs import ProofTable

        return ProofTable(self.database)

    @cached_property
    def templates(self) -> TemplateTable:
        from providers.postgres.profiles import TemplateTable

        return TemplateTable(self.database)

    @cached_property
    def profiles(self) -> ProfileTable:
        from providers.postgres.profiles import ProfileTable

        return ProfileTable(self.database)

    def check_workflow(self, template: WorkflowTemplate) -> None:
        """`BadInput` when a ComfyUI workflow cannot be filled safely; free."""
        from providers.comfyui.injecting import check_template

        check_template(template)

    def check_server_file(self, name: str, what: str) -> None:
        """`BadInput` when a file name on a ComfyUI server leads out of its folder; free."""
        from providers.comfyui.injecting import check_file_name

        check_file_name(name, what)

    @property
    def registry(self) -> Registry:
        return load_registry()

    # --- files and pictures ---

    @cached_property
    def blobs(self) -> BlobStore:
        """Our own store, as ONMODEL_STORAGE_URL says."""
        from providers.blobs.opening import open_blob_store

        return open_blob_store(self.settings)

    @cached_property
    def ffmpeg(self) -> str:
        """The ffmpeg program: the machine's own where it is new enough, else the one out of a package."""
        from providers.media import find_ffmpeg

        return find_ffmpeg()

    @cached_property
    def media(self) -> FfmpegMediaTools:
        from providers.media import FfmpegMediaTools

        return FfmpegMediaTools(self.ffmpeg)

    @cached_property
    def cuts(self) -> TrainingCuts:
        from providers.training_cuts import LocalTrainingCuts

        return LocalTrainingCuts(self.ffmpeg)

    def scratch(self) -> Path:
        """A folder for files of a moment, on the disk of our home."""
        folder = self.settings.home / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # --- judging ---

    @cached_property
    def scorer(self) -> IdentityScorer:
        from providers.vision import AppearanceScorer

        return AppearanceScorer()

    @cached_property
    def layout(self) -> PictureDescriber:
        """Describes whole pictures, for finding near-duplicates and choosing varied sets."""
        from providers.picture_layout import LayoutDescriber

        return LayoutDescriber()

    @cached_property
    def subjects(self) -> SubjectFinder:
        from providers.subjects import ColourSubjectFinder
        from providers.vision import AppearanceScorer

        return ColourSubjectFinder(AppearanceScorer())

    def describe(self, sha256: str) -> Appearance:
        """The scorer's description of a stored picture, kept for the life of the process."""
        if sha256 not in self._appearances:
            self._appearances[sha256] = self.scorer.describe(self.media.load_image(self.blobs.local_path(sha256)))
        return self._appearances[sha256]

    def look_at(self, sha256: str, kind: CharacterKind) -> PictureLook:
        """Everything that is seen in a stored picture, kept for the life of the process. 0.25 s the first time."""
        from providers.ports import PictureLook

        if (sha256, kind) not in self._looks:
            image = self.media.load_image(self.blobs.local_path(sha256))
            self._looks[sha256, kind] = PictureLook(
                subjects=self.subjects.subjects(image, kind),
                surroundings=self.cuts.surroundings(image),
                layout=self.layout.describe(image),
            )
        return self._looks[sha256, kind]

    def check_lora_file(self, path: Path, *, expected_base: str, expected_steps: int | None = None) -> LoraFileReport:
        """What the bytes of a LoRA show; with `expected_steps` its own step counter is held against them."""
        from providers.lora_files import check_lora_file

        return check_lora_file(path, expected_base=expected_base, expected_steps=expected_steps)

    def check_lora_pair(
        self, low: Path, high: Path, *, expected_base: str, expected_steps: int | None = None
    ) -> LoraPairReport:
        """The same of a Wan 2.2 LoRA's two files, and whether they belong together."""
        from providers.lora_pairs import check_lora_pair

        return check_lora_pair(low, high, expected_base=expected_base, expected_steps=expected_steps)

    def check_lora_header(self, path: Path) -> None:
        """`BadInput` when the file is no whole safetensors file; reads its header only."""
        from providers.lora_files import read_header

        with path.open("rb") as file:
            read_header(file, path.stat().st_size)

    # --- vendors ---

    @cached_property
    def web(self) -> Client:
        """For files that a person names by a web address. Honours the proxy settings, except on loopback."""
        from providers.web import open_http

        return open_http()

    def job_vendor(self, name: str) -> JobVendor:
        """The adapter of a vendor or of its stand-in, opened once; `NotConfigured` says what is missing for it."""
        if name not in self._vendors:
            self._vendors[name] = open_vendor(self._surroundings, name)
        return self._vendors[name]

    @cached_property
    def _surroundings(self) -> Surroundings:
        return Surroundings(
            settings=self.settings,
            registry=self.registry,
            clock=self.clock,
            blobs=lambda: self.blobs,
            sandbox=self.sandbox,
            keep=self._keep,
        )

    def _keep(self, http: Client) -> Client:
        self._connections.append(http)
        return http

    def trainer(self, name: str) -> LoraTrainer:
        """A vendor as one that trains; `NotConfigured` where it trains nothing, or as `vendor`."""
        vendor: LoraTrainer = self._playing(name, "training_request", "trains nothing", "train")
        return vendor

    def image_maker(self, name: str) -> ImageMaker:
        """A vendor as one that draws; `NotConfigured` where it draws nothing, or as `vendor`."""
        vendor: ImageMaker = self._playing(name, "still_request", "draws nothing", "image")
        return vendor

    def video_maker(self, name: str) -> VideoMaker:
        """A vendor as one that films; `NotConfigured` where it films nothing, or as `vendor`."""
        vendor: VideoMaker = self._playing(name, "video_request", "films nothing", "video")
        return vendor

    def captioner(self, name: str) -> Captioner:
        """A vendor as one that describes pictures; `NotConfigured` where it does not, or as `vendor`."""
        vendor: Captioner = self._playing(name, "caption_request", "describes no pictures", "image")
        return vendor

    def _playing(self, name: str, what: str, lacking: str, work: str) -> Any:
        vendor = self.job_vendor(name)
        if not hasattr(vendor, what):
            raise NotConfigured(f"{name} {lacking} here: name another vendor for {work} in the manifest.")
        return vendor

    def pod_hosts(self) -> tuple[PodHost, ...]:
        """Every vendor of machines by the hour that is set up here."""
        if self.settings.runpod_api_key is None:
            return ()
        host: PodHost = self._playing("runpod", "delete_pod", "rents no machines", "train")
        return (host,)

    def usage_reader(self, name: str) -> UsageReader:
        """A vendor that tells what it charged; `NotConfigured` where it does not, or its key is missing."""
        reader: Any = self.job_vendor(name)
        if not hasattr(reader, "usage"):
            raise NotConfigured(f"The vendor {name!r} has no list of what it charged: compare its invoice by hand.")
        usage: UsageReader = reader
        return usage

    def vendors_set_up(self) -> tuple[str, ...]:
        """The vendors that this machine can ask: the sandbox's parts always, the others when their keys are here."""
        settings = self.settings
        keys = {
            "fal": settings.fal_key,
            "replicate": settings.replicate_api_token,
            "runpod": settings.runpod_api_key,
            "comfyui": settings.comfyui_url,
            "local": settings.trainer_homes,
        }
        return (*STAND_INS, *(name for name, key in keys.items() if key))

    def close(self) -> None:
        """Close the connections to database and vendors and end the decoding processes, for a process that goes on
        without them. Safe to repeat."""
        self._vendors.clear()
        while self._connections:
            self._connections.pop().close()
        if "media" in self.__dict__:
            self.media.close()
        if "database" in self.__dict__:
            self.database.close()

    def sandbox(self) -> SandboxAddress:
        """The rehearsal stage, started when nobody has."""
        from providers.sandbox.launcher import ensure_sandbox

        return ensure_sandbox(self.settings.home, faults=self.settings.sandbox_faults)

    def poll_seconds(self, job: ProviderJob) -> float:
        """How long to wait between looks: often on the sandbox, at a vendor's pace elsewhere."""
        if is_stand_in(job.request.vendor):
            return 0.15
        if job.request.vendor in ("comfyui", "local"):
            return 1.0
        return 10.0 if job.operation is Operation.TRAIN_LORA else 2.0


@cache
def open_ports() -> Ports:
    """The ports of this process, from its environment. Settings are read at the first call."""
    return Ports(Settings.from_environ())


def open_sandbox(home: Path, *, faults: str | None = None, tls: bool = False) -> SandboxAddress:
    """The sandbox of a home, started when it does not run, for a person who wants it alone."""
    from providers.sandbox.launcher import ensure_sandbox

    return ensure_sandbox(home, faults=faults, tls=tls)


def close_sandbox(home: Path) -> bool:
    """Stop the sandbox of a home; False when none ran."""
    from providers.sandbox.launcher import stop_sandbox

    return stop_sandbox(home)


def close_embedded_server(home: Path) -> bool:
    """Stop the built-in PostgreSQL of a home; False when it did not run."""
    from providers.postgres.embedded import server_status, stop_server

    was_running = server_status(home).is_running
    stop_server(home)
    return was_running


def prefect_database_url(server: EmbeddedServer) -> str:
    """A database of its own for Prefect on our PostgreSQL, created when missing, as SQLAlchemy wants it."""
    from providers.postgres.embedded import ensure_database

    ensure_database(server, "prefect")
    return server.asyncpg_url("prefect")
