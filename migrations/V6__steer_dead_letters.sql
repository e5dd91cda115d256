-- Dead letters can be chosen by camera and session, and set aside without being destroyed.

ALTER TABLE dead_letters
    ADD COLUMN camera_ids     text[],
    ADD COLUMN session_ids    text[],
    ADD COLUMN discarded_at   timestamptz,
    ADD COLUMN discarded_by   text,
    ADD COLUMN discard_reason text;

-- Letters written before this have NULL there: whoever looks at them reads their payload instead.
COMMENT ON COLUMN dead_letters.camera_ids IS 'Cameras of its rows, at most 1000; empty when none could be read.';
COMMENT ON COLUMN dead_letters.session_ids IS 'Sessions of its rows, at most 1000; empty when none could be read.';
COMMENT ON COLUMN dead_letters.discarded_at IS 'When somebody decided that it is not to be stored.';

-- What waits for somebody is a small part of what was ever dead-lettered.
CREATE INDEX idx_dead_letters_waiting ON dead_letters (id)
    WHERE requeued_at IS NULL AND discarded_at IS NULL;
