//! How many people, when, where: people are tracks, never rows.

use std::{ops::Range, str::FromStr};

use chrono::{DateTime, Utc};

use super::{Store, StoreError, connection::within};

/// The width of the spans that people are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bucket {
    /// One span for the whole time.
    All,
    /// Minutes.
    Minute,
    /// Hours.
    #[default]
    Hour,
    /// UTC days.
    Day,
}

impl Bucket {
    /// The name, as in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

impl FromStr for Bucket {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        [Self::All, Self::Minute, Self::Hour, Self::Day]
            .into_iter()
            .find(|bucket| bucket.as_str() == s)
            .ok_or_else(|| format!("`{s}` is none of all, minute, hour, day"))
    }
}

/// When a person counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counted {
    /// In every span that they were seen in, by their detections: whatever a pipeline reports is counted,
    /// and every detection of the time is read for it.
    #[default]
    Seen,
    /// Once, in the span in which they came, by the tracks that a pipeline reports: some milliseconds for
    /// a day.
    Arrived,
}

impl Counted {
    /// The name, as on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Arrived => "arrived",
        }
    }
}

impl FromStr for Counted {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        [Self::Seen, Self::Arrived]
            .into_iter()
            .find(|counted| counted.as_str() == s)
            .ok_or_else(|| format!("`{s}` is none of seen, arrived"))
    }
}

/// Whom to count.
#[derive(Debug, Clone, Default)]
pub struct DemographicsFilter {
    /// When a person counts.
    pub counted: Counted,
    /// Only this camera.
    pub camera_id: Option<String>,
    /// Only this session.
    pub session_id: Option<String>,
}

/// The people one camera saw in one span.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Demographics {
    /// Start of the span; `None` when the span is all of the time.
    pub start: Option<DateTime<Utc>>,
    /// The camera.
    pub camera_id: String,
    /// Unique people. One who is seen in two spans counts in both, one who arrives in one only.
    pub people: i64,
    /// Of these, male.
    pub male: i64,
    /// Of these, female.
    pub female: i64,
    /// Of these, without a verdict or never classified.
    pub unknown: i64,
    /// Rows, among them those on no track; by [`Counted::Arrived`] those of the people counted.
    pub detections: i64,
}

/// The verdict on a person is that of the whole track where one was reported, else the vote of the
/// person's detections in the span.
const SEEN: &str = "
WITH seen AS (
    SELECT CASE WHEN $5 = 'all' THEN NULL ELSE date_trunc($5, timestamp, 'UTC') END AS start,
           session_id, camera_id, track_id,
           count(*) AS detections,
           coalesce(sum(coalesce(gender_confidence, 1)) FILTER (WHERE gender = 'male'), 0)    AS male,
           coalesce(sum(coalesce(gender_confidence, 1)) FILTER (WHERE gender = 'female'), 0)  AS female,
           coalesce(sum(coalesce(gender_confidence, 1)) FILTER (WHERE gender = 'unknown'), 0) AS unknown
    FROM detections
    WHERE timestamp >= $1 AND timestamp < $2
      AND ($3::text IS NULL OR camera_id = $3)
      AND ($4::text IS NULL OR session_id = $4)
    GROUP BY 1, session_id, camera_id, track_id
), people AS (
    SELECT seen.start, camera_id, track_id, detections,
           coalesce(tracks.gender, CASE
               WHEN male > female AND male > unknown THEN 'male'
               WHEN female > male AND female > unknown THEN 'female'
               ELSE 'unknown' END) AS gender
    FROM seen
    LEFT JOIN tracks USING (session_id, camera_id, track_id)
)
SELECT start, camera_id,
       count(track_id),
       count(track_id) FILTER (WHERE gender = 'male'),
       count(track_id) FILTER (WHERE gender = 'female'),
       count(track_id) FILTER (WHERE gender = 'unknown'),
       sum(detections)::bigint
FROM people
GROUP BY start, camera_id
ORDER BY start, camera_id";

const ARRIVED: &str = "
SELECT CASE WHEN $5 = 'all' THEN NULL ELSE date_trunc($5, start_time, 'UTC') END AS start, camera_id,
       count(*),
       count(*) FILTER (WHERE gender = 'male'),
       count(*) FILTER (WHERE gender = 'female'),
       count(*) FILTER (WHERE gender = 'unknown' OR gender IS NULL),
       least(sum(detection_count), 9223372036854775807)::bigint
FROM tracks
WHERE start_time >= $1 AND start_time < $2
  AND ($3::text IS NULL OR camera_id = $3)
  AND ($4::text IS NULL OR session_id = $4)
GROUP BY 1, camera_id
ORDER BY 1, camera_id";

impl Store {
    /// Counts people by camera and span.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn demographics(
        &mut self,
        range: Range<DateTime<Utc>>,
        bucket: Bucket,
        filter: &DemographicsFilter,
    ) -> Result<Vec<Demographics>, StoreError> {
        let (query, table) = match filter.counted {
            Counted::Seen => (SEEN, "detections"),
            Counted::Arrived => (ARRIVED, "tracks"),
        };
        let connection = self.begin().await?;
        let done = within("count people", self.limit(), async {
            connection
                .client
                .query(
                    query,
                    &[
                        &range.start,
                        &range.end,
                        &filter.camera_id,
                        &filter.session_id,
                        &bucket.as_str(),
                    ],
                )
                .await
                .map_err(StoreError::statement(format!("count people in `{table}`")))
        })
        .await;
        let rows = self.end(connection, done)?;
        Ok(rows
            .iter()
            .map(|row| Demographics {
                start: row.get(0),
                camera_id: row.get(1),
                people: row.get(2),
                male: row.get(3),
                female: row.get(4),
                unknown: row.get(5),
                detections: row.get(6),
            })
            .collect())
    }
}
