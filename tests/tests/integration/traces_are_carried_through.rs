//! An entry carries the trace that it belongs to, and its worker names it.

use std::time::Duration;

use passerby_producer::{AsyncProducer, Traceparent};
use passerby_tests::{Env, WorkerBinary, eventually, fixtures::detections, producer_config};
use serde_json::Value;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_entry_belongs_to_the_trace_that_was_named_when_it_was_made() {
    let env = Env::start().await;
    let producer = AsyncProducer::start(producer_config(&env, env.redis_url())).unwrap();
    let trace: Traceparent = TRACE.parse().unwrap();
    for (named, ids) in [(None, 0..1), (Some(trace), 1..2), (None, 2..3)] {
        producer.set_traceparent(named);
        let recorded = producer.record_many(detections(ids)).await;
        assert_eq!(recorded.accepted, 1);
        producer.flush(SOON).await.unwrap();
    }

    let entries: redis::streams::StreamRangeReply = env
        .redis(redis::cmd("XRANGE").arg(env.stream()).arg("-").arg("+"))
        .await;

    let traces: Vec<Option<String>> = entries.ids.iter().map(|entry| entry.get("tp")).collect();
    assert_eq!(traces, [None, Some(TRACE.to_owned()), None]);
    env.run_worker_drain().await;
    env.assert_settled_once(3).await;
}

#[tokio::test]
async fn a_batch_names_a_trace_of_its_entries_and_what_is_no_trace_costs_nothing() {
    let env = Env::start().await;
    let mut payload = Vec::new();
    passerby_shared::wire::encode_detections(&detections(0..1), &mut payload);
    for tp in [&b"no trace"[..], &[0xff; 55], TRACE.as_bytes()] {
        env.publish_entry(&[("p", &payload), ("tp", tp)]).await;
    }
    let args = ["--log-format", "json", "--log", "passerby_consumer=debug"];
    let worker = WorkerBinary::start_on(&env, &args).await;

    let mut named = Vec::new();
    eventually("all are stored", async || {
        let log = worker.stderr();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let batches = lines.filter(|line| line["message"] == "batch committed");
        let batches: Vec<Value> = batches.collect();
        let n_entries = batches.iter().filter_map(|line| line["n_entries"].as_u64());
        let is_done = n_entries.sum::<u64>() == 3;
        let traces = batches
            .iter()
            .filter_map(|line| line["traceparent"].as_str());
        named = traces.map(str::to_owned).collect();
        is_done
    })
    .await;

    assert_eq!(named, [TRACE]);
    assert_eq!(env.dead_letters().await.len(), 0);
}
