//! A worker says whether it lives and whether it is ready, to probes and to systemd.

use std::{net::SocketAddr, time::Duration};

use passerby_consumer::WorkerConfig;
use passerby_tests::{
    Direction, Env, Fault, WorkerBinary, eventually, http_get, http_get_as, stays,
};
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::UnixDatagram;

const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];

async fn is_ready(address: SocketAddr) -> bool {
    http_get(address, "/readyz").await == (200, "ready\n".to_owned())
}

async fn is_live(address: SocketAddr) -> bool {
    http_get(address, "/livez").await == (200, "live\n".to_owned())
}

#[tokio::test]
async fn a_worker_whose_postgres_is_away_lives_and_is_not_ready_and_says_why() {
    let env = Env::start().await;
    let (proxy, _) = env.postgres_proxy().await;
    let url = format!(
        "postgresql://postgres:secret@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        env.database()
    );
    let args = [LISTEN[0], LISTEN[1], "--database-url", &url];
    let worker = WorkerBinary::start_on(&env, &args).await;
    let address = worker.address().await;
    eventually("ready", async || is_ready(address).await).await;
    assert!(is_live(address).await);
    let json = http_get_as(address, "/readyz", "application/json").await.1;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ready"], true);
    assert_eq!(json["phase"], "running");
    for part in ["redis", "postgres", "schema"] {
        assert_eq!(json[part]["ready"], true, "{part}");
    }

    proxy.set(Fault::Refuse);
    env.publish_entries(3, 1).await;
    let mut line = String::new();
    eventually("not ready", async || {
        let (status, text) = http_get(address, "/readyz").await;
        line = text;
        status == 503
    })
    .await;

    assert!(
        line.starts_with("not ready: postgres: connect to "),
        "{line}"
    );
    assert!(
        !line.contains("redis:") && !line.contains("secret"),
        "{line}"
    );
    assert!(is_live(address).await);
    let (status, json) = http_get_as(address, "/readyz", "application/json").await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, &json["ready"]), (503, &Value::Bool(false)));
    assert_eq!(json["postgres"]["ready"], false);
    assert_eq!(json["redis"]["ready"], true);

    proxy.heal();
    eventually("ready again", async || is_ready(address).await).await;
    eventually("stored", async || env.n_rows().await == 3).await;
}

#[tokio::test]
async fn a_worker_whose_redis_is_away_lives_and_is_not_ready() {
    let env = Env::start().await;
    let (proxy, redis_url) = env.redis_proxy().await;
    let args = [LISTEN[0], LISTEN[1], "--redis-url", redis_url.expose()];
    let worker = WorkerBinary::start_on(&env, &args).await;
    let address = worker.address().await;
    eventually("ready", async || is_ready(address).await).await;

    proxy.set(Fault::BlackHole(Direction::Both));
    eventually("not ready", async || {
        let (status, line) = http_get(address, "/readyz").await;
        status == 503 && line.starts_with("not ready: redis: ") && !line.contains("postgres")
    })
    .await;
    assert!(is_live(address).await);
}

#[tokio::test]
async fn a_schema_that_does_not_fit_is_named() {
    let env = Env::start().await;
    let worker = WorkerBinary::start_on(&env, &LISTEN).await;
    let address = worker.address().await;
    eventually("ready", async || is_ready(address).await).await;

    env.execute("DELETE FROM passerby_schema_history WHERE version > 1")
        .await;
    let mut line = String::new();
    eventually("not ready", async || {
        let (status, text) = http_get(address, "/readyz").await;
        line = text;
        status == 503
    })
    .await;
    assert!(line.starts_with("not ready: schema: "), "{line}");
    assert!(line.contains("run `passerby migrate`"), "{line}");
}

#[tokio::test]
async fn readiness_goes_at_once_when_a_worker_is_told_to_stop() {
    let env = Env::start().await;
    let (proxy, _) = env.postgres_proxy().await;
    let url = format!(
        "postgresql://postgres@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        env.database()
    );
    let args = [LISTEN[0], LISTEN[1], "--database-url", &url];
    let worker = WorkerBinary::start_on(&env, &args).await;
    let address = worker.address().await;
    eventually("ready", async || is_ready(address).await).await;
    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    env.publish_entries(5, 1).await;
    proxy.met().await;

    worker.signal(Signal::TERM);
    eventually("it stops", async || {
        http_get(address, "/readyz").await == (503, "not ready: stopping\n".to_owned())
    })
    .await;
    assert!(is_live(address).await);

    proxy.heal();
    assert_eq!(worker.finished().await.code, Some(0));
    assert_eq!(env.n_rows().await, 5);
}

#[tokio::test]
async fn probes_cost_the_servers_nothing() {
    let env = Env::start().await;
    let servers = passerby_tests::OwnRedis::start(&[]).await;
    let url = servers.url();
    let args = [
        LISTEN[0],
        LISTEN[1],
        "--redis-url",
        url.expose(),
        "--block",
        "10s",
    ];
    let worker = WorkerBinary::start_on(&env, &args).await;
    let address = worker.address().await;
    eventually("ready", async || is_ready(address).await).await;

    let before = servers.n_commands().await;
    for _ in 0..1_000 {
        assert!(is_ready(address).await && is_live(address).await);
    }
    let n_commands = servers.n_commands().await - before;
    assert!(n_commands < 1_000, "{n_commands} commands for 2000 probes");
}

#[tokio::test]
async fn a_loop_at_one_thing_for_too_long_is_stuck_and_waiting_is_not() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        database_url,
        stuck_after: Some(Duration::from_secs(2)),
        ..env.worker_config()
    };
    let worker = env.start_worker(config).await;
    let health = &worker.health;
    let lives = || health.check_live().is_ok();
    let a_while = Duration::from_secs(5);
    stays("an idle worker lives", a_while, async || lives()).await;
    proxy.set(Fault::Refuse);
    env.publish(&passerby_tests::fixtures::detections(100..200))
        .await;
    // Each attempt begins anew, and the others wait.
    stays("one that cannot store", a_while, async || lives()).await;

    proxy.set(Fault::BlackHole(Direction::Both));
    env.publish_entries(100, 1).await;
    eventually("stuck", async || !lives()).await;
    assert_eq!(health.check_live().unwrap_err().name, "committer");

    proxy.heal();
    proxy.cut_all().await;
    eventually("it turns again", async || lives()).await;
    eventually("stored", async || env.n_rows().await == 200).await;
    worker.stop().await;
}

#[tokio::test]
async fn systemd_is_told_when_a_worker_is_ready_and_lives_and_stops() {
    let env = Env::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let variables = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "100000"),
    ];
    let (proxy, redis_url) = env.redis_proxy().await;
    let args = ["--redis-url", redis_url.expose()];
    let worker = WorkerBinary::start_on_in(&env, &variables, &args).await;

    let mut told = String::new();
    let mut hears = async |what: &str| {
        let mut buffer = [0; 4096];
        loop {
            let receiving = tokio::time::timeout(Duration::from_secs(60), socket.recv(&mut buffer));
            let received = receiving.await;
            let received = received.unwrap_or_else(|_| panic!("{what}: {}", worker.stderr()));
            let n_bytes = received.unwrap();
            told = String::from_utf8_lossy(&buffer[..n_bytes]).into_owned();
            if told.contains(what) {
                return told.clone();
            }
        }
    };
    let ready = hears("READY=1\n").await;
    assert!(ready.contains("STATUS="), "{ready}");
    hears("STATUS=ready; stored 0 detections").await;
    // Its Redis is away: it lives all the same.
    proxy.set(Fault::Refuse);
    let away = hears("STATUS=not ready: redis: ").await;
    assert!(
        away.contains("WATCHDOG=1\n") && !away.contains("READY"),
        "{away}"
    );
    proxy.heal();
    hears("STATUS=ready").await;

    worker.signal(Signal::TERM);
    let stopping = hears("STOPPING=1\n").await;
    assert!(stopping.contains("not ready: stopping"), "{stopping}");
    assert_eq!(worker.finished().await.code, Some(0));
}

#[tokio::test]
async fn a_container_can_ask_its_worker_with_the_same_program() {
    let env = Env::start().await;
    let (proxy, redis_url) = env.redis_proxy().await;
    let args = [LISTEN[0], LISTEN[1], "--redis-url", redis_url.expose()];
    let worker = WorkerBinary::start_on(&env, &args).await;
    let address = worker.address().await;
    eventually("ready", async || is_ready(address).await).await;
    // As the worker of an image does, which listens on all addresses.
    let everywhere = format!("0.0.0.0:{}", address.port());
    let ask = async |listen: &str| {
        let args = ["--check-ready", "--listen", listen];
        WorkerBinary::start(&args).await.finished().await
    };
    assert_eq!(ask(&everywhere).await.code, Some(0));

    proxy.set(Fault::Refuse);
    eventually("not ready", async || !is_ready(address).await).await;
    let answer = ask(&everywhere).await;
    assert_eq!(answer.code, Some(1));
    let said = answer.stderr;
    assert!(said.starts_with("error: not ready: redis: "), "{said}");

    drop(worker);
    let silence = ask(&everywhere).await;
    assert_eq!(silence.code, Some(1));
    let said = silence.stderr;
    let nobody = format!("error: no worker answers at {address}: ");
    assert!(said.starts_with(&nobody), "{said}");
    let nowhere = WorkerBinary::start(&["--check-ready"])
        .await
        .finished()
        .await;
    assert_eq!(nowhere.code, Some(2), "{}", nowhere.stderr);
}
