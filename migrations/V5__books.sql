-- The books: what became of every row, so that `passerby status` can say it without counting the tables.
--
-- Every transaction that stores something adds to a row of its own connection: two of them never wait for
-- each other. Rows of connections that are gone are folded into the one whose writer is all zeros.

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
    CONSTRAINT books_pkey PRIMARY KEY (writer)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

COMMENT ON TABLE books IS 'Sums over its rows: what was stored, in the transactions that stored it.';
COMMENT ON COLUMN books.began_empty IS 'Nothing was stored before the books began: sum(detections) − sum(detections_dropped) is count(*) of detections.';
COMMENT ON COLUMN books.entries IS 'Entries whose keys were new to the ledger.';
COMMENT ON COLUMN books.duplicates IS 'Entries that the ledger knew: nothing was written for them.';
COMMENT ON COLUMN books.tracks IS 'Snapshots of tracks taken in; a row of tracks is the newest of its snapshots.';
COMMENT ON COLUMN books.sessions IS 'What pipelines said of sessions, taken in.';
COMMENT ON COLUMN books.dead_rows IS 'Rows in dead letters, as far as they could be counted.';
COMMENT ON COLUMN books.rows_foreign IS 'Of all these rows: of entries that came without a key, and so of programs that keep no books.';
COMMENT ON COLUMN books.rows_requeued IS 'Of all these rows: put back from the dead letters.';
COMMENT ON COLUMN books.rows_direct IS 'Of all these rows: stored through the library or by ingest, not through a stream.';
COMMENT ON COLUMN books.detections_dropped IS 'Detections that retention dropped.';

INSERT INTO books (writer, started_at, began_empty)
SELECT '00000000-0000-0000-0000-000000000000', clock_timestamp(),
       NOT EXISTS (SELECT FROM detections) AND NOT EXISTS (SELECT FROM ledger);

-- How many dead letters there are, by reason, however many: kept by triggers, which see what is done by hand
-- as well. Nothing is updated, so that nobody waits; workers fold the rows.
CREATE TABLE dead_letter_counts (
    reason  text   NOT NULL,
    written bigint NOT NULL,
    waiting bigint NOT NULL
);

COMMENT ON TABLE dead_letter_counts IS 'Sums by reason over its rows.';
COMMENT ON COLUMN dead_letter_counts.written IS 'Dead letters ever written.';
COMMENT ON COLUMN dead_letter_counts.waiting IS 'Dead letters that are there and were not put back.';

-- With the rights of the tables' owner, so that whoever may write dead letters need not be given more.
CREATE FUNCTION count_dead_letters() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO dead_letter_counts (reason, written, waiting)
        SELECT reason, count(*), count(*) FILTER (WHERE requeued_at IS NULL)
        FROM new_letters
        GROUP BY reason;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO dead_letter_counts (reason, written, waiting)
        SELECT reason, sum(written), sum(waiting)
        FROM (
            SELECT reason, 1 AS written, (requeued_at IS NULL)::integer AS waiting FROM new_letters
            UNION ALL
            SELECT reason, -1, -(requeued_at IS NULL)::integer FROM old_letters
        ) AS changes
        GROUP BY reason
        HAVING sum(written) <> 0 OR sum(waiting) <> 0;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO dead_letter_counts (reason, written, waiting)
        SELECT reason, 0, -count(*)
        FROM old_letters
        WHERE requeued_at IS NULL
        GROUP BY reason;
    ELSE
        INSERT INTO dead_letter_counts (reason, written, waiting)
        SELECT reason, 0, -sum(waiting)
        FROM dead_letter_counts
        GROUP BY reason
        HAVING sum(waiting) <> 0;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER count_dead_letters_written AFTER INSERT ON dead_letters
    REFERENCING NEW TABLE AS new_letters
    FOR EACH STATEMENT EXECUTE FUNCTION count_dead_letters();
CREATE TRIGGER count_dead_letters_changed AFTER UPDATE ON dead_letters
    REFERENCING OLD TABLE AS old_letters NEW TABLE AS new_letters
    FOR EACH STATEMENT EXECUTE FUNCTION count_dead_letters();
CREATE TRIGGER count_dead_letters_deleted AFTER DELETE ON dead_letters
    REFERENCING OLD TABLE AS old_letters
    FOR EACH STATEMENT EXECUTE FUNCTION count_dead_letters();
CREATE TRIGGER count_dead_letters_truncated AFTER TRUNCATE ON dead_letters
    FOR EACH STATEMENT EXECUTE FUNCTION count_dead_letters();

INSERT INTO dead_letter_counts (reason, written, waiting)
SELECT reason, count(*), count(*) FILTER (WHERE requeued_at IS NULL)
FROM dead_letters
GROUP BY reason;
