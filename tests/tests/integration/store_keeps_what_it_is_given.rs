use chrono::{DateTime, TimeDelta, Utc};
use futures_util::TryStreamExt;
use passerby_consumer::store::{
    Bucket, DatabaseUrl, DemographicsFilter, DetectionFilter, SourceRecord, SourceState, Store,
    StoreError, TrackFilter,
};
use passerby_shared::{Detection, Gender};
use passerby_tests::{
    Env,
    fixtures::{CAMERA, MIDNIGHT, SESSION, detection, detections, key, track},
};
use proptest::{collection::vec, option, prelude::*, test_runner::TestRunner};
use tokio::sync::Mutex;

async fn query(store: &mut Store, filter: &DetectionFilter) -> Vec<Detection> {
    let ever = "2000-01-01T00:00:00Z".parse().unwrap().."2100-01-01T00:00:00Z".parse().unwrap();
    let rows = store.query_detections_by_time(ever, filter).await.unwrap();
    rows.try_collect().await.unwrap()
}

/// Any text of 1…64 bytes that Postgres can hold.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9-]{1,64}",
        "[^\\x00]{1,16}".prop_map(|text| text.chars().take(16).collect()),
    ]
}

/// Any time of a few days at the edges of what is allowed and in between.
fn time() -> impl Strategy<Value = DateTime<Utc>> {
    let days = prop_oneof![
        Just("2000-01-01T00:00:00Z"),
        Just("2024-02-29T00:00:00Z"),
        Just("2026-11-22T00:00:00Z"),
        Just("2099-12-31T00:00:00Z"),
    ];
    (days, 0..86_400_000_000_i64).prop_map(|(day, micros)| {
        day.parse::<DateTime<Utc>>().unwrap() + TimeDelta::microseconds(micros)
    })
}

fn fraction() -> impl Strategy<Value = f32> {
    prop_oneof![0.0..=1.0_f32, Just(0.0), Just(1.0), Just(f32::MIN_POSITIVE)]
}

fn any_finite() -> impl Strategy<Value = f32> {
    use proptest::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO
}

prop_compose! {
    fn any_detection()(
        (timestamp, session_id, camera_id) in (time(), id(), id()),
        channel_id in any::<i32>(),
        (track_id, frame_number) in (option::of(any::<i64>()), any::<i64>()),
        (confidence, gender_confidence) in (option::of(fraction()), option::of(fraction())),
        (bbox_x, bbox_y) in (any_finite(), any_finite()),
        (bbox_width, bbox_height) in (any_finite(), any_finite()),
        gender in option::of(prop::sample::select(&[Gender::Male, Gender::Female, Gender::Unknown])),
        degraded in any::<bool>(),
    ) -> Detection {
        Detection {
            timestamp, session_id, camera_id, channel_id, detection_id: 0, track_id, confidence,
            bbox_x, bbox_y, bbox_width: bbox_width.abs(), bbox_height: bbox_height.abs(),
            gender, gender_confidence, frame_number, degraded,
        }
    }
}

/// What COPY was given is what Postgres holds, for rows of any valid values.
#[test]
fn rows_are_read_back_as_they_went_in() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let env = runtime.block_on(Env::start());
    let store = Mutex::new(runtime.block_on(env.store()));
    let config = ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&vec(any_detection(), 1..60), |mut rows| {
            for (row, number) in rows.iter_mut().zip(0..) {
                row.detection_id = number;
            }
            let mut stored = runtime.block_on(async {
                let store = &mut *store.lock().await;
                env.execute("TRUNCATE detections").await;
                let n = store.insert_detections(&rows).await.unwrap();
                assert_eq!(n, rows.len() as u64);
                query(store, &DetectionFilter::default()).await
            });
            stored.sort_by_key(|row| row.detection_id);
            prop_assert_eq!(stored, rows);
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn entries_inserted_twice_are_stored_once() {
    let env = Env::start().await;
    let mut store = env.store().await;
    let (a, b, c) = (detections(0..10), detections(10..20), detections(20..30));
    let entries = [(key(1), a.as_slice()), (key(2), b.as_slice())];
    let first = store.insert_entries_once(&entries).await.unwrap();
    let again = store.insert_entries_once(&entries).await.unwrap();
    let more = [entries[1], (key(3), c.as_slice())];
    let overlapping = store.insert_entries_once(&more).await.unwrap();

    assert_eq!((first.entries, first.detections), (2, 20));
    assert_eq!((again.duplicates, again.detections), (2, 0));
    assert_eq!((overlapping.entries, overlapping.duplicates), (1, 1));
    env.assert_stored_once(30).await;
    let known = store.count_in_ledger(&[key(1), key(3), key(9)]).await;
    assert_eq!(known.unwrap(), 2);
}

#[tokio::test]
async fn an_invalid_row_is_named_and_nothing_is_stored() {
    let env = Env::start().await;
    let mut rows = detections(0..10);
    rows[7].confidence = Some(2.0);

    let error = env
        .store()
        .await
        .insert_detections(&rows)
        .await
        .unwrap_err();

    assert!(matches!(error, StoreError::Invalid { row_idx: 7, .. }));
    let text = passerby_shared::ErrorChain(&error).to_string();
    assert_eq!(text, "row 7: confidence: 2 is outside 0…1");
    assert_eq!(env.n_rows().await, 0);
}

#[tokio::test]
async fn filters_pick_by_camera_session_track_and_time() {
    let env = Env::start().await;
    let mut store = env.store().await;
    let mut rows = detections(0..40);
    for row in &mut rows[10..20] {
        row.camera_id = "gate-2".to_owned();
    }
    for row in &mut rows[20..30] {
        row.session_id = "session-2".to_owned();
    }
    store.insert_detections(&rows).await.unwrap();
    let picked = async |store: &mut Store, filter: DetectionFilter| -> Vec<i64> {
        let rows = query(store, &filter).await;
        rows.iter().map(|row| row.detection_id).collect()
    };

    let filter = DetectionFilter::camera("gate-2");
    assert_eq!(picked(&mut store, filter).await, Vec::from_iter(10..20));
    let filter = DetectionFilter {
        session_id: Some("session-2".to_owned()),
        ..DetectionFilter::default()
    };
    assert_eq!(picked(&mut store, filter).await, Vec::from_iter(20..30));
    let filter = DetectionFilter {
        track_id: Some(3),
        limit: Some(2),
        ..DetectionFilter::camera(CAMERA)
    };
    assert_eq!(picked(&mut store, filter).await, [3, 24]);
    assert_eq!(
        picked(&mut store, DetectionFilter::camera("none")).await,
        [0; 0]
    );

    let second = TimeDelta::milliseconds(40 * 25);
    let range = *MIDNIGHT..*MIDNIGHT + second;
    let rows = store
        .query_detections_by_time(range, &DetectionFilter::default())
        .await
        .unwrap();
    let rows: Vec<Detection> = rows.try_collect().await.unwrap();
    assert_eq!(rows.len(), 25, "the end of the range is not in it");
    assert!(rows.is_sorted_by_key(|row| row.timestamp));
}

#[tokio::test]
async fn a_query_given_up_half_way_leaves_the_store_usable() {
    let env = Env::start().await;
    let mut store = env.store().await;
    store
        .insert_detections(&detections(0..5_000))
        .await
        .unwrap();
    {
        let ever = *MIDNIGHT..*MIDNIGHT + TimeDelta::days(1);
        let rows = store
            .query_detections_by_time(ever, &DetectionFilter::default())
            .await
            .unwrap();
        let mut rows = std::pin::pin!(rows);
        assert_eq!(rows.try_next().await.unwrap().unwrap(), detection(0));
    }

    store
        .insert_detections(&detections(5_000..5_010))
        .await
        .unwrap();

    env.assert_stored_once(5_010).await;
}

#[tokio::test]
async fn tracks_are_upserted_and_counted() {
    let env = Env::start().await;
    let mut store = env.store().await;
    assert!(store.upsert_track(&track(1, 10)).await.unwrap());
    assert!(!store.upsert_track(&track(1, 10)).await.unwrap());
    assert!(!store.upsert_track(&track(1, 5)).await.unwrap());
    assert!(store.upsert_track(&track(1, 20)).await.unwrap());

    let many = [track(1, 20), track(2, 10), track(3, 10), track(3, 11)];
    assert_eq!(store.bulk_upsert_tracks(&many).await.unwrap(), 2);
    assert_eq!(store.bulk_upsert_tracks(&many).await.unwrap(), 0);
    assert_eq!(store.bulk_upsert_tracks(&[]).await.unwrap(), 0);

    let filter = TrackFilter {
        camera_id: Some(CAMERA.to_owned()),
        track_id: Some(3),
        ..TrackFilter::default()
    };
    assert_eq!(store.query_tracks(&filter).await.unwrap(), [track(3, 11)]);
    let filter = TrackFilter {
        limit: Some(2),
        ..TrackFilter::default()
    };
    assert_eq!(store.query_tracks(&filter).await.unwrap().len(), 2);
}

#[tokio::test]
async fn demographics_count_people_by_camera_and_span() {
    let env = Env::start().await;
    let mut store = env.store().await;
    let mut rows = detections(0..70); // seven people, ten rows each
    for row in &mut rows[35..] {
        row.timestamp += TimeDelta::hours(2);
    }
    rows.push(Detection {
        track_id: None,
        camera_id: "gate-2".to_owned(),
        ..detection(70)
    });
    store.insert_detections(&rows).await.unwrap();
    let day = *MIDNIGHT..*MIDNIGHT + TimeDelta::days(1);
    let all = DemographicsFilter::default();

    let total = store
        .demographics(day.clone(), Bucket::All, &all)
        .await
        .unwrap();
    let found: Vec<_> = total
        .iter()
        .map(|d| {
            (
                &*d.camera_id,
                d.people,
                d.male,
                d.female,
                d.unknown,
                d.detections,
            )
        })
        .collect();
    assert_eq!(found, [(CAMERA, 7, 2, 2, 3, 70), ("gate-2", 0, 0, 0, 0, 1)]);

    let camera = DemographicsFilter {
        camera_id: Some(CAMERA.to_owned()),
        session_id: Some(SESSION.to_owned()),
        ..DemographicsFilter::default()
    };
    let hourly = store
        .demographics(day, Bucket::Hour, &camera)
        .await
        .unwrap();
    let starts: Vec<_> = hourly.iter().map(|d| (d.start, d.people)).collect();
    let hour = |n| Some(*MIDNIGHT + TimeDelta::hours(n));
    assert_eq!(starts, [(hour(0), 7), (hour(2), 7)]);
}

#[tokio::test]
async fn a_source_is_begun_once_and_finished_once() {
    let env = Env::start().await;
    let mut store = env.store().await;
    let source = SourceRecord {
        session_id: SESSION.to_owned(),
        digest: [7; 32],
        name: "street.txt".to_owned(),
        camera_id: CAMERA.to_owned(),
        channel_id: 1,
        fps: 25.0,
        start_time: *MIDNIGHT,
    };
    let later = SourceRecord {
        start_time: *MIDNIGHT + TimeDelta::hours(1),
        ..source.clone()
    };
    let begun = SourceState::Begun {
        start_time: *MIDNIGHT,
    };
    assert_eq!(
        store.begin_source(&source, false).await.unwrap(),
        SourceState::New
    );
    assert_eq!(store.begin_source(&later, false).await.unwrap(), begun);

    let refused = async |store: &mut Store, source: SourceRecord| {
        let error = store.begin_source(&source, true).await.unwrap_err();
        assert!(matches!(error, StoreError::Source(_)), "{error}");
        error.to_string()
    };
    let said = refused(&mut store, later).await;
    assert!(said.contains("starting at"), "{said}");
    let slower = SourceRecord {
        fps: 12.5,
        ..source.clone()
    };
    let said = refused(&mut store, slower).await;
    assert!(said.contains("with 25 frames a second"), "{said}");
    let edited = SourceRecord {
        digest: [8; 32],
        ..source.clone()
    };
    let said = refused(&mut store, edited).await;
    assert!(said.contains("with other content"), "{said}");

    store
        .finish_source(SESSION, &source.digest, 123)
        .await
        .unwrap();
    let finished = SourceState::Finished { n_rows: 123 };
    assert_eq!(store.begin_source(&source, true).await.unwrap(), finished);
    let elsewhere = SourceRecord {
        session_id: "session-2".to_owned(),
        ..source
    };
    assert_eq!(
        store.begin_source(&elsewhere, true).await.unwrap(),
        SourceState::New
    );
}

#[tokio::test]
async fn a_store_that_lost_its_connection_makes_a_new_one() {
    let env = Env::start().await;
    let (proxy, database_url): (_, DatabaseUrl) = env.postgres_proxy().await;
    let mut store = Store::connect(&database_url).await.unwrap();
    store.insert_detections(&detections(0..10)).await.unwrap();
    proxy.cut_all().await;

    // The first attempt may meet the dead connection, and says so instead of trying twice.
    let rows = detections(10..20);
    let entry = [(key(1), rows.as_slice())];
    if store.insert_entries_once(&entry).await.is_err() {
        store.insert_entries_once(&entry).await.unwrap();
    }

    env.assert_stored_once(20).await;
}
