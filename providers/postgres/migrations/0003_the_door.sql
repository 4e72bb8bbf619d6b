-- The one door for money: budgets at three levels and credits, lost answers, moves to another vendor, circuit breakers.

-- Budgets of seasons, characters and owners ---------------------------------------------------------

ALTER TABLE budgets
    ALTER COLUMN season_id DROP NOT NULL,
    ADD COLUMN character_id bigint UNIQUE REFERENCES characters,
    ADD COLUMN owner_id     bigint UNIQUE REFERENCES owners,
    ADD COLUMN is_prepaid   boolean NOT NULL DEFAULT false,
    ADD COLUMN at_limit     text NOT NULL DEFAULT 'stop' CHECK (at_limit IN ('stop', 'ask')),
    ADD COLUMN overrun_usd  numeric(12, 4) NOT NULL DEFAULT 0 CHECK (overrun_usd >= 0),
    ADD COLUMN warned_percent integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT budget_of_one CHECK (num_nonnulls(season_id, character_id, owner_id) = 1),
    ADD CONSTRAINT only_owners_hold_credits CHECK (NOT is_prepaid OR owner_id IS NOT NULL);
COMMENT ON COLUMN budgets.overrun_usd IS 'billed beyond the limit: nothing more is submitted until the limit is raised';

CREATE FUNCTION budget_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.reserved_usd > coalesce(OLD.reserved_usd, 0) AND NEW.reserved_usd + NEW.spent_usd > NEW.limit_usd THEN
        RAISE EXCEPTION 'budget % would be passed: % reserved and % spent of %',
            NEW.id, NEW.reserved_usd, NEW.spent_usd, NEW.limit_usd;
    END IF;
    IF NEW.is_prepaid AND NEW.spent_usd > NEW.limit_usd THEN
        RAISE EXCEPTION 'the credits of budget % would be negative', NEW.id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER budget_is_kept BEFORE INSERT OR UPDATE ON budgets FOR EACH ROW EXECUTE FUNCTION budget_is_kept();

CREATE TABLE credit_entries (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    budget_id  bigint NOT NULL REFERENCES budgets,
    kind       text NOT NULL CHECK (kind IN ('grant', 'deduct', 'refund')),
    amount_usd numeric(12, 4) NOT NULL CHECK (amount_usd >= 0),
    job_key    text REFERENCES provider_jobs,
    note       text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER credit_entries_append_only BEFORE UPDATE OR DELETE ON credit_entries
    FOR EACH ROW EXECUTE FUNCTION is_append_only();
CREATE TRIGGER credit_entries_no_truncate BEFORE TRUNCATE ON credit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION is_append_only();

-- Jobs: their POSTs, where they moved to, how long they were waited for ------------------------------

ALTER TABLE provider_jobs
    ADD COLUMN post_count          integer NOT NULL DEFAULT 0,
    ADD COLUMN submitting_at       timestamptz,
    ADD COLUMN sent_urls           jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN fallbacks           jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN moved_to            text REFERENCES provider_jobs,
    ADD COLUMN waited_seconds      double precision NOT NULL DEFAULT 0,
    ADD COLUMN cancel_requested_at timestamptz,
    ADD COLUMN root_flow_run_id    text;
COMMENT ON COLUMN provider_jobs.post_count IS 'POSTs made with this key: more than one only after definite refusals or a proven absence';
COMMENT ON COLUMN provider_jobs.waited_seconds IS 'time spent looking at it; a clock that jumps or a machine that sleeps adds nothing';
COMMENT ON COLUMN provider_jobs.fallbacks IS 'the same work as orders for the next vendors of the manifest, in order';

CREATE INDEX provider_jobs_request ON provider_jobs (vendor, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX provider_jobs_in_flight ON provider_jobs (heartbeat_at)
    WHERE state IN ('submitting', 'submission_unknown', 'submitted', 'running');
CREATE INDEX provider_jobs_of_run ON provider_jobs (root_flow_run_id)
    WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'expired');
CREATE INDEX reservations_of_job ON reservations (job_key) WHERE released_at IS NULL;

CREATE TABLE vendor_circuits (
    vendor      text PRIMARY KEY,
    state       text NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    cause       text CHECK (cause IN ('account', 'outage')),
    reason      text NOT NULL DEFAULT '',
    failures    integer NOT NULL DEFAULT 0,
    openings    integer NOT NULL DEFAULT 0,
    opened_at   timestamptz,
    probe_after timestamptz,
    changed_at  timestamptz NOT NULL DEFAULT now()
);

-- Runs and their upkeep --------------------------------------------------------------------------------

CREATE TABLE season_runs (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    season_id     bigint NOT NULL REFERENCES seasons,
    flow_run_id   text,
    deployment_id text,
    machine       text NOT NULL,
    process_id    integer NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    exit_code     integer,
    how_it_ended  text NOT NULL DEFAULT ''
);
CREATE INDEX season_runs_open ON season_runs (season_id) WHERE ended_at IS NULL;
COMMENT ON TABLE season_runs IS 'a run holds the advisory lock of its id: an open row whose lock is free is a run that died';

CREATE TABLE maintenance_runs (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    is_dry_run boolean NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    report     jsonb NOT NULL
);

-- Who we are to vendors: two databases may hold the same season, and so the same keys.
CREATE TABLE installation (
    mark    text PRIMARY KEY DEFAULT left(replace(gen_random_uuid()::text, '-', ''), 8) CHECK (mark ~ '^[0-9a-f]{8}$'),
    is_only boolean NOT NULL DEFAULT true UNIQUE CHECK (is_only)
);
INSERT INTO installation DEFAULT VALUES;

ALTER TABLE character_loras ADD COLUMN weights_dropped_at timestamptz;
