-- "How many people, when, where": people are tracks, never rows.

-- Each person once, with the verdict on their gender: that of the track where the pipeline reported
-- one, else the vote of the detections, weighted by the classifier's confidence. A draw is no verdict.
CREATE VIEW people AS
WITH seen AS (
    SELECT session_id,
           camera_id,
           track_id,
           min(timestamp) AS first_seen,
           max(timestamp) AS last_seen,
           count(*)       AS detections,
           coalesce(sum(coalesce(gender_confidence, 1)) FILTER (WHERE gender = 'male'), 0)    AS male,
           coalesce(sum(coalesce(gender_confidence, 1)) FILTER (WHERE gender = 'female'), 0)  AS female,
           coalesce(sum(coalesce(gender_confidence, 1)) FILTER (WHERE gender = 'unknown'), 0) AS unknown
    FROM detections
    WHERE track_id IS NOT NULL
    GROUP BY session_id, camera_id, track_id
)
SELECT session_id,
       camera_id,
       track_id,
       least(seen.first_seen, tracks.start_time)  AS first_seen,
       greatest(seen.last_seen, tracks.end_time)  AS last_seen,
       coalesce(seen.detections, 0)               AS detections,
       coalesce(
           tracks.gender,
           CASE
               WHEN seen.male > seen.female AND seen.male > seen.unknown THEN 'male'
               WHEN seen.female > seen.male AND seen.female > seen.unknown THEN 'female'
               ELSE 'unknown'
           END
       )                                          AS gender
FROM seen
FULL JOIN tracks USING (session_id, camera_id, track_id);

COMMENT ON VIEW people IS 'One row a person (track): when, where, and the verdict on their gender.';

CREATE VIEW demographics_by_session AS
SELECT session_id,
       count(*)                                     AS people,
       count(*) FILTER (WHERE gender = 'male')      AS male,
       count(*) FILTER (WHERE gender = 'female')    AS female,
       count(*) FILTER (WHERE gender = 'unknown')   AS unknown,
       sum(detections)::bigint                      AS detections
FROM people
GROUP BY session_id;

-- A person counts in every hour they were seen in.
CREATE VIEW demographics_by_camera_and_hour AS
WITH seen AS (
    SELECT DISTINCT date_trunc('hour', timestamp, 'UTC') AS hour, session_id, camera_id, track_id
    FROM detections
    WHERE track_id IS NOT NULL
)
SELECT seen.hour,
       seen.camera_id,
       count(*)                                          AS people,
       count(*) FILTER (WHERE people.gender = 'male')    AS male,
       count(*) FILTER (WHERE people.gender = 'female')  AS female,
       count(*) FILTER (WHERE people.gender = 'unknown') AS unknown
FROM seen
JOIN people USING (session_id, camera_id, track_id)
GROUP BY seen.hour, seen.camera_id;
