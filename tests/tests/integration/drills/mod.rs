//! What goes wrong at night, provoked on real servers with the programs that run there, and mended by
//! what `docs/runbook.md` says to type.
//!
//! What the operator sees is recorded in `tests/cmd/drill_*.txt`; the runbook has it from there.

mod behind;
mod deleted_stream;
mod disagreement;
mod dropped_rows;
mod flood_of_dead_letters;
mod full_redis;
mod growing_spool;
mod no_worker;
mod paused_long;
mod poison_after_schema_change;
mod runbook;
mod server_down;
mod slow_postgres;
mod stuck_worker;
mod worker_down;

use std::{num::NonZeroUsize, time::Duration};

use passerby_producer::{AsyncProducer, ProducerConfig};
use passerby_shared::Detection;
use passerby_tests::{
    Env, Golden, Output, Passerby, WorkerBinary, eventually, fixtures::detections, producer_config,
};
use serde_json::Value;

/// A pipeline that records rows, and an operator before a terminal.
struct Drill {
    env: Env,
    terminal: Golden,
    pipeline: AsyncProducer,
    /// Rows that the pipeline has accepted: the detections 0…n−1.
    n_accepted: i64,
}

impl Drill {
    /// Its terminal is recorded in `tests/cmd/drill_<name>.txt`.
    fn begin(name: &str, env: Env) -> Self {
        // Who pauses is noted.
        let passerby = Passerby::on(&env).with("SUDO_USER", "anna");
        let mut terminal = Golden::with(&format!("drill_{name}"), passerby);
        terminal.redact(&env.key_prefix().to_string(), "passerby");
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        terminal.redact(&format!("anna@{host}"), "anna@office");
        let config = ProducerConfig {
            // An entry for each `record`, whatever the time.
            max_rows: NonZeroUsize::new(100).unwrap(),
            max_delay: Duration::from_secs(5),
            ..producer_config(&env, env.redis_url())
        };
        Self {
            terminal,
            pipeline: AsyncProducer::start(config).unwrap(),
            env,
            n_accepted: 0,
        }
    }

    /// The pipeline accepts so many rows.
    async fn accept(&mut self, n_rows: i64) {
        self.accept_as(n_rows, |row| row).await;
    }

    /// As [`Drill::accept`], of rows that differ from what they mostly are.
    async fn accept_as(&mut self, n_rows: i64, differently: fn(Detection) -> Detection) {
        let rows = detections(self.n_accepted..self.n_accepted + n_rows);
        let recorded = self
            .pipeline
            .record_many(rows.into_iter().map(differently))
            .await;
        assert_eq!(recorded.accepted, usize::try_from(n_rows).unwrap());
        self.n_accepted += n_rows;
    }

    /// Waits until Redis has what was accepted. Each call makes an entry of at most 100 rows.
    async fn publish(&self) {
        self.pipeline.flush(Duration::from_secs(30)).await.unwrap();
    }

    /// The pipeline records entries of ten rows, and Redis has them.
    async fn record_entries(&mut self, n_entries: usize) {
        for _ in 0..n_entries {
            self.accept(10).await;
            self.publish().await;
        }
    }

    /// Starts a worker of this name, with further arguments.
    async fn worker(&self, name: &str, args: &[&str]) -> WorkerBinary {
        let args = [&["--consumer", name], args].concat();
        WorkerBinary::start_on(&self.env, &args).await
    }

    /// The operator types a command, without the program's name before it.
    async fn types(&mut self, line: &str) -> Output {
        let args: Vec<&str> = line.split_whitespace().collect();
        self.terminal.run(&args).await
    }

    /// What `passerby status` says besides, without being recorded.
    async fn status(&self) -> Value {
        let passerby = Passerby::on(&self.env);
        passerby.run(&["status", "--json"]).await.json()
    }

    /// Waits until `passerby status` finds these symptoms, and no other.
    async fn shows(&self, codes: &[&str]) {
        let what = format!("symptoms {codes:?}");
        eventually(&what, async || {
            let status = self.status().await;
            let symptoms = status["symptoms"].as_array().unwrap().iter();
            symptoms
                .map(|s| s["code"].as_str().unwrap())
                .eq(codes.iter().copied())
        })
        .await;
    }

    /// Waits until every row that was accepted is stored.
    async fn all_stored(&self) {
        let n = self.n_accepted;
        eventually("every accepted row is stored", async || {
            self.env.n_rows().await == n && self.env.n_pending().await == 0
        })
        .await;
    }

    /// Waits until no entry waits in the stream, also none that a producer has sent again.
    async fn nothing_waits(&self) {
        eventually("nothing waits in the stream", async || {
            self.status().await["balance"]["in_stream_entries"] == 0
        })
        .await;
    }

    /// The night is over: every row that was accepted is stored, once.
    async fn over(self) {
        self.pipeline.close(Duration::from_secs(30)).await.unwrap();
        self.nothing_waits().await;
        self.env.assert_settled_once(self.n_accepted).await;
    }
}
