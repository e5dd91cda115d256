-- The books: what became of every row, so that `passerby status` can say it without counting the tables.
--
-- Every transaction that stores something adds to a row of its own connection: two of them never wait for
-- each other. Rows of connections that are gone are folded into one for each key prefix.

CREATE TABLE books (
    writer             uuid        NOT NULL,
    started_at         timestamptz NOT NULL,
    last_commit_at     timestamptz,
    began_empty        boolean     NOT NULL DEFAULT true,
    entries            bigint      NOT NULL DEFAULT 0,
    duplicates         bigint      NOT NULL DEFAULT 0,
    detections         bigint      NOT NULL DEFAULT 0,
    tracks             bigint      NOT NULL DEFAULT 0,
    sessions           bigint      NOT NULL DEFAULT 0,
    dead_rows          bigint      NOT NULL DEFAULT 0,
    rows_foreign       bigint      NOT NULL DEFAULT 0,
    rows_requeued      bigint      NOT NULL DEFAULT 0,
    rows_direct        bigint      NOT NULL DEFAULT 0,
    detections_dropped bigint      NOT NULL DEFAULT 0,
    key_prefix         text        NOT NULL DEFAULT '',
    is_folded          boolean     NOT NULL DEFAULT false,
    CONSTRAINT books_pkey PRIMARY KEY (writer)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

COMMENT ON TABLE books IS 'Sums over its rows: what was stored, in the transactions that stored it.';
COMMENT ON COLUMN books.began_empty IS 'Nothing was stored before the books began: sum(detections) − sum(detections_dropped) is count(*) of detections.';
COMMENT ON COLUMN books.entries IS 'Entries whose keys were new to the ledger.';
COMMENT ON COLUMN books.duplicates IS 'Entries that the ledger knew: nothing was written for them.';
COMMENT ON COLUMN books.tracks IS 'Snapshots of tracks taken in; a row of tracks is the newest of its snapshots.';
COMMENT ON COLUMN books.sessions IS 'What pipelines said of sessions, taken in.';
COMMENT ON COLUMN books.dead_rows IS 'Rows in dead letters, as far as they could be counted.';
COMMENT ON COLUMN books.rows_foreign IS 'Of all these rows: of entries whose keys no producer of ours made, or that had none: of programs that keep no books.';
COMMENT ON COLUMN books.rows_requeued IS 'Of all these rows: put back from the dead letters.';
COMMENT ON COLUMN books.rows_direct IS 'Of all these rows: stored through the library or by ingest, not through a stream.';
COMMENT ON COLUMN books.detections_dropped IS 'Detections that retention dropped.';
COMMENT ON COLUMN books.key_prefix IS 'What the keys begin with in the Redis it came from: tells apart several that feed one database. Empty for what came through no stream.';
COMMENT ON COLUMN books.is_folded IS 'The sum of rows whose connections are gone.';

INSERT INTO books (writer, is_folded, started_at, began_empty)
SELECT '00000000-0000-0000-0000-000000000000', true, clock_timestamp(),
       NOT EXISTS (SELECT FROM detections) AND NOT EXISTS (SELECT FROM ledger);
