-- The ledger forgets: keys that cannot come back are pruned, and what is older than the horizon is never
-- guessed about.

-- When the key came into being, as the key itself tells (version 7), or the ID of the entry it was derived
-- from. A key that tells nothing is remembered for ever.
ALTER TABLE ledger ADD COLUMN made_at timestamptz;

COMMENT ON COLUMN ledger.made_at IS 'When the key was made, by the key''s own account; NULL: never pruned.';

-- Rows arrive in order of their entries, so that pruning and looking for an entry read a few pages.
CREATE INDEX idx_ledger_entry_ms ON ledger
    USING brin (entry_ms) WITH (pages_per_range = 16, autosummarize = on);

-- One row. Moved forward before keys are removed, so that whoever enters a key that was removed sees it.
CREATE TABLE ledger_horizon (
    only_row     boolean     NOT NULL DEFAULT true,
    pruned_below timestamptz NOT NULL,
    CONSTRAINT ledger_horizon_pkey PRIMARY KEY (only_row),
    CONSTRAINT ledger_horizon_only_row CHECK (only_row)
);

COMMENT ON TABLE ledger_horizon IS 'Keys made before pruned_below may have been forgotten by the ledger.';

INSERT INTO ledger_horizon (pruned_below) VALUES ('1970-01-01 00:00:00+00');
