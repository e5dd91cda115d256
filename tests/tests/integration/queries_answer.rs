//! What is stored can be asked for, by people and by programs, in numbers that are known beforehand.

use chrono::{DateTime, TimeDelta, Utc};
use passerby_shared::{Detection, Gender, Track};
use passerby_tests::{Env, Passerby, fixtures};

fn at(time: &str) -> DateTime<Utc> {
    format!("2026-03-01T{time}Z").parse().unwrap()
}

fn detection(id: i64, camera_id: &str, time: &str, track_id: Option<i64>) -> Detection {
    Detection {
        timestamp: at(time),
        session_id: "morning".to_owned(),
        camera_id: camera_id.to_owned(),
        channel_id: 1,
        detection_id: id,
        track_id,
        confidence: Some(0.5),
        bbox_x: 1.5,
        bbox_y: -2.0,
        bbox_width: 3.25,
        bbox_height: 4.0,
        gender: None,
        gender_confidence: None,
        frame_number: 10 * id,
        degraded: false,
    }
}

fn track(camera_id: &str, track_id: i64, time: &str, gender: Gender) -> Track {
    Track {
        session_id: "morning".to_owned(),
        camera_id: camera_id.to_owned(),
        start_time: at(time),
        end_time: at(time) + TimeDelta::seconds(2),
        detection_count: 2,
        gender: Some(gender),
        gender_confidence: Some(0.75),
        ..fixtures::track(track_id, 1)
    }
}

/// A man and a woman before one camera, an hour apart; somebody before the other, and a detection on
/// no track.
async fn known_data() -> Env {
    let env = Env::start().await;
    let mut store = env.store().await;
    let mut rows = vec![
        detection(1, "gate-1", "08:00:00", Some(7)),
        detection(2, "gate-1", "08:00:02.000001", Some(7)),
        detection(3, "gate-1", "08:30:00", None),
        detection(4, "gate-2", "08:59:59.999999", Some(7)),
        detection(5, "gate-1", "09:00:00", Some(8)),
    ];
    rows[0].confidence = None;
    rows[4].gender = Some(Gender::Female);
    store.insert_detections(&rows).await.unwrap();
    let tracks = [
        track("gate-1", 7, "08:00:00", Gender::Male),
        track("gate-1", 8, "09:00:00", Gender::Female),
    ];
    store.bulk_upsert_tracks(&tracks).await.unwrap();
    env
}

async fn query(env: &Env, args: &[&str]) -> String {
    let args = [&["query"], args].concat();
    Passerby::on(env).run(&args).await.ok()
}

/// The detection ids that a query of detections finds, in its order.
async fn found(env: &Env, args: &[&str]) -> Vec<i64> {
    let args = [&["query", "detections", "--json"], args].concat();
    let rows = Passerby::on(env).run(&args).await.json_lines();
    rows.iter()
        .map(|row| row["detection_id"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn detections_are_found_by_time_camera_session_and_track() {
    let env = known_data().await;
    assert_eq!(found(&env, &[]).await, [1, 2, 3, 4, 5]);
    let checks: [(&[&str], &[i64]); 8] = [
        (&["--from", "2026-03-01T08:30:00Z"], &[3, 4, 5]),
        (&["--to", "2026-03-01T09:00:00Z"], &[1, 2, 3, 4]),
        (&["--camera-id", "gate-1"], &[1, 2, 3, 5]),
        (&["--track-id", "7"], &[1, 2, 4]),
        (&["--track-id", "7", "--camera-id", "gate-2"], &[4]),
        (&["--limit", "2"], &[1, 2]),
        (&["--session-id", "evening"], &[]),
        (&["--last", "1m"], &[]),
    ];
    for (args, expected) in checks {
        assert_eq!(found(&env, args).await, expected, "{args:?}");
    }
}

#[tokio::test]
async fn detections_are_shown_as_table_csv_and_json() {
    let env = known_data().await;
    assert_eq!(
        query(&env, &["detections", "--limit", "3"]).await,
        "\
timestamp                session id  camera id  channel id  detection id  track id  confidence  bbox x  bbox y  bbox width  bbox height  gender  gender confidence  frame number  degraded
──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
2026-03-01 08:00:00.000  morning     gate-1              1             1         7           -    1.50   -2.00        3.25         4.00  -                       -            10  no
2026-03-01 08:00:02.000  morning     gate-1              1             2         7        0.50    1.50   -2.00        3.25         4.00  -                       -            20  no
2026-03-01 08:30:00.000  morning     gate-1              1             3         -        0.50    1.50   -2.00        3.25         4.00  -                       -            30  no
"
    );
    assert_eq!(
        query(&env, &["detections", "--csv", "--track-id", "7"]).await,
        "\
timestamp,session_id,camera_id,channel_id,detection_id,track_id,confidence,bbox_x,bbox_y,bbox_width,bbox_height,gender,gender_confidence,frame_number,degraded
2026-03-01T08:00:00.000000Z,morning,gate-1,1,1,7,,1.5,-2,3.25,4,,,10,false
2026-03-01T08:00:02.000001Z,morning,gate-1,1,2,7,0.5,1.5,-2,3.25,4,,,20,false
2026-03-01T08:59:59.999999Z,morning,gate-2,1,4,7,0.5,1.5,-2,3.25,4,,,40,false
"
    );
    assert_eq!(
        query(&env, &["detections", "--json", "--track-id", "8"]).await,
        "\
{\"timestamp\":\"2026-03-01T09:00:00.000000Z\",\"session_id\":\"morning\",\"camera_id\":\"gate-1\",\
\"channel_id\":1,\"detection_id\":5,\"track_id\":8,\"confidence\":0.5,\"bbox_x\":1.5,\"bbox_y\":-2.0,\
\"bbox_width\":3.25,\"bbox_height\":4.0,\"gender\":\"female\",\"gender_confidence\":null,\
\"frame_number\":50,\"degraded\":false}
"
    );
}

#[tokio::test]
async fn tracks_are_shown_as_table_csv_and_json() {
    let env = known_data().await;
    assert_eq!(
        query(&env, &["tracks"]).await,
        "\
session id  camera id  track id  start time               end time                 detection count  avg confidence  gender  gender confidence  trajectory points
────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
morning     gate-1            7  2026-03-01 08:00:00.000  2026-03-01 08:00:02.000                2            0.75  male                 0.75                  1
morning     gate-1            8  2026-03-01 09:00:00.000  2026-03-01 09:00:02.000                2            0.75  female               0.75                  1
"
    );
    let later = ["tracks", "--json", "--from", "2026-03-01T08:30:00Z"];
    assert_eq!(
        query(&env, &later).await,
        query(&env, &["tracks", "--json", "--track-id", "8"]).await,
    );
    assert_eq!(
        query(&env, &["tracks", "--csv", "--limit", "1"]).await,
        "\
session_id,camera_id,track_id,start_time,end_time,detection_count,avg_confidence,gender,gender_confidence,trajectory_points
morning,gate-1,7,2026-03-01T08:00:00.000000Z,2026-03-01T08:00:02.000000Z,2,0.75,male,0.75,1
"
    );
    assert_eq!(
        query(&env, &["tracks", "--json", "--track-id", "8"]).await,
        "\
{\"session_id\":\"morning\",\"camera_id\":\"gate-1\",\"track_id\":8,\
\"start_time\":\"2026-03-01T09:00:00.000000Z\",\"end_time\":\"2026-03-01T09:00:02.000000Z\",\
\"detection_count\":2,\"avg_confidence\":0.75,\"gender\":\"female\",\"gender_confidence\":0.75,\
\"trajectory_points\":1}
"
    );
}

#[tokio::test]
async fn demographics_are_shown_as_table_csv_and_json() {
    let env = known_data().await;
    assert_eq!(
        query(&env, &["demographics"]).await,
        "\
start                    camera id  people  male  female  unknown  detections
─────────────────────────────────────────────────────────────────────────────
2026-03-01 08:00:00.000  gate-1          1     1       0        0           3
2026-03-01 08:00:00.000  gate-2          1     0       0        1           1
2026-03-01 09:00:00.000  gate-1          1     0       1        0           1
"
    );
    assert_eq!(
        query(&env, &["demographics", "--csv", "--per", "all"]).await,
        "\
start,camera_id,people,male,female,unknown,detections
,gate-1,2,1,1,0,4
,gate-2,1,0,0,1,1
"
    );
    // Once each, where their tracks began: nobody reported one of the other camera.
    assert_eq!(
        query(&env, &["demographics", "--csv", "--count", "arrived"]).await,
        "\
start,camera_id,people,male,female,unknown,detections
2026-03-01T08:00:00.000000Z,gate-1,1,1,0,0,2
2026-03-01T09:00:00.000000Z,gate-1,1,0,1,0,2
"
    );
    let last_minute = [
        "demographics",
        "--json",
        "--per",
        "minute",
        "--from",
        "2026-03-01T08:59:00Z",
        "--to",
        "2026-03-01T09:00:00Z",
    ];
    assert_eq!(
        query(&env, &last_minute).await,
        "\
{\"start\":\"2026-03-01T08:59:00.000000Z\",\"camera_id\":\"gate-2\",\"people\":1,\"male\":0,\
\"female\":0,\"unknown\":1,\"detections\":1}
"
    );
}

#[tokio::test]
async fn nothing_found_is_said_in_a_table_and_is_empty_for_programs() {
    let env = known_data().await;
    for what in ["detections", "tracks", "demographics"] {
        let nowhere = [what, "--camera-id", "nowhere"];
        assert_eq!(query(&env, &nowhere).await, "no rows\n");
        assert_eq!(query(&env, &[&nowhere[..], &["--json"]].concat()).await, "");
        let csv = query(&env, &[&nowhere[..], &["--csv"]].concat()).await;
        assert_eq!(csv.lines().count(), 1, "{csv}");
    }
}

#[tokio::test]
async fn json_of_a_query_can_be_ingested_again() {
    let env = known_data().await;
    let printed = query(&env, &["detections", "--json"]).await;
    let copy = Env::start().await;

    let args = ["ingest", "-", "--db-enable"];
    let passerby = Passerby::on(&copy).stdin(printed.as_bytes());
    passerby.run(&args).await.ok();

    assert_eq!(query(&copy, &["detections", "--json"]).await, printed);
}

#[tokio::test]
async fn queries_of_a_schema_that_is_not_there_say_what_to_do() {
    let env = Env::with_empty_database().await;
    for what in ["detections", "tracks", "demographics"] {
        let failed = Passerby::on(&env).run(&["query", what]).await;
        failed.assert_one_error_line(&["does not exist", "passerby migrate"]);
    }
}

async fn n_tables(env: &Env) -> i64 {
    env.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        .await
}

#[tokio::test]
async fn migrate_says_what_it_would_do_does_it_and_then_has_nothing_to_do() {
    let env = Env::with_empty_database().await;
    let passerby = Passerby::on(&env);

    let would = passerby.run(&["migrate", "--dry-run"]).await.ok();
    assert!(would.starts_with("would apply "), "{would}");
    let would_json = passerby.run(&["migrate", "--dry-run", "--json"]).await;
    assert_eq!(n_tables(&env).await, 0);

    let done = passerby.run(&["migrate", "--json"]).await.json();
    assert_eq!(would_json.json(), done);
    assert!(done["from"].is_null(), "{done}");
    assert_eq!(
        i64::try_from(done["applied"].as_array().unwrap().len()).unwrap(),
        done["to"].as_i64().unwrap()
    );

    let made = n_tables(&env).await;
    let again = passerby.run(&["migrate"]).await.ok();
    let version = &done["to"];
    assert_eq!(again, format!("schema version {version}: nothing to do\n"));
    let again = passerby.run(&["migrate", "--json"]).await.json();
    assert_eq!(
        again,
        serde_json::json!({ "from": version, "to": version, "applied": [] })
    );
    assert_eq!(n_tables(&env).await, made);
    assert_eq!(query(&env, &["detections"]).await, "no rows\n");
}
