-- How many dead letters there are, by reason, however many: kept by triggers, which see what is done by hand
-- as well. Nothing is updated, so that nobody waits; workers fold the rows.
CREATE TABLE dead_letter_counts (
    reason  text   NOT NULL,
    written bigint NOT NULL,
    waiting bigint NOT NULL
);

COMMENT ON TABLE dead_letter_counts IS 'Sums by reason over its rows.';
COMMENT ON COLUMN dead_letter_counts.written IS 'Dead letters ever written.';
COMMENT ON COLUMN dead_letter_counts.waiting IS 'Dead letters that are there and were neither put back nor discarded.';

-- With the rights of the tables' owner, so that whoever may write dead letters need not be given more.
CREATE FUNCTION count_dead_letters() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO dead_letter_counts (reason, written, waiting)
        SELECT reason, count(*), count(*) FILTER (WHERE requeued_at IS NULL AND discarded_at IS NULL)
        FROM new_letters
        GROUP BY reason;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO dead_letter_counts (reason, written, waiting)
        SELECT reason, sum(written), sum(waiting)
        FROM (
            SELECT reason, 1 AS written, (requeued_at IS NULL AND discarded_at IS NULL)::integer AS waiting
            FROM new_letters
            UNION ALL
            SELECT reason, -1, -(requeued_at IS NULL AND discarded_at IS NULL)::integer
            FROM old_letters
        ) AS changes
        GROUP BY reason
        HAVING sum(written) <> 0 OR sum(waiting) <> 0;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO dead_letter_counts (reason, written, waiting)
        SELECT reason, 0, -count(*)
        FROM old_letters
        WHERE requeued_at IS NULL AND discarded_at IS NULL
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
SELECT reason, count(*), count(*) FILTER (WHERE requeued_at IS NULL AND discarded_at IS NULL)
FROM dead_letters
GROUP BY reason;
