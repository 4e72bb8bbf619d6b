"""ComfyUI's workflow templates and the profiles that choose one for somebody, in SQL."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from domain.errors import BadInput
from domain.profiles import GenerationProfile, WorkflowTemplate
from providers.postgres.database import Database
from providers.postgres.rows import Table, as_json

_TEMPLATE = """SELECT name, kind, base_model, workflow_template AS workflow, targets, is_built_in
               FROM video_workflow_templates"""
_PROFILE = """SELECT profile.name, profile.checkpoint, profile.lora_id, profile.lora_strength::float8 AS lora_strength,
                     profile.character_id, profile.project_id, profile.is_default,
                     jsonb_build_object('name', template.name, 'kind', template.kind,
                                        'base_model', template.base_model, 'workflow', template.workflow_template,
                                        'targets', template.targets, 'is_built_in', template.is_built_in) AS template
              FROM generation_profiles AS profile
              JOIN video_workflow_templates AS template ON template.id = profile.video_workflow_template_id"""
_KEEP_TEMPLATE = """INSERT INTO video_workflow_templates
                        (name, kind, base_model, workflow_template, targets, is_built_in)
                    VALUES (%(name)s, %(kind)s, %(base_model)s, %(workflow)s, %(targets)s, %(is_built_in)s)
                    ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, base_model = excluded.base_model,
                        workflow_template = excluded.workflow_template, targets = excluded.targets, updated_at = now()
                    WHERE video_workflow_templates.is_built_in = excluded.is_built_in
                      AND (video_workflow_templates.kind, video_workflow_templates.base_model,
                           video_workflow_templates.workflow_template, video_workflow_templates.targets)
                          IS DISTINCT FROM
                          (excluded.kind, excluded.base_model, excluded.workflow_template, excluded.targets)"""


def keep_templates(database: Database, templates: Iterable[WorkflowTemplate]) -> None:
    """Write the built-in templates; safe to repeat. One that a person imported under the same name stays as it is."""
    with database.transaction() as db:
        for template in templates:
            assert template.is_built_in, template.name
            db.execute(_KEEP_TEMPLATE, _columns(template))


class TemplateTable(Table):
    """`video_workflow_templates`."""

    def all(self) -> tuple[WorkflowTemplate, ...]:
        """Every template by name, a person's and the built-in ones."""
        rows = self._all(f"{_TEMPLATE} ORDER BY is_built_in, name", ())
        return tuple(WorkflowTemplate.model_validate(row) for row in rows)

    def get(self, name: str) -> WorkflowTemplate:
        """`BadInput` naming the templates there are when this is none of them."""
        row = self._one(f"{_TEMPLATE} WHERE name = %s", (name,))
        if row is None:
            raise _unknown("template", name, [template.name for template in self.all()])
        return WorkflowTemplate.model_validate(row)

    def keep(self, template: WorkflowTemplate) -> None:
        """Store a person's template, in place of their earlier one of this name. Safe to repeat.

        `BadInput` when the name is a built-in template's.
        """
        known = self._one("SELECT is_built_in FROM video_workflow_templates WHERE name = %s", (template.name,))
        if known is not None and known["is_built_in"]:
            raise BadInput(f"The template {template.name!r} is built in and stays: import yours under another --name.")
        self._do(_KEEP_TEMPLATE, _columns(template))

    def delete(self, name: str) -> None:
        """Forget a person's template; `BadInput` when it is built in, unknown, or chosen by a profile."""
        if self.get(name).is_built_in:
            raise BadInput(f"The template {name!r} is built in and stays.")
        used = self._all(
            """SELECT profile.name FROM generation_profiles AS profile
               JOIN video_workflow_templates AS template ON template.id = profile.video_workflow_template_id
               WHERE template.name = %s ORDER BY profile.name""",
            (name,),
        )
        if used:
            names = ", ".join(str(row["name"]) for row in used)
            raise BadInput(f"The template {name!r} is chosen by the profiles {names}: change or delete those first.")
        self._do("DELETE FROM video_workflow_templates WHERE name = %s", (name,))


class ProfileTable(Table):
    """`generation_profiles`."""

    def all(self) -> tuple[GenerationProfile, ...]:
        """Every profile by name."""
        return tuple(GenerationProfile.model_validate(row) for row in self._all(f"{_PROFILE} ORDER BY name", ()))

    def get(self, name: str) -> GenerationProfile:
        """`BadInput` naming the profiles there are when this is none of them."""
        row = self._one(f"{_PROFILE} WHERE profile.name = %s", (name,))
        if row is None:
            raise _unknown("profile", name, [profile.name for profile in self.all()])
        return GenerationProfile.model_validate(row)

    def keep(self, profile: GenerationProfile) -> None:
        """Store a profile in place of the earlier one of this name. Safe to repeat; a new default takes the old one's
        place. `BadInput` when this character or project has another profile with the same template."""
        with self._database.transaction() as db:
            if profile.is_default:
                db.execute("UPDATE generation_profiles SET is_default = false WHERE name <> %s", (profile.name,))
            twin = db.execute(
                """SELECT profile.name FROM generation_profiles AS profile
                   JOIN video_workflow_templates AS template ON template.id = profile.video_workflow_template_id
                   WHERE template.name = %(template)s AND profile.name <> %(name)s
                     AND (profile.character_id = %(character)s OR profile.project_id = %(project)s)""",
                {
                    "template": profile.template.name,
                    "name": profile.name,
                    "character": profile.character_id,
                    "project": profile.project_id,
                },
            ).fetchone()
            if twin is not None:
                raise BadInput(
                    f"The profile {twin[0]!r} already chooses {profile.template.name!r} for the same one: "
                    f"change that, or delete it first."
                )
            db.execute(
                """INSERT INTO generation_profiles (name, checkpoint, lora_id, lora_strength, character_id, project_id,
                                                    is_default, video_workflow_template_id)
                   SELECT %(name)s, %(checkpoint)s, %(lora_id)s, %(lora_strength)s, %(character_id)s, %(project_id)s,
                          %(is_default)s, id FROM video_workflow_templates WHERE name = %(template)s
                   ON CONFLICT (name) DO UPDATE SET checkpoint = excluded.checkpoint, lora_id = excluded.lora_id,
                       lora_strength = excluded.lora_strength, character_id = excluded.character_id,
                       project_id = excluded.project_id, is_default = excluded.is_default,
                       video_workflow_template_id = excluded.video_workflow_template_id, updated_at = now()""",
                {**profile.model_dump(exclude={"template"}), "template": profile.template.name},
            )

    def delete(self, name: str) -> None:
        """Forget a profile; `BadInput` when there is none of this name."""
        self.get(name)
        self._do("DELETE FROM generation_profiles WHERE name = %s", (name,))

    def project_of(self, season_id: int, character_id: int | None) -> int:
        """The project of a character, or of a season."""
        row = (
            self._one("SELECT project_id FROM seasons WHERE id = %s", (season_id,))
            if character_id is None
            else self._one("SELECT project_id FROM characters WHERE id = %s", (character_id,))
        )
        assert row is not None, (season_id, character_id)
        return int(row["project_id"])

    def project_names(self) -> dict[int, str]:
        """What each project is called."""
        return {int(row["id"]): str(row["name"]) for row in self._all("SELECT id, name FROM projects", ())}

    def chosen_for(self, project_id: int, character_id: int | None) -> tuple[GenerationProfile, ...]:
        """The profiles that may hold, the nearest first: the character's, the project's, the declared default."""
        rows = self._all(
            f"""{_PROFILE} WHERE profile.character_id = %(character)s OR profile.project_id = %(project)s
                    OR (profile.is_default AND profile.character_id IS NULL AND profile.project_id IS NULL)
                ORDER BY profile.character_id IS NULL, profile.project_id IS NULL, profile.updated_at DESC,
                         profile.id DESC""",
            {"character": character_id, "project": project_id},
        )
        return tuple(GenerationProfile.model_validate(row) for row in rows)


def _columns(template: WorkflowTemplate) -> dict[str, Any]:
    targets = {
        name.value: [one.model_dump(exclude_none=True) for one in places] for name, places in template.targets.items()
    }
    return {
        "name": template.name,
        "kind": template.kind,
        "base_model": template.base_model,
        "workflow": Jsonb(template.workflow),
        "targets": as_json(targets),
        "is_built_in": template.is_built_in,
    }


def _unknown(what: str, name: str, known: Sequence[str]) -> BadInput:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are: {', '.join(known) or 'none yet'}."
    return BadInput(f"There is no {what} {name!r}; {hint}")
