//! `passerby top` as it looks, and as it does on live servers: a server that goes away is shown and is no
//! failure, and nothing is changed that was not confirmed.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use passerby::top::{Fetcher, List, Look, Model, Request, Source, Update, View, draw};
use passerby_consumer::{
    ops::{
        self, Balance, CameraArrivals, CameraSample, Dropped, Flow, FlowSource, PendingEntry,
        PendingReport, RedisStatus, StatusReport, StreamStatus, WorkerStatus,
    },
    presence::{WorkerPresence, WorkerState},
    store::{ReasonCount, StoreBooks},
};
use passerby_shared::books::{ProducerRecord, Stamped};
use passerby_tests::{
    Env, GROUP, Passerby, cmd_file, compare_with_file, eventually,
    fixtures::{detections, realistic_detections},
};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

const PLAIN: Look = Look {
    is_unicode: true,
    is_coloured: false,
};

fn now() -> DateTime<Utc> {
    "2000-01-01T03:00:00Z".parse().unwrap()
}

fn worker(name: &str, state: WorkerState, pending: u64, is_alive: bool) -> WorkerStatus {
    let mut told = WorkerPresence {
        group: GROUP.to_owned(),
        host: name.split('-').next().unwrap().to_owned(),
        pid: 4_711,
        state,
        last_commit_at: Some(now() - TimeDelta::milliseconds(340)),
        ..WorkerPresence::default()
    };
    if state == WorkerState::StoringNothing {
        told.storing_nothing_for = 42.0;
    }
    told.lately.seconds = 2.0;
    told.lately.detections = 24_690;
    WorkerStatus {
        consumer: name.to_owned(),
        presence: Some(Stamped {
            updated_ms: 0,
            told,
        }),
        is_alive,
        pending,
        oldest_pending_seconds: (pending > 0).then_some(2.5),
        oldest_pending_idle_seconds: (pending > 0).then_some(0.5),
        idle_seconds: Some(0.1),
    }
}

/// Three in the morning, and something is the matter.
fn report(second: i64) -> StatusReport {
    let at = now() - TimeDelta::seconds(10 - second);
    let stream = StreamStatus {
        stream: "passerby:stream:{0}".to_owned(),
        exists: true,
        has_group: true,
        length: 40_000,
        entries_added: None,
        bytes: Some(50_000_000),
        pending: 120,
        undelivered: 12_345,
        undelivered_is_exact: false,
        oldest_entry_id: None,
        oldest_seconds: 75.0,
        oldest_pending_seconds: 2.5,
    };
    StatusReport {
        at,
        took_ms: 4,
        group: GROUP.to_owned(),
        redis: Some(RedisStatus {
            url: "redis://127.0.0.1:6379/0".to_owned(),
            now_ms: 0,
            version: "redis 7.0.15".to_owned(),
            used_memory: 620 << 20,
            max_memory: Some(1 << 30),
            streams: vec![stream],
            workers: vec![
                worker("gate-1f2e3d4c", WorkerState::Reading, 100, true),
                worker("yard-5a6b7c8d", WorkerState::StoringNothing, 20, true),
                worker("roof-9e8f7a6b", WorkerState::Reading, 0, false),
            ],
            producers: BTreeMap::new(),
            producers_gone: ProducerRecord::default(),
            paused: None,
        }),
        redis_error: None,
        store: Some(StoreBooks {
            since: now(),
            began_empty: true,
            last_commit_at: Some(at),
            entries: 1_000_000,
            duplicates: 12,
            detections: 98_765_432,
            tracks: 0,
            sessions: 0,
            dead_rows: 17,
            rows_foreign: 0,
            rows_requeued: 0,
            rows_direct: 0,
            detections_dropped: 0,
            dead_letters: vec![ReasonCount {
                reason: "refused".to_owned(),
                written: 17,
                waiting: 5,
            }],
            now: at,
        }),
        store_error: None,
        balance: Some(Balance {
            accepted: 100_000_000,
            dropped: Dropped {
                oldest: 40,
                ..Dropped::default()
            },
            buffered: 1_200,
            settled: 98_765_449,
            in_stream: 1_233_311,
            ..Balance::default()
        }),
        flow: Some(Flow {
            source: FlowSource::Reported,
            seconds: 2.0,
            accepted_rows: 12_000.0,
            arriving_entries: 120.0 + 10.0 * second as f64,
            settled_entries: 118.0,
            stored_detections: 12_345.0,
            dead_letters: 0.0,
            drained_in_seconds: None,
            full_in_seconds: Some(10_800.0),
        }),
    }
}

fn model() -> Model {
    let mut model = Model::new(Duration::from_secs(1));
    for second in 0..10 {
        let mut report = report(second);
        // As if a server had been started anew each time: the rates are those that it tells.
        report.store.as_mut().unwrap().entries -= 1_000 * u64::try_from(second).unwrap();
        let [gate, yard, _] = &mut report.redis.as_mut().unwrap().workers[..] else {
            unreachable!("three workers")
        };
        let rate = |worker: &mut WorkerStatus, share: u64| {
            let told = &mut worker.presence.as_mut().unwrap().told;
            told.lately.detections = told.lately.detections * share / 10;
        };
        rate(gate, u64::try_from(second).unwrap() + 1);
        rate(yard, 9 - u64::try_from(second).unwrap());
        model.update(Update::Status(Box::new(report)));
    }
    let camera = |name: &str, rate: f64| CameraArrivals {
        camera_id: name.to_owned(),
        rows: 100,
        rows_per_second: rate,
        last_captured_at: Some(now() - TimeDelta::milliseconds(250)),
    };
    for second in 0..10 {
        let mut cameras = vec![
            camera("gate-1", 600.0 * f64::from(second + 1)),
            camera("gate-2", 3_000.0),
        ];
        // It is not heard of all the time.
        if second % 3 == 0 {
            cameras.push(camera("yard", 33.4));
        }
        model.update(Update::Cameras(Ok(CameraSample {
            entries: 40,
            seconds: 2.3,
            is_cut: true,
            cameras,
        })));
    }
    model
}

fn pending() -> PendingReport {
    let entry = |ms: u64, deliveries| PendingEntry {
        stream: "passerby:stream:{0}".to_owned(),
        entry_id: format!("{ms}-0").parse().unwrap(),
        consumer: "gate-1f2e3d4c".to_owned(),
        age_ms: 946_695_600_000 - ms,
        idle_ms: 500,
        delivery_count: deliveries,
        decoded: None,
        is_gone: deliveries > 1,
    };
    PendingReport {
        total: 1_234,
        entries: vec![entry(946_695_597_500, 1), entry(946_695_598_700, 3)],
        ..PendingReport::default()
    }
}

/// An hour when nobody is woken.
fn all_well() -> StatusReport {
    let mut well = report(10);
    let redis = well.redis.as_mut().unwrap();
    redis.workers.truncate(1);
    redis.workers[0].pending = 2;
    redis.streams[0].pending = 2;
    redis.streams[0].undelivered = 3;
    redis.streams[0].undelivered_is_exact = true;
    redis.streams[0].oldest_seconds = 0.04;
    redis.streams[0].oldest_pending_seconds = 0.04;
    well.store.as_mut().unwrap().dead_letters.clear();
    let flow = well.flow.as_mut().unwrap();
    flow.drained_in_seconds = Some(0.1);
    flow.full_in_seconds = None;
    well
}

/// Ten seconds later, and Redis is gone.
fn without_redis() -> StatusReport {
    StatusReport {
        at: now() + TimeDelta::seconds(10),
        redis: None,
        redis_error: Some(
            "connect to redis://127.0.0.1:6379/0: Connection refused (os error 111); is the server \
             running, and is the URL right?"
                .to_owned(),
        ),
        balance: None,
        flow: None,
        ..all_well()
    }
}

fn screen(model: &Model, at: DateTime<Utc>, look: Look, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, at, look)).unwrap();
    let drawn = terminal.backend().to_string();
    // Without the quotes that it puts around lines.
    let lines = drawn.lines().map(|line| {
        let line = line.strip_prefix('"').unwrap_or(line);
        line.strip_suffix('"').unwrap_or(line).trim_end()
    });
    lines.map(|line| format!("{line}\n")).collect()
}

fn key(model: &mut Model, code: KeyCode) -> Option<Request> {
    model.key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn screens_are_as_committed() {
    let mut all = String::new();
    let mut add = |title: &str, screen: String| {
        all.push_str(&format!("# {title}\n{screen}\n"));
    };
    let mut model = model();
    add(
        "80 columns, 24 lines",
        screen(&model, now(), PLAIN, (80, 24)),
    );
    add(
        "120 columns, 40 lines",
        screen(&model, now(), PLAIN, (120, 40)),
    );
    let ascii = Look {
        is_unicode: false,
        is_coloured: false,
    };
    add("ASCII alone", screen(&model, now(), ascii, (80, 24)));
    add(
        "nobody has answered for half a minute",
        screen(&model, now() + TimeDelta::seconds(30), PLAIN, (80, 24)),
    );
    add(
        "40 columns, 10 lines",
        screen(&model, now(), PLAIN, (40, 10)),
    );
    assert_eq!(key(&mut model, KeyCode::Char('p')), None);
    add("a question", screen(&model, now(), PLAIN, (80, 24)));
    add(
        "a question, 40 columns, 10 lines",
        screen(&model, now(), PLAIN, (40, 10)),
    );
    add("a question, ASCII", screen(&model, now(), ascii, (60, 16)));
    key(&mut model, KeyCode::Esc);
    add("not answered", screen(&model, now(), PLAIN, (80, 24)));
    key(&mut model, KeyCode::Char('?'));
    add("help", screen(&model, now(), PLAIN, (80, 24)));
    key(&mut model, KeyCode::Esc);
    key(&mut model, KeyCode::Char('e'));
    model.update(Update::Pending(Ok(pending())));
    key(&mut model, KeyCode::Char('j'));
    add("pending entries", screen(&model, now(), PLAIN, (80, 10)));
    add("in 40 columns", screen(&model, now(), PLAIN, (40, 10)));
    key(&mut model, KeyCode::Enter);
    add("one of them", screen(&model, now(), PLAIN, (80, 12)));
    let mut well = Model::new(Duration::from_secs(1));
    well.update(Update::Status(Box::new(all_well())));
    add("all is well", screen(&well, now(), PLAIN, (80, 16)));
    well.update(Update::Status(Box::new(without_redis())));
    let later = now() + TimeDelta::seconds(12);
    add("Redis is away", screen(&well, later, PLAIN, (80, 24)));
    let nothing = Model::new(Duration::from_secs(1));
    add(
        "nothing is known yet",
        screen(&nothing, now(), PLAIN, (80, 6)),
    );
    compare_with_file(&all, &cmd_file("top"));
}

#[test]
fn nothing_is_asked_for_without_a_y() {
    let mut model = model();
    for refusal in [
        KeyCode::Char('n'),
        KeyCode::Esc,
        KeyCode::Enter,
        KeyCode::Char('q'),
    ] {
        assert_eq!(key(&mut model, KeyCode::Char('p')), None);
        assert_eq!(model.view(), View::Confirm(Request::Pause));
        assert_eq!(key(&mut model, refusal), None);
        assert!(!model.has_quit());
    }
    key(&mut model, KeyCode::Char('p'));
    assert_eq!(key(&mut model, KeyCode::Char('y')), Some(Request::Pause));
    // It is not paused.
    assert_eq!(key(&mut model, KeyCode::Char('r')), None);
    assert_eq!(model.view(), View::Overview);
    key(&mut model, KeyCode::Char('q'));
    assert!(model.has_quit());
}

#[test]
fn escape_goes_back_and_then_ends_it() {
    for back in [KeyCode::Esc, KeyCode::Char('q')] {
        let mut model = model();
        key(&mut model, KeyCode::Char('e'));
        model.update(Update::Pending(Ok(pending())));
        key(&mut model, KeyCode::Enter);
        assert_eq!(model.view(), View::Details(List::Pending));
        key(&mut model, back);
        assert_eq!(model.view(), View::Pending);
        key(&mut model, back);
        assert_eq!(model.view(), View::Overview);
        assert!(!model.has_quit());
        key(&mut model, back);
        assert!(model.has_quit());
    }
    let mut model = model();
    key(&mut model, KeyCode::Char('p'));
    model.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(model.has_quit());
}

#[test]
fn no_terminal_is_too_small() {
    let mut model = model();
    model.update(Update::Pending(Ok(pending())));
    for size in [(1, 1), (10, 3), (20, 5), (40, 10), (300, 100)] {
        let codes = ['e', 'd', '?', 'p'].map(KeyCode::Char);
        for code in codes {
            key(&mut model, code);
            screen(&model, now(), PLAIN, size);
            key(&mut model, KeyCode::Enter);
            screen(&model, now(), PLAIN, size);
            while model.view() != View::Overview {
                key(&mut model, KeyCode::Esc);
            }
            screen(&model, now(), PLAIN, size);
        }
    }
}

fn source(env: &Env) -> Source {
    Source {
        redis_url: env.redis_url(),
        database_url: env.database_url(),
        key_prefix: env.key_prefix().clone(),
        streams: vec![env.stream()],
        group: GROUP.to_owned(),
    }
}

/// Takes in what comes until the screen has these words.
async fn shows(fetcher: &mut Fetcher, model: &mut Model, words: &[&str]) {
    let looking = async {
        loop {
            model.update(fetcher.next().await.unwrap());
            let drawn = screen(model, Utc::now(), PLAIN, (160, 50));
            if words.iter().all(|word| drawn.contains(word)) {
                return;
            }
        }
    };
    let looked = tokio::time::timeout(Duration::from_secs(60), looking).await;
    let drawn = || screen(model, Utc::now(), PLAIN, (160, 50));
    assert!(looked.is_ok(), "no {words:?} in:\n{}", drawn());
}

#[tokio::test]
async fn live_servers_are_shown_and_steered() {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_fives CHECK (detection_id <> 5)")
        .await;
    let worker = env.start_worker(env.worker_config()).await;
    env.publish(&detections(0..10)).await;
    eventually("it is stored", async || env.n_rows().await == 9).await;
    let mut fetcher = Fetcher::start(source(&env), Duration::from_millis(100));
    let mut model = Model::new(Duration::from_millis(100));

    shows(
        &mut fetcher,
        &mut model,
        &["9 rows stored, 1 dead letter (1 wait)", "reading"],
    )
    .await;
    // Nothing else of the last ten seconds is left by now, on a slow machine.
    env.publish(&detections(20..21)).await;
    shows(&mut fetcher, &mut model, &["gate-1", "the last 10 s"]).await;
    eventually("it is stored, too", async || env.n_rows().await == 10).await;
    assert_eq!(key(&mut model, KeyCode::Char('d')), Some(Request::Letters));
    assert!(fetcher.ask(Request::Letters));
    shows(&mut fetcher, &mut model, &["no_fives", "refused"]).await;
    key(&mut model, KeyCode::Enter);
    let whole = screen(&model, Utc::now(), PLAIN, (120, 60));
    let shown = whole.lines().map(|line| line.split_whitespace());
    let mut values = shown.filter_map(|mut words| Some((words.next()?, words.next()?)));
    assert!(values.any(|pair| pair == ("detection_id", "5")), "{whole}");
    key(&mut model, KeyCode::Esc);
    key(&mut model, KeyCode::Esc);

    key(&mut model, KeyCode::Char('p'));
    let pause = key(&mut model, KeyCode::Char('y')).unwrap();
    assert!(fetcher.ask(pause));
    shows(&mut fetcher, &mut model, &["paused by", "from top"]).await;
    // The worker says so itself, once it reads no more.
    shows(&mut fetcher, &mut model, &["  paused  "]).await;
    env.publish(&detections(10..20)).await;
    shows(&mut fetcher, &mut model, &["1 entry: 0 pending, 1 unread"]).await;
    key(&mut model, KeyCode::Char('r'));
    assert!(fetcher.ask(key(&mut model, KeyCode::Char('y')).unwrap()));
    eventually("it is read", async || env.n_rows().await == 20).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_shown_and_comes_back() {
    let env = Env::dedicated().await;
    env.run_worker_drain().await;
    let mut fetcher = Fetcher::start(source(&env), Duration::from_millis(200));
    let mut model = Model::new(Duration::from_millis(200));
    shows(
        &mut fetcher,
        &mut model,
        &["0 entries: 0 pending, 0 unread"],
    )
    .await;

    env.servers.kill_redis().await;
    shows(
        &mut fetcher,
        &mut model,
        &["Redis cannot be asked", "0 entries: 0 pending"],
    )
    .await;
    env.servers.restart_redis().await;
    env.servers.kill_postgres().await;
    shows(
        &mut fetcher,
        &mut model,
        &["Postgres cannot be asked", "0 rows stored"],
    )
    .await;
    env.servers.restart_postgres().await;

    env.publish(&detections(0..10)).await;
    shows(&mut fetcher, &mut model, &["1 entry: 0 pending, 1 unread"]).await;
    let drawn = screen(&model, Utc::now(), PLAIN, (160, 50));
    assert!(!drawn.contains("Redis cannot be asked"), "{drawn}");
}

#[tokio::test]
async fn without_a_terminal_it_says_what_shows_the_same() {
    let output = Passerby::alone()
        .with("PASSERBY_REDIS_URL", "redis://127.0.0.1:1")
        .with(
            "PASSERBY_DATABASE_URL",
            "postgresql://nobody@127.0.0.1:1/none",
        )
        .run(&["top"])
        .await;
    output.assert_usage_error(&["terminal", "passerby status --watch"]);
}

#[tokio::test]
async fn cameras_are_sampled_from_a_bounded_tail_and_no_group_notices() {
    let env = Env::start().await;
    let nothing = ops::cameras(&mut env.target()).await.unwrap();
    assert_eq!((nothing.entries, nothing.cameras.len()), (0, 0));

    env.publish_entries(200, 2).await;
    env.create_group().await;
    env.read_as("somebody", 3).await;
    let groups = async || -> redis::Value {
        env.redis(redis::cmd("XINFO").arg("GROUPS").arg(env.stream()))
            .await
    };
    let before = groups().await;
    let sample = ops::cameras(&mut env.target()).await.unwrap();
    assert_eq!(groups().await, before);
    assert_eq!(sample.entries, 40);
    assert!(sample.is_cut);
    // The oldest only says since when the others came.
    assert_eq!(sample.cameras.len(), 1, "{sample:?}");
    assert_eq!(sample.cameras[0].rows, 39 * 2);
    assert!(sample.cameras[0].rows_per_second > 0.0);

    // Large entries: fewer of them.
    for n in 0..20 {
        env.publish(&realistic_detections(0, n * 2_000, 2_000))
            .await;
    }
    let sample = ops::cameras(&mut env.target()).await.unwrap();
    assert!(
        (4..10).contains(&sample.entries),
        "{} entries were read",
        sample.entries
    );
}
