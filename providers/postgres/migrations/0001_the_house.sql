-- The tables of OnModel. Enum words equal the Python enums (a test says so). Money is numeric USD.

CREATE TYPE character_kind AS ENUM ('person', 'illustrated', 'other');
CREATE TYPE lora_status AS ENUM ('pending', 'training', 'validating', 'ready', 'failed', 'archived');
CREATE TYPE image_type AS ENUM ('frontal', 'side', 'three_quarter', 'full_body', 'action', 'reference');
CREATE TYPE job_state AS ENUM (
    'planned', 'submitting', 'submission_unknown', 'submitted', 'running', 'succeeded', 'failed', 'cancelled', 'expired'
);
CREATE TYPE render_state AS ENUM ('running', 'done', 'failed', 'waiting');
CREATE TYPE route AS ENUM ('elements', 'direct', 'preprocessed', 'originals');

-- Who and what -----------------------------------------------------------------------------------

CREATE TABLE owners (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE projects (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner_id   bigint NOT NULL REFERENCES owners,
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner_id, name)
);

CREATE TABLE seasons (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug            text NOT NULL UNIQUE,
    owner_id        bigint NOT NULL REFERENCES owners,
    project_id      bigint NOT NULL REFERENCES projects,
    time_zone       text NOT NULL,
    review          boolean NOT NULL,
    vendor          jsonb NOT NULL,
    is_simulated    boolean NOT NULL,
    manifest        jsonb NOT NULL,
    manifest_sha256 text NOT NULL,
    finished_sha256 text,
    video_sha256    text,
    video_seconds   double precision,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz
);
COMMENT ON COLUMN seasons.finished_sha256 IS 'manifest_sha256 at the last run that ended with nothing left to do';

CREATE TABLE clips (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    season_id         bigint NOT NULL REFERENCES seasons,
    sha256            text NOT NULL,
    source_name       text NOT NULL,
    duration_seconds  double precision NOT NULL,
    width             integer NOT NULL,
    height            integer NOT NULL,
    frames_per_second double precision NOT NULL,
    video_codec       text NOT NULL,
    has_audio         boolean NOT NULL,
    size_bytes        bigint NOT NULL,
    last_frame_url    text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (season_id, sha256)
);

CREATE TABLE slots (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    season_id       bigint NOT NULL REFERENCES seasons,
    number          integer NOT NULL CHECK (number BETWEEN 1 AND 75),
    prompt          text,
    winning_clip_id bigint REFERENCES clips,
    entry           jsonb NOT NULL,
    entry_sha256    text NOT NULL,
    plan            jsonb,
    UNIQUE (season_id, number)
);
COMMENT ON COLUMN slots.plan IS 'what the first render resolved: kept, so that a changed default never buys the slot again';

CREATE TABLE characters (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    season_id    bigint NOT NULL REFERENCES seasons,
    project_id   bigint NOT NULL REFERENCES projects,
    name         text NOT NULL,
    description  text NOT NULL,
    trigger_word text NOT NULL,
    kind         character_kind NOT NULL,
    base_models  text[] NOT NULL,
    lora         text NOT NULL,
    lora_scale   double precision NOT NULL,
    min_images   integer NOT NULL,
    training     jsonb NOT NULL,
    is_current   boolean NOT NULL DEFAULT true,
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (season_id, name)
);
CREATE UNIQUE INDEX one_trigger_word_per_season ON characters (season_id, lower(trigger_word)) WHERE is_current;

CREATE TABLE character_clips (
    character_id bigint NOT NULL REFERENCES characters,
    clip_id      bigint NOT NULL REFERENCES clips,
    position     integer NOT NULL,
    PRIMARY KEY (character_id, clip_id)
);

CREATE TABLE character_images (
    character_id bigint NOT NULL REFERENCES characters,
    role         text NOT NULL CHECK (role IN ('training', 'reference')),
    position     integer NOT NULL,
    sha256       text NOT NULL,
    source_name  text NOT NULL,
    width        integer NOT NULL,
    height       integer NOT NULL,
    media_type   text NOT NULL,
    PRIMARY KEY (character_id, role, position)
);

-- What was learned -------------------------------------------------------------------------------

CREATE TABLE frames (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    clip_id    bigint NOT NULL REFERENCES clips,
    at_seconds double precision NOT NULL,
    sha256     text,
    width      integer NOT NULL,
    height     integer NOT NULL,
    sharpness  double precision NOT NULL,
    brightness double precision NOT NULL,
    hash64     bigint NOT NULL,
    is_kept    boolean NOT NULL,
    reason     text NOT NULL,
    UNIQUE (clip_id, at_seconds)
);

CREATE TABLE training_sets (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    character_id   bigint NOT NULL REFERENCES characters,
    digest         text NOT NULL,
    zip_sha256     text NOT NULL,
    manifest       jsonb NOT NULL,
    trained_count  integer NOT NULL,
    held_out_count integer NOT NULL,
    warnings       text[] NOT NULL DEFAULT '{}',
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (character_id, digest)
);

CREATE TABLE character_loras (
    id                    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    season_id             bigint NOT NULL REFERENCES seasons,
    character_id          bigint NOT NULL REFERENCES characters,
    character_name        text NOT NULL,
    base_model            text NOT NULL,
    version               integer NOT NULL,
    parent                bigint REFERENCES character_loras,
    trainer               text NOT NULL,
    training_set_id       bigint REFERENCES training_sets,
    trigger_word          text NOT NULL,
    lora_url              text,
    config_url            text,
    sha256                text,
    training_images_count integer NOT NULL DEFAULT 0,
    training_steps        integer NOT NULL DEFAULT 0,
    training_options      jsonb NOT NULL DEFAULT '{}',
    training_cost_usd     numeric(12, 4) NOT NULL DEFAULT 0,
    training_cost_cents   integer GENERATED ALWAYS AS (round(training_cost_usd * 100)::integer) STORED,
    status                lora_status NOT NULL DEFAULT 'pending',
    status_reason         text NOT NULL DEFAULT '',
    fal_request_id        text,
    job_keys              text[] NOT NULL DEFAULT '{}',
    file_report           jsonb,
    created_by            text NOT NULL,
    created_at            timestamptz NOT NULL DEFAULT now(),
    UNIQUE (season_id, character_id, base_model, version)
);

CREATE VIEW current_character_loras AS
SELECT DISTINCT ON (character_id, base_model) *
FROM character_loras
WHERE status <> 'archived'
ORDER BY character_id, base_model, version DESC;

CREATE VIEW completed_character_loras AS
SELECT id, season_id, character_name, trigger_word, lora_url, config_url, training_images_count, training_steps,
       training_cost_cents, CASE status WHEN 'ready' THEN 'completed' ELSE status::text END AS status,
       fal_request_id, created_by, created_at
FROM character_loras;
COMMENT ON VIEW completed_character_loras IS 'for readers of older systems, who call ready completed';

CREATE TABLE character_reference_images (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lora_id      bigint NOT NULL REFERENCES character_loras,
    character_id bigint NOT NULL REFERENCES characters,
    image_url    text NOT NULL,
    sha256       text NOT NULL,
    prompt       text NOT NULL,
    is_primary   boolean NOT NULL DEFAULT false,
    image_type   image_type NOT NULL,
    score        double precision,
    job_key      text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (lora_id, image_type)
);
CREATE UNIQUE INDEX one_primary_per_lora ON character_reference_images (lora_id) WHERE is_primary;

CREATE TABLE pinned_characters (
    id                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    season_id            bigint NOT NULL REFERENCES seasons,
    character_id         bigint NOT NULL REFERENCES characters UNIQUE,
    character_name       text NOT NULL,
    lora_id              bigint REFERENCES character_loras,
    frontal_image_url    text NOT NULL,
    frontal_sha256       text NOT NULL,
    reference_image_urls text[] NOT NULL,
    reference_sha256s    text[] NOT NULL,
    pinned_at            timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE identity_scores (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject_kind text NOT NULL CHECK (subject_kind IN ('lora', 'render')),
    subject_id   bigint NOT NULL,
    character_id bigint NOT NULL REFERENCES characters,
    verdict      jsonb NOT NULL,
    is_passed    boolean,
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (subject_kind, subject_id, character_id)
);

-- What can be bought, and what was ----------------------------------------------------------------

CREATE TABLE ai_models (
    key            text PRIMARY KEY,
    name           text NOT NULL,
    type           text NOT NULL,
    model_path     text NOT NULL,
    file_path      text,
    vendor         text NOT NULL,
    base_model     text,
    takes_lora     boolean NOT NULL,
    lora_field     text,
    no_lora_reason text,
    facts          jsonb NOT NULL,
    price          jsonb,
    updated_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE video_workflow_templates (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              text NOT NULL UNIQUE,
    workflow_template jsonb NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE generation_profiles (
    id                         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                       text NOT NULL UNIQUE,
    checkpoint_id              text REFERENCES ai_models,
    lora_id                    bigint REFERENCES character_loras,
    video_workflow_template_id bigint REFERENCES video_workflow_templates,
    created_at                 timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE budgets (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    season_id    bigint NOT NULL UNIQUE REFERENCES seasons,
    limit_usd    numeric(12, 4) NOT NULL CHECK (limit_usd > 0),
    reserved_usd numeric(12, 4) NOT NULL DEFAULT 0 CHECK (reserved_usd >= 0),
    spent_usd    numeric(12, 4) NOT NULL DEFAULT 0 CHECK (spent_usd >= 0)
);

CREATE TABLE provider_jobs (
    key            text PRIMARY KEY,
    work_key       text NOT NULL,
    attempt        integer NOT NULL CHECK (attempt >= 1),
    season_id      bigint NOT NULL REFERENCES seasons,
    slot_number    integer,
    character_id   bigint REFERENCES characters,
    stage          text NOT NULL,
    operation      text NOT NULL,
    api_name       text NOT NULL,
    model_key      text NOT NULL,
    vendor         text NOT NULL,
    endpoint       text NOT NULL,
    request        jsonb NOT NULL,
    state          job_state NOT NULL DEFAULT 'planned',
    not_before     timestamptz,
    request_id     text,
    status_url     text,
    response_url   text,
    cancel_url     text,
    result         jsonb,
    error_class    text,
    error_message  text,
    estimate_usd   numeric(12, 4) NOT NULL,
    ceiling_usd    numeric(12, 4) NOT NULL,
    billed_usd     numeric(12, 4),
    is_simulated   boolean NOT NULL,
    progress       double precision,
    heartbeat_at   timestamptz,
    flow_run_id    text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    submitted_at   timestamptz,
    finished_at    timestamptz,
    UNIQUE (work_key, attempt)
);
CREATE INDEX provider_jobs_open ON provider_jobs (season_id)
    WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'expired');

CREATE TABLE provider_job_events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_key    text NOT NULL REFERENCES provider_jobs,
    from_state job_state,
    to_state   job_state NOT NULL,
    detail     text NOT NULL DEFAULT '',
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX provider_job_events_of_job ON provider_job_events (job_key, id);

CREATE TABLE reservations (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    budget_id   bigint NOT NULL REFERENCES budgets,
    job_key     text NOT NULL REFERENCES provider_jobs,
    amount_usd  numeric(12, 4) NOT NULL CHECK (amount_usd >= 0),
    released_at timestamptz,
    UNIQUE (budget_id, job_key)
);

CREATE TABLE job_costs (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    season_id    bigint NOT NULL REFERENCES seasons,
    slot_number  integer,
    character_id bigint REFERENCES characters,
    job_key      text REFERENCES provider_jobs,
    stage        text NOT NULL,
    api_name     text NOT NULL,
    amount       numeric(12, 4) NOT NULL,
    forecast_usd numeric(12, 4) NOT NULL DEFAULT 0,
    purpose      text NOT NULL,
    once_key     text NOT NULL UNIQUE,
    is_simulated boolean NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN job_costs.once_key IS 'what this entry is for; the same thing is never charged twice';
CREATE INDEX job_costs_of_season ON job_costs (season_id);

CREATE VIEW season_costs AS
SELECT seasons.id AS season_id, seasons.slug, coalesce(sum(job_costs.amount), 0) AS total_cost
FROM seasons LEFT JOIN job_costs ON job_costs.season_id = seasons.id
GROUP BY seasons.id, seasons.slug;

CREATE TABLE vendor_files (
    vendor      text NOT NULL,
    sha256      text NOT NULL,
    url         text NOT NULL,
    uploaded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (vendor, sha256)
);

CREATE TABLE renders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    season_id   bigint NOT NULL REFERENCES seasons,
    slot_id     bigint NOT NULL REFERENCES slots,
    entry_sha256 text NOT NULL,
    state       render_state NOT NULL DEFAULT 'running',
    video_model text NOT NULL,
    routes      jsonb NOT NULL DEFAULT '[]',
    still_sha256 text,
    clip_sha256 text,
    clip_url    text,
    job_key     text,
    notes       text[] NOT NULL DEFAULT '{}',
    reason      text NOT NULL DEFAULT '',
    exit_code   integer NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    UNIQUE (slot_id, entry_sha256)
);

CREATE TABLE notifications (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    season_id  bigint REFERENCES seasons,
    kind       text NOT NULL,
    message    text NOT NULL,
    once_key   text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz
);

-- The ledger keeps itself honest ------------------------------------------------------------------

CREATE FUNCTION provider_job_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'planned' THEN
            RAISE EXCEPTION 'a job begins as planned, not %', NEW.state;
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.state = OLD.state THEN
        RETURN NEW;
    END IF;
    IF NOT (
        (OLD.state = 'planned' AND NEW.state IN ('submitting', 'cancelled'))
        OR (OLD.state = 'submitting' AND NEW.state IN ('submitted', 'planned', 'submission_unknown', 'failed'))
        OR (OLD.state = 'submission_unknown' AND NEW.state IN ('submitted', 'planned', 'cancelled'))
        OR (OLD.state = 'submitted' AND NEW.state IN ('running', 'succeeded', 'failed', 'cancelled', 'expired'))
        OR (OLD.state = 'running' AND NEW.state IN ('succeeded', 'failed', 'cancelled', 'expired'))
    ) THEN
        RAISE EXCEPTION 'a job cannot go from % to %', OLD.state, NEW.state;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER provider_job_moves BEFORE INSERT OR UPDATE ON provider_jobs
    FOR EACH ROW EXECUTE FUNCTION provider_job_moves();

CREATE FUNCTION is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: correct it with a new row', TG_TABLE_NAME;
END $$;

CREATE TRIGGER job_costs_append_only BEFORE UPDATE OR DELETE ON job_costs
    FOR EACH ROW EXECUTE FUNCTION is_append_only();
CREATE TRIGGER provider_job_events_append_only BEFORE UPDATE OR DELETE ON provider_job_events
    FOR EACH ROW EXECUTE FUNCTION is_append_only();
CREATE TRIGGER job_costs_no_truncate BEFORE TRUNCATE ON job_costs
    FOR EACH STATEMENT EXECUTE FUNCTION is_append_only();
CREATE TRIGGER provider_job_events_no_truncate BEFORE TRUNCATE ON provider_job_events
    FOR EACH STATEMENT EXECUTE FUNCTION is_append_only();
