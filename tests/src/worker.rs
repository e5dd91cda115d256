use std::sync::Arc;

use passerby_consumer::{Health, Worker, WorkerConfig, WorkerError, WorkerReport, WorkerStats};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

/// A worker as a task of the test. Dropping it crashes it.
#[derive(Debug)]
pub struct RunningWorker {
    /// Its name in the group.
    pub consumer: String,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
    /// How it fares.
    pub health: Arc<Health>,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<WorkerReport, WorkerError>>>,
}

impl RunningWorker {
    pub(crate) async fn start(config: WorkerConfig) -> Self {
        let consumer = config.consumer.to_string();
        let health = Arc::<Health>::default();
        let worker = Worker::start_watched(config, Arc::clone(&health))
            .await
            .unwrap();
        let stop = CancellationToken::new();
        Self {
            consumer,
            stats: worker.stats(),
            health,
            task: Some(tokio::spawn(worker.run(stop.clone()))),
            stop,
        }
    }

    /// Ends the worker where it stands: nothing is finished, acknowledged or said goodbye to.
    pub async fn crash(mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let ended: Result<_, JoinError> = task.await;
            assert!(
                ended.as_ref().is_err_and(JoinError::is_cancelled),
                "the worker ended before it could crash: {ended:?}"
            );
        }
    }

    /// Tells the worker to stop.
    pub fn tell_to_stop(&self) {
        self.stop.cancel();
    }

    /// Tells the worker to stop and waits for it.
    pub async fn stop(self) -> WorkerReport {
        self.tell_to_stop();
        self.ended().await.unwrap()
    }

    /// Waits for the worker's end.
    pub async fn ended(mut self) -> Result<WorkerReport, WorkerError> {
        let task = self.task.take().expect("taken only where `self` is");
        tokio::time::timeout(std::time::Duration::from_secs(60), task)
            .await
            .expect("the worker ends within a minute")
            .unwrap()
    }

    /// Whether the worker's task runs.
    pub fn is_running(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
