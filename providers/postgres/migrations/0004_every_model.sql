-- Every trainer, image maker and video maker: two-file LoRAs, face stills, ComfyUI's templates and profiles, proofs.

ALTER TYPE route ADD VALUE 'face_still' AFTER 'preprocessed';

ALTER TABLE character_loras
    ADD COLUMN high_noise_sha256 text,
    ADD COLUMN high_noise_url    text;
COMMENT ON COLUMN character_loras.high_noise_sha256 IS 'second file of a Wan 2.2 LoRA: lora_url is then the low-noise one';

-- ComfyUI: what is drawn with which workflow -----------------------------------------------------------

ALTER TABLE video_workflow_templates
    ADD COLUMN kind        text NOT NULL DEFAULT 'video' CHECK (kind IN ('image', 'video')),
    ADD COLUMN base_model  text,
    ADD COLUMN targets     jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN is_built_in boolean NOT NULL DEFAULT false,
    ADD COLUMN updated_at  timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN video_workflow_templates.targets IS 'where a parameter goes: {"seed": {"title"|"class_type"|"node_id": …, "input": …}}';

ALTER TABLE generation_profiles
    ADD COLUMN project_id    bigint REFERENCES projects,
    ADD COLUMN character_id  bigint REFERENCES characters,
    ADD COLUMN checkpoint    text,
    ADD COLUMN lora_strength numeric(4, 2) NOT NULL DEFAULT 0.8 CHECK (lora_strength > 0 AND lora_strength <= 4),
    ADD COLUMN is_default    boolean NOT NULL DEFAULT false,
    ADD COLUMN updated_at    timestamptz NOT NULL DEFAULT now(),
    ADD CONSTRAINT profile_of_one CHECK (num_nonnulls(project_id, character_id) <= 1);
COMMENT ON COLUMN generation_profiles.checkpoint IS 'the name under which the ComfyUI server lists the checkpoint; the template''s own where it is null';
CREATE UNIQUE INDEX one_default_profile ON generation_profiles (is_default) WHERE is_default;
CREATE UNIQUE INDEX one_profile_per_character ON generation_profiles (character_id, video_workflow_template_id);
CREATE UNIQUE INDEX one_profile_per_project ON generation_profiles (project_id, video_workflow_template_id);

-- What was proved of a model by asking it, for money -----------------------------------------------------

CREATE TABLE model_proofs (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_key       text NOT NULL,
    vendor          text NOT NULL,
    verdict         text NOT NULL CHECK (verdict IN ('works', 'ignored', 'refused', 'schema_changed', 'inconclusive')),
    detail          text NOT NULL,
    difference      double precision,
    cost_usd        numeric(12, 4) NOT NULL DEFAULT 0,
    registry_sha256 text NOT NULL,
    job_keys        text[] NOT NULL DEFAULT '{}',
    is_simulated    boolean NOT NULL,
    proved_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX model_proofs_newest ON model_proofs (model_key, vendor, proved_at DESC);
COMMENT ON TABLE model_proofs IS 'append-only; the newest row of a model at a vendor counts';
COMMENT ON COLUMN model_proofs.registry_sha256 IS 'digest of the model''s entry when it was proved: another entry, no proof';
