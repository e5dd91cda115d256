//! Copies the same rows into the tables of all candidates in turns, and takes the time of each.

use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use futures_util::{SinkExt, TryStreamExt};
use passerby_tests::benching::{History, InBatch, settle};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::candidates::{Candidate, Columns};

pub(crate) const BATCH_ROWS: i64 = 5_000;
/// So many batches are made, then stored.
const BATCHES_AHEAD: usize = 40;

impl Columns {
    /// Rows of some spans as they are to be copied, the bytes of each span on their own and its rows in
    /// this order.
    async fn encode(
        self,
        client: &Client,
        history: History,
        spans: &[(i64, i64)],
        order: InBatch,
    ) -> Vec<Bytes> {
        let order = match order {
            InBatch::AsTheyCome => "",
            InBatch::BySessionAndTrack => "ORDER BY session_id, track_id, n",
        };
        let mut all = Vec::new();
        for &(first, end) in spans {
            let sql = format!(
                "COPY (SELECT {} FROM ({}) AS rows {order}) TO STDOUT (FORMAT binary)",
                self.values(),
                history.select(first, end)
            );
            let pieces = client.copy_out(&sql).await.unwrap();
            let span: BytesMut = pieces
                .try_fold(BytesMut::new(), async |mut all, piece| {
                    all.extend_from_slice(&piece);
                    Ok(all)
                })
                .await
                .unwrap();
            all.push(span.freeze());
        }
        all
    }
}

/// Copies all rows into the tables of all candidates, and says how long each of them took.
pub(crate) async fn load(
    candidates: &[&Candidate],
    clients: &[Client],
    encoding: &Client,
    history: History,
    order: InBatch,
    random: &mut Rng,
) -> Vec<Duration> {
    let mut into = Vec::new();
    for (candidate, client) in candidates.iter().zip(clients) {
        let names = candidate.columns.names();
        let copy = format!("COPY candidate ({names}) FROM STDIN (FORMAT binary)");
        into.push(client.prepare(&copy).await.unwrap());
    }
    let mut elapsed = vec![Duration::ZERO; candidates.len()];
    let ends =
        (BATCH_ROWS..history.rows + BATCH_ROWS).step_by(usize::try_from(BATCH_ROWS).unwrap());
    let spans: Vec<_> = ends
        .map(|end| (end - BATCH_ROWS, end.min(history.rows)))
        .collect();
    let mut turns: Vec<usize> = (0..candidates.len()).collect();
    for spans in spans.chunks(BATCHES_AHEAD) {
        let mut encoded: Vec<(Columns, Vec<Bytes>)> = Vec::new();
        for candidate in candidates {
            let columns = candidate.columns;
            if encoded.iter().all(|(done, _)| *done != columns) {
                let batches = columns.encode(encoding, history, spans, order).await;
                encoded.push((columns, batches));
            }
        }
        for nth in 0..spans.len() {
            // So that nobody always follows the same one.
            random.shuffle(&mut turns);
            for &at in &turns {
                let columns = candidates[at].columns;
                let (_, batches) = encoded.iter().find(|(of, _)| *of == columns).unwrap();
                let batch = batches[nth].clone();
                let started = Instant::now();
                let mut sink = pin!(clients[at].copy_in::<_, Bytes>(&into[at]).await.unwrap());
                sink.send(batch).await.unwrap();
                let n_rows = sink.finish().await.unwrap();
                elapsed[at] += started.elapsed();
                let (first, end) = spans[nth];
                assert_eq!(i64::try_from(n_rows).unwrap(), end - first);
            }
        }
    }
    elapsed
}

/// What explains the numbers.
pub(crate) async fn name_the_numbers(client: &Client, history: History) {
    let all = history.select(0, history.rows);
    client
        .batch_execute(&format!(
            "CREATE TABLE both_by_no AS
                 SELECT DISTINCT camera_no, camera_id, session_no, session_id FROM ({all}) AS rows;
             CREATE TABLE cameras_by_no AS SELECT DISTINCT camera_no, camera_id FROM both_by_no;
             CREATE TABLE sessions_by_no AS SELECT DISTINCT session_no, session_id FROM both_by_no;
             CREATE UNIQUE INDEX ON cameras_by_no (camera_id);
             CREATE UNIQUE INDEX ON sessions_by_no (session_id)"
        ))
        .await
        .unwrap();
    settle(client, "cameras_by_no, sessions_by_no").await;
}
