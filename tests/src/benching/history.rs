use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use tokio_postgres::Client;

/// Rows of a site that has run for some days, made by Postgres itself, in the order in which they would have
/// arrived.
///
/// Every camera is open from 8:00 to 20:00. Now and then two people cross its picture for ten seconds, at ten
/// frames a second: a burst of 200 rows, of two tracks with 100 each. Eight cameras see a burst at the same
/// time, and send it in entries of 25 rows, in turns. A session is a day of one camera; the numbers of its
/// tracks begin anew, as those of most trackers do.
#[derive(Debug, Clone, Copy)]
pub struct History {
    /// Rows of all days.
    pub rows: i64,
    /// Days, today the last.
    pub days: i64,
    /// Cameras.
    pub cameras: i64,
}

/// Bursts at the same time, and their rows.
const GROUP_BURSTS: i64 = 8;
const BURST_ROWS: i64 = 200;
const ENTRY_ROWS: i64 = 25;
const GROUP_ROWS: i64 = GROUP_BURSTS * BURST_ROWS;
const OPEN_US: i64 = 12 * 3_600 * 1_000_000;

/// One burst of one camera: where queries find something.
#[derive(Debug, Clone)]
pub struct Burst {
    /// When it begins.
    pub start: DateTime<Utc>,
    /// Of which camera.
    pub camera_id: String,
    /// In which session.
    pub session_id: String,
    /// The number of the first of its two tracks.
    pub track_id: i64,
}

impl History {
    /// Full days of whole groups: as many rows as asked for, or a few more.
    #[must_use]
    pub fn at_least(rows: i64, days: i64, cameras: i64) -> Self {
        let rows_a_day = (rows / days).max(1);
        let groups = (rows_a_day + GROUP_ROWS - 1) / GROUP_ROWS;
        Self {
            rows: groups * GROUP_ROWS * days,
            days,
            cameras,
        }
    }

    /// Rows of each day.
    #[must_use]
    pub fn rows_a_day(self) -> i64 {
        self.rows / self.days
    }

    /// Midnight (UTC) of a day, counted from the first.
    #[must_use]
    pub fn midnight(self, day: i64) -> DateTime<Utc> {
        let today = Utc::now().date_naive().and_time(NaiveTime::MIN).and_utc();
        today - TimeDelta::days(self.days - 1 - day)
    }

    /// A query of rows `first..end`, with the columns of `detections` by their names, and `n`.
    #[must_use]
    pub fn select(self, first: i64, end: i64) -> String {
        let Self { cameras, .. } = self;
        let groups_a_day = self.rows_a_day() / GROUP_ROWS;
        let spacing = OPEN_US / groups_a_day;
        let first_day = self.midnight(0).format("%Y-%m-%d %H:%M:%S+00");
        let noise = |salt: i64| {
            format!("((((n * 2654435761 + {salt} * 40503) % 16777216) / 16777216.0)::real)")
        };
        let [n1, n2, n3, n4, n5, n6] = [1, 2, 3, 4, 5, 6].map(noise);
        format!(
            "SELECT n,
                    day_start + (grp_of_day * {spacing} + r / 2 * 100000 + burst % {GROUP_BURSTS} * 12345)
                        * interval '1 microsecond' AS timestamp,
                    n AS detection_id,
                    burst_of_day / {cameras} * 2 + r % 2 + 1 AS track_id,
                    burst_of_day / {cameras} * 100 + r / 2 AS frame_number,
                    1 AS channel_id,
                    {n1} AS confidence,
                    (1920 * {n2})::real AS bbox_x,
                    (1080 * {n3})::real AS bbox_y,
                    (40 + 80 * {n4})::real AS bbox_width,
                    (90 + 200 * {n5})::real AS bbox_height,
                    {n6} AS gender_confidence,
                    false AS degraded,
                    CASE r % 2 WHEN 0 THEN 'male' ELSE 'female' END AS gender,
                    'camera-' || lpad((burst % {cameras})::text, 2, '0') AS camera_id,
                    day_text || 'T08:00-camera-' || lpad((burst % {cameras})::text, 2, '0') AS session_id,
                    (burst % {cameras})::int AS camera_no,
                    (day * {cameras} + burst % {cameras})::int AS session_no
             FROM (
                 SELECT n, day, r, burst,
                        n % {per_day} / {GROUP_ROWS} AS grp_of_day,
                        burst - day * {bursts_a_day} AS burst_of_day,
                        timestamptz '{first_day}' + (day * 24 + 8) * interval '1 hour' AS day_start,
                        to_char((timestamptz '{first_day}' + day * interval '24 hours') AT TIME ZONE 'UTC',
                                'YYYY-MM-DD') AS day_text
                 FROM (
                     SELECT n,
                            n / {per_day} AS day,
                            n / {GROUP_ROWS} * {GROUP_BURSTS}
                                + n % {GROUP_ROWS} / {ENTRY_ROWS} % {GROUP_BURSTS} AS burst,
                            n % {GROUP_ROWS} / {ENTRY_ROWS} / {GROUP_BURSTS} * {ENTRY_ROWS}
                                + n % {ENTRY_ROWS} AS r
                     FROM generate_series({first}::bigint, {end} - 1) AS n
                 ) AS numbers
             ) AS parts",
            per_day = self.rows_a_day(),
            bursts_a_day = groups_a_day * GROUP_BURSTS,
        )
    }

    /// How many bursts there are.
    #[must_use]
    pub fn n_bursts(self) -> i64 {
        self.rows / BURST_ROWS
    }

    /// One of them, as [`History::select`] makes it.
    #[must_use]
    pub fn burst(self, burst: i64) -> Burst {
        let groups_a_day = self.rows_a_day() / GROUP_ROWS;
        let bursts_a_day = groups_a_day * GROUP_BURSTS;
        let (day, of_day) = (burst / bursts_a_day, burst % bursts_a_day);
        let midnight = self.midnight(day);
        let camera = burst % self.cameras;
        let us = of_day / GROUP_BURSTS * (OPEN_US / groups_a_day) + burst % GROUP_BURSTS * 12_345;
        Burst {
            start: midnight + TimeDelta::hours(8) + TimeDelta::microseconds(us),
            camera_id: format!("camera-{camera:02}"),
            session_id: format!("{}T08:00-camera-{camera:02}", midnight.format("%Y-%m-%d")),
            track_id: of_day / self.cameras * 2 + 1,
        }
    }

    /// Some bursts, spread over all days, others for each `salt`.
    pub fn some_bursts(self, how_many: i64, salt: i64) -> impl Iterator<Item = Burst> {
        (0..how_many).map(move |nth| {
            let hash = (nth * 1_000_003 + salt + 1).wrapping_mul(0x2545_F491_4F6C_DD1D);
            self.burst((hash >> 8).rem_euclid(self.n_bursts()))
        })
    }

    /// Fills `detections` of Passerby's schema, `sessions` and, where it is asked for, `tracks`, as the rows
    /// would stand there, and has everything done that autovacuum would have done.
    pub async fn store(self, client: &Client) {
        for day in 0..self.days {
            self.store_day(client, day).await;
        }
        client
            .batch_execute(
                "INSERT INTO sessions (session_id)
                 SELECT DISTINCT session_id FROM tracks
                 ON CONFLICT DO NOTHING",
            )
            .await
            .unwrap();
        settle(client, "detections, tracks, sessions").await;
    }

    /// Makes the partition of one day anew, and stores its rows.
    pub async fn store_day(self, client: &Client, day: i64) {
        let midnight = self.midnight(day);
        let partition = format!("detections_p{}", midnight.format("%Y%m%d"));
        let select = self.select(day * self.rows_a_day(), (day + 1) * self.rows_a_day());
        let (from, to) = (
            midnight.to_rfc3339(),
            (midnight + Days::new(1)).to_rfc3339(),
        );
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS {partition};
                 CREATE TABLE {partition} PARTITION OF detections FOR VALUES FROM ('{from}') TO ('{to}');
                 INSERT INTO {partition} ({COLUMNS}) SELECT {COLUMNS} FROM ({select}) AS rows;
                 INSERT INTO tracks (session_id, camera_id, track_id, start_time, end_time,
                                     detection_count, avg_confidence, gender, degraded, trajectory)
                 SELECT session_id, camera_id, track_id, min(timestamp), max(timestamp),
                        count(*), avg(confidence), min(gender), false, '[]'
                 FROM {partition}
                 GROUP BY session_id, camera_id, track_id
                 ON CONFLICT DO NOTHING"
            ))
            .await
            .unwrap();
    }
}

/// The columns of `detections`, in their order.
const COLUMNS: &str = "timestamp, detection_id, track_id, frame_number, channel_id, confidence, bbox_x, \
                       bbox_y, bbox_width, bbox_height, gender_confidence, degraded, gender, camera_id, \
                       session_id";

/// Has everything done that autovacuum would have done to tables, and written to disk.
pub async fn settle(client: &Client, tables: &str) {
    // Several statements at once would be one transaction, which VACUUM must not be in.
    let vacuum = format!("VACUUM (ANALYZE) {tables}");
    client.batch_execute(&vacuum).await.unwrap();
    client.batch_execute("CHECKPOINT").await.unwrap();
}

/// The bytes of a table and of its partitions, with their indices.
pub async fn bytes_of(client: &Client, table: &str) -> i64 {
    let sql = "SELECT sum(pg_total_relation_size(relid))::bigint
               FROM (SELECT $1::text::regclass UNION
                     SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::text::regclass)
                    AS all_of_it (relid)";
    client.query_one(sql, &[&table]).await.unwrap().get(0)
}
