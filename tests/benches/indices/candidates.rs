//! The tables that are compared: their columns and their indices.

use passerby_tests::benching::History;
use tokio_postgres::Client;

/// Which columns a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Columns {
    /// One table with a number of its own for each row and double precision, as it often is.
    Plain,
    /// Passerby's.
    Texts,
    /// Passerby's, with cameras and sessions as numbers that tables of their own explain.
    Numbers,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) columns: Columns,
    pub(crate) indices: &'static [&'static str],
}

const BRIN_TIME: &str = "USING brin (timestamp) WITH (pages_per_range = 32, autosummarize = on)";
const BRIN_TIME_OF_8_PAGES: &str =
    "USING brin (timestamp) WITH (pages_per_range = 8, autosummarize = on)";
const BRIN_TIME_OF_16_PAGES: &str =
    "USING brin (timestamp) WITH (pages_per_range = 16, autosummarize = on)";
const BLOOM_TRACK: &str =
    "USING brin (track_id int8_bloom_ops) WITH (pages_per_range = 32, autosummarize = on)";
const BLOOM_CAMERA: &str =
    "USING brin (camera_id text_bloom_ops) WITH (pages_per_range = 32, autosummarize = on)";
const MULTI_TIME: &str = "USING brin (timestamp timestamptz_minmax_multi_ops) \
                          WITH (pages_per_range = 32, autosummarize = on)";
const MULTI_TRACK: &str = "USING brin (track_id int8_minmax_multi_ops) \
                           WITH (pages_per_range = 32, autosummarize = on)";
/// A minute has many rows, and a B-tree keeps a key with many rows once.
pub(crate) const MINUTE: &str = "date_bin('1 minute', timestamp, '2000-01-01 00:00:00+00')";
const CAMERA_MINUTE: &str =
    "(camera_id, date_bin('1 minute', timestamp, '2000-01-01 00:00:00+00'))";
const CAMERA_NO_MINUTE: &str =
    "(camera_no, date_bin('1 minute', timestamp, '2000-01-01 00:00:00+00'))";

const fn texts(name: &'static str, indices: &'static [&'static str]) -> Candidate {
    Candidate {
        name,
        columns: Columns::Texts,
        indices,
    }
}

const fn numbers(name: &'static str, indices: &'static [&'static str]) -> Candidate {
    Candidate {
        name,
        columns: Columns::Numbers,
        indices,
    }
}

pub(crate) const CANDIDATES: &[Candidate] = &[
    Candidate {
        name: "one plain table: PK(id), timestamp, camera, track, session, (camera, timestamp)",
        columns: Columns::Plain,
        indices: &[
            "(timestamp)",
            "(camera_id)",
            "(track_id)",
            "(session_id)",
            "(camera_id, timestamp)",
        ],
    },
    texts("none", &[]),
    texts(
        "brin timestamp, bloom track, (camera, timestamp)",
        &[BRIN_TIME, BLOOM_TRACK, "(camera_id, timestamp)"],
    ),
    texts(
        "(timestamp), (camera), (track)",
        &["(timestamp)", "(camera_id)", "(track_id)"],
    ),
    texts("(camera, timestamp)", &["(camera_id, timestamp)"]),
    texts("brin timestamp", &[BRIN_TIME]),
    texts(
        "brin timestamp, bloom camera, bloom track",
        &[BRIN_TIME, BLOOM_CAMERA, BLOOM_TRACK],
    ),
    texts(
        "brin multi timestamp, multi track, bloom camera",
        &[MULTI_TIME, MULTI_TRACK, BLOOM_CAMERA],
    ),
    texts(
        "brin timestamp, (camera), (session, track)",
        &[BRIN_TIME, "(camera_id)", "(session_id, track_id)"],
    ),
    texts(
        "Passerby's: brin timestamp, (session, track)",
        &[BRIN_TIME, "(session_id, track_id)"],
    ),
    texts(
        "brin timestamp of 8 pages, (session, track)",
        &[BRIN_TIME_OF_8_PAGES, "(session_id, track_id)"],
    ),
    texts(
        "brin timestamp of 16 pages, (session, track)",
        &[BRIN_TIME_OF_16_PAGES, "(session_id, track_id)"],
    ),
    texts(
        "brin timestamp, (track, session)",
        &[BRIN_TIME, "(track_id, session_id)"],
    ),
    texts("brin timestamp, (track)", &[BRIN_TIME, "(track_id)"]),
    texts("brin timestamp, (session)", &[BRIN_TIME, "(session_id)"]),
    texts(
        "brin timestamp, (hash of session and track)",
        &[BRIN_TIME, "(hashtextextended(session_id, track_id))"],
    ),
    texts(
        "brin timestamp, (camera, timestamp), (session, track)",
        &[
            BRIN_TIME,
            "(camera_id, timestamp)",
            "(session_id, track_id)",
        ],
    ),
    texts(
        "brin timestamp, (camera, minute), (session, track)",
        &[BRIN_TIME, CAMERA_MINUTE, "(session_id, track_id)"],
    ),
    texts(
        "brin timestamp, (camera, minute), (track)",
        &[BRIN_TIME, CAMERA_MINUTE, "(track_id)"],
    ),
    numbers("numbers: none", &[]),
    numbers(
        "numbers: brin timestamp, bloom track, (camera, timestamp)",
        &[BRIN_TIME, BLOOM_TRACK, "(camera_no, timestamp)"],
    ),
    numbers(
        "numbers: brin timestamp, (session, track)",
        &[BRIN_TIME, "(session_no, track_id)"],
    ),
    numbers(
        "numbers: brin timestamp, (camera, timestamp), (session, track)",
        &[
            BRIN_TIME,
            "(camera_no, timestamp)",
            "(session_no, track_id)",
        ],
    ),
    numbers(
        "numbers: brin timestamp, (camera, minute), (session, track)",
        &[BRIN_TIME, CAMERA_NO_MINUTE, "(session_no, track_id)"],
    ),
];

impl Columns {
    /// Names, types and whether they may be NULL, and where their values come from.
    fn all(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Self::Plain => &[
                ("timestamp", "timestamptz NOT NULL", "timestamp"),
                ("session_id", "text NOT NULL", "session_id"),
                ("camera_id", "text NOT NULL", "camera_id"),
                ("channel_id", "integer NOT NULL", "channel_id"),
                ("detection_id", "bigint NOT NULL", "detection_id"),
                ("track_id", "bigint", "track_id"),
                ("confidence", "double precision", "confidence::float8"),
                ("bbox_x", "double precision NOT NULL", "bbox_x::float8"),
                ("bbox_y", "double precision NOT NULL", "bbox_y::float8"),
                (
                    "bbox_width",
                    "double precision NOT NULL",
                    "bbox_width::float8",
                ),
                (
                    "bbox_height",
                    "double precision NOT NULL",
                    "bbox_height::float8",
                ),
                ("gender", "text", "gender"),
                (
                    "gender_confidence",
                    "double precision",
                    "gender_confidence::float8",
                ),
                ("frame_number", "bigint NOT NULL", "frame_number"),
            ],
            Self::Texts => &[
                ("timestamp", "timestamptz NOT NULL", "timestamp"),
                ("detection_id", "bigint NOT NULL", "detection_id"),
                ("track_id", "bigint", "track_id"),
                ("frame_number", "bigint NOT NULL", "frame_number"),
                ("channel_id", "integer NOT NULL", "channel_id"),
                ("confidence", "real", "confidence"),
                ("bbox_x", "real NOT NULL", "bbox_x"),
                ("bbox_y", "real NOT NULL", "bbox_y"),
                ("bbox_width", "real NOT NULL", "bbox_width"),
                ("bbox_height", "real NOT NULL", "bbox_height"),
                ("gender_confidence", "real", "gender_confidence"),
                ("degraded", "boolean NOT NULL", "degraded"),
                ("gender", "text", "gender"),
                ("camera_id", "text NOT NULL", "camera_id"),
                ("session_id", "text NOT NULL", "session_id"),
            ],
            Self::Numbers => &[
                ("timestamp", "timestamptz NOT NULL", "timestamp"),
                ("detection_id", "bigint NOT NULL", "detection_id"),
                ("track_id", "bigint", "track_id"),
                ("frame_number", "bigint NOT NULL", "frame_number"),
                ("camera_no", "integer NOT NULL", "camera_no"),
                ("session_no", "integer NOT NULL", "session_no"),
                ("channel_id", "integer NOT NULL", "channel_id"),
                ("confidence", "real", "confidence"),
                ("bbox_x", "real NOT NULL", "bbox_x"),
                ("bbox_y", "real NOT NULL", "bbox_y"),
                ("bbox_width", "real NOT NULL", "bbox_width"),
                ("bbox_height", "real NOT NULL", "bbox_height"),
                ("gender_confidence", "real", "gender_confidence"),
                ("degraded", "boolean NOT NULL", "degraded"),
                ("gender", "\"char\"", "left(gender, 1)::\"char\""),
            ],
        }
    }

    pub(crate) fn names(self) -> String {
        let names: Vec<_> = self.all().iter().map(|(name, ..)| *name).collect();
        names.join(", ")
    }

    pub(crate) fn values(self) -> String {
        let values: Vec<_> = self.all().iter().map(|(.., value)| *value).collect();
        values.join(", ")
    }

    /// A condition on the column, for a camera or a session by its name.
    pub(crate) fn is(self, what: &str, parameter: usize) -> String {
        if self == Self::Numbers {
            return format!(
                "{what}_no = (SELECT {what}_no FROM {what}s_by_no WHERE {what}_id = ${parameter})"
            );
        }
        format!("{what}_id = ${parameter}")
    }

    /// The column, or the columns, that tell who it is.
    pub(crate) fn of(self, what: &str) -> String {
        let end = if self == Self::Numbers { "no" } else { "id" };
        format!("{what}_{end}")
    }
}

impl Candidate {
    /// By its name, or by a part of it that is nobody's name.
    pub(crate) fn is_meant_by(&self, text: &str) -> bool {
        let is_a_name = CANDIDATES.iter().any(|candidate| candidate.name == text);
        self.name == text || (!is_a_name && self.name.contains(text))
    }

    pub(crate) async fn create(&self, client: &Client, history: History) {
        let own = if self.columns == Columns::Plain {
            "id bigserial PRIMARY KEY, created_at timestamptz DEFAULT now(), metadata jsonb, "
        } else {
            ""
        };
        let columns: Vec<_> = self
            .columns
            .all()
            .iter()
            .map(|(name, kind, _)| format!("{name} {kind}"))
            .collect();
        let is_partitioned = self.columns != Columns::Plain;
        let mut sql = format!(
            "CREATE TABLE candidate ({own}{}){};",
            columns.join(", "),
            if is_partitioned {
                " PARTITION BY RANGE (timestamp)"
            } else {
                ""
            }
        );
        for index in self.indices {
            sql.push_str(&format!("CREATE INDEX ON candidate {index};"));
        }
        for day in 0..if is_partitioned { history.days } else { 0 } {
            let (from, to) = (history.midnight(day), history.midnight(day + 1));
            sql.push_str(&format!(
                "CREATE TABLE candidate_{day} PARTITION OF candidate
                     FOR VALUES FROM ('{}') TO ('{}');",
                from.to_rfc3339(),
                to.to_rfc3339()
            ));
        }
        client.batch_execute(&sql).await.unwrap();
    }
}
