-- The tables that workers write and analysts read.
--
-- No column of `detections` has a volatile default and the table has no trigger: either would turn
-- off the buffered multi-row insert that COPY owes its speed to.

CREATE TABLE detections (
    timestamp         timestamptz NOT NULL,
    detection_id      bigint      NOT NULL,
    track_id          bigint,
    frame_number      bigint      NOT NULL,
    channel_id        integer     NOT NULL,
    confidence        real,
    bbox_x            real        NOT NULL,
    bbox_y            real        NOT NULL,
    bbox_width        real        NOT NULL,
    bbox_height       real        NOT NULL,
    gender_confidence real,
    degraded          boolean     NOT NULL,
    gender            text,
    camera_id         text        NOT NULL,
    session_id        text        NOT NULL
) PARTITION BY RANGE (timestamp);

COMMENT ON TABLE detections IS 'One person seen in one frame; partitioned by UTC day.';
COMMENT ON COLUMN detections.degraded IS 'The producer left fields out because the store was saturated.';

-- Rows arrive roughly in order of time, so that a BRIN of a few pages finds a span of time.
CREATE INDEX idx_detections_timestamp ON detections
    USING brin (timestamp) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX idx_detections_track_id ON detections
    USING brin (track_id int8_bloom_ops) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX idx_detections_camera_id ON detections (camera_id, timestamp);

-- Quarantine: rows whose day has no partition of its own, as from a camera with a wrong clock.
CREATE TABLE detections_default PARTITION OF detections DEFAULT;

CREATE TABLE tracks (
    session_id        text        NOT NULL,
    camera_id         text        NOT NULL,
    track_id          bigint      NOT NULL,
    start_time        timestamptz NOT NULL,
    end_time          timestamptz NOT NULL,
    detection_count   bigint      NOT NULL,
    avg_confidence    real,
    gender            text,
    gender_confidence real,
    degraded          boolean     NOT NULL,
    trajectory        jsonb       NOT NULL,
    CONSTRAINT tracks_pkey PRIMARY KEY (session_id, camera_id, track_id)
) WITH (fillfactor = 75);

COMMENT ON TABLE tracks IS 'One person followed through the frames of one camera, as last reported.';
COMMENT ON COLUMN tracks.trajectory IS '[[milliseconds since start_time, x, y], …] in pixels.';

-- Neither index holds a column that updates change, so that updates stay HOT.
CREATE INDEX idx_tracks_camera_id ON tracks (camera_id);
CREATE INDEX idx_tracks_track_id ON tracks (track_id);

CREATE TABLE sessions (
    session_id    text NOT NULL,
    source        text,
    started_at    timestamptz,
    ended_at      timestamptz,
    detections    bigint,
    people        bigint,
    male          bigint,
    female        bigint,
    unknown       bigint,
    summarized_at timestamptz,
    outdated_at   timestamptz,
    CONSTRAINT sessions_pkey PRIMARY KEY (session_id)
);

COMMENT ON TABLE sessions IS 'One run of a tracker over one source, with its summary once it ended.';
COMMENT ON COLUMN sessions.people IS 'Unique people (tracks), not rows; NULL while the summary is missing or out of date.';
COMMENT ON COLUMN sessions.outdated_at IS 'When rows last came in after a summary was made.';

CREATE INDEX idx_sessions_unsummarized ON sessions (ended_at)
    WHERE ended_at IS NOT NULL AND people IS NULL;

-- What `passerby ingest` has read into a session. A finished source is never stored again, also
-- when the ledger has long forgotten its entries.
CREATE TABLE session_sources (
    session_id  text             NOT NULL,
    digest      bytea            NOT NULL,
    name        text             NOT NULL,
    camera_id   text             NOT NULL,
    channel_id  integer          NOT NULL,
    fps         double precision NOT NULL,
    start_time  timestamptz      NOT NULL,
    n_rows      bigint,
    finished_at timestamptz,
    CONSTRAINT session_sources_pkey PRIMARY KEY (session_id, digest)
);

COMMENT ON COLUMN session_sources.digest IS 'SHA-256 of the file.';

-- The idempotency keys of committed entries: what makes a second delivery write nothing.
CREATE TABLE ledger (
    idempotency_key uuid        NOT NULL,
    stream          text,
    entry_ms        bigint,
    entry_seq       bigint,
    n_rows          integer     NOT NULL,
    committed_at    timestamptz NOT NULL,
    CONSTRAINT ledger_pkey PRIMARY KEY (idempotency_key)
);

COMMENT ON COLUMN ledger.stream IS 'NULL when the rows did not come through a stream.';

-- What can never be stored as it is, with the reason; written in the transaction of its batch.
CREATE TABLE dead_letters (
    id               bigint      GENERATED ALWAYS AS IDENTITY,
    dead_lettered_at timestamptz NOT NULL,
    stream           text        NOT NULL,
    entry_id         text        NOT NULL,
    idempotency_key  uuid        NOT NULL,
    row_idx          integer,
    kind             text,
    reason           text        NOT NULL,
    message          text        NOT NULL,
    sqlstate         text,
    fields           bytea       NOT NULL,
    requeued_at      timestamptz,
    requeued_key     uuid,
    CONSTRAINT dead_letters_pkey PRIMARY KEY (id)
);

COMMENT ON COLUMN dead_letters.row_idx IS 'Row within the entry; NULL when the whole entry is here.';
COMMENT ON COLUMN dead_letters.fields IS 'MessagePack array [name, value, …] of the entry''s fields; with row_idx the payload holds that row alone.';

CREATE INDEX idx_dead_letters_dead_lettered_at ON dead_letters (dead_lettered_at);
