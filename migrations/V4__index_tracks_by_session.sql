-- Chosen by `cargo bench-indices`; the comparison stands in docs/benchmarks.md.
--
-- A Bloom filter over track numbers, which every session begins anew, had to be looked through day by day,
-- and a B-tree over (camera_id, timestamp) took as long to write as the rows themselves, for what the BRIN
-- over time finds nearly as fast.
DROP INDEX idx_detections_track_id;
DROP INDEX idx_detections_camera_id;

-- A track, or a whole session for its summary. A track has many rows, of which a B-tree keeps the key once.
CREATE INDEX idx_detections_track_id ON detections (session_id, track_id);

-- How many people came, when: each track counts once, where it began. Updates do not change the column, so
-- they stay HOT.
CREATE INDEX idx_tracks_start_time ON tracks (start_time);
