-- Harvests that are finished, pictures with what a person said of them, and training sets laid out per trainer.

ALTER TABLE frames
    ADD COLUMN media_type       text NOT NULL DEFAULT 'image/png',
    ADD COLUMN thumbnail_sha256 text,
    ADD COLUMN shot             integer NOT NULL DEFAULT 0,
    ADD COLUMN mark             text NOT NULL DEFAULT '',
    ADD COLUMN measures         jsonb NOT NULL DEFAULT '{}';

ALTER TABLE characters
    ADD COLUMN captions text NOT NULL DEFAULT 'auto' CHECK (captions IN ('auto', 'fixed', 'own', 'described')),
    ADD COLUMN rights   text NOT NULL DEFAULT '';

ALTER TABLE character_images ADD COLUMN caption text NOT NULL DEFAULT '';

CREATE TABLE harvests (
    clip_id        bigint PRIMARY KEY REFERENCES clips,
    rules_version  integer NOT NULL,
    looked_count   integer NOT NULL,
    kept_count     integer NOT NULL,
    decoded_frames integer NOT NULL,
    frame_count    integer NOT NULL,
    harvested_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE harvests IS 'a clip with a row here is never decoded again under the same rules, whatever it gave';

CREATE TABLE picture_decisions (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    character_id bigint NOT NULL REFERENCES characters,
    picture      text NOT NULL,
    decision     text NOT NULL CHECK (decision IN ('keep', 'drop')),
    decided_by   text NOT NULL,
    decided_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (character_id, picture)
);
COMMENT ON COLUMN picture_decisions.picture IS 'clip:<id>@<seconds> or still:<sha256>: survives a new harvest';

-- What goes to a trainer is a dataset now; the zips of older sets stay in the store.
ALTER TABLE training_sets DROP COLUMN zip_sha256;

CREATE TABLE datasets (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    training_set_id bigint NOT NULL REFERENCES training_sets,
    layout          text NOT NULL,
    zip_sha256      text NOT NULL,
    manifest_sha256 text NOT NULL,
    file_count      integer NOT NULL,
    size_bytes      bigint NOT NULL,
    warnings        text[] NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (training_set_id, layout)
);
