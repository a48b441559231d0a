// SPDX-License-Identifier: GPL-3.0-or-later
//! The loop of whatever is written in batches behind the back of the requests, and forgotten after a while: marks, decisions to be
//! explained. Nobody waits for these rows; what they are, and what happens to a batch that cannot be written, its [`Rows`] know.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Rows in one statement.
const BATCH: usize = 512;
/// How long they gather before they are written. With [`BATCH`] it also bounds what a flood can cost the database: some 2 500 rows a
/// second and host, far above what mail brings.
const GATHER: Duration = Duration::from_millis(200);
/// Expired rows deleted in one transaction.
pub(super) const CLEAN_BATCH: i64 = 1000;
/// Pause between two rounds of cleaning, and between two batches of one round.
const CLEAN_PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(50));

/// Rows of one table.
pub(super) trait Rows: Send {
    /// One of them.
    type Row: Send;

    /// Writes some, or drops and counts them.
    fn write(&mut self, batch: Vec<Self::Row>) -> impl Future<Output = ()> + Send;

    /// Deletes up to [`CLEAN_BATCH`] that have expired, and gives how many; none when that failed.
    fn clean(&mut self) -> impl Future<Output = Option<u64>> + Send;
}

/// Writes and cleans until `stop`; what waits then is written. The first round of cleaning begins after `first`.
pub(super) async fn run<R: Rows>(
    mut rows: R,
    mut waiting: mpsc::Receiver<R::Row>,
    first: Duration,
    stop: &CancellationToken,
) {
    let clean_again = tokio::time::sleep(first);
    tokio::pin!(clean_again);
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            taken = waiting.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    return;
                }
                gather(&mut waiting, &mut batch, stop).await;
                rows.write(batch).await;
            }
            () = &mut clean_again => {
                let pause = pause_after(rows.clean().await);
                clean_again.as_mut().reset(Instant::now() + pause);
            }
            () = stop.cancelled() => return write_the_rest(&mut rows, waiting).await,
        }
    }
}

/// Lets more come before a batch is written.
async fn gather<T>(waiting: &mut mpsc::Receiver<T>, batch: &mut Vec<T>, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(GATHER) => {}
        () = stop.cancelled() => {}
    }
    while batch.len() < BATCH
        && let Ok(more) = waiting.try_recv()
    {
        batch.push(more);
    }
}

/// What came last is worth as much as any.
async fn write_the_rest<R: Rows>(rows: &mut R, mut waiting: mpsc::Receiver<R::Row>) {
    let mut batch = Vec::new();
    while let Ok(more) = waiting.try_recv() {
        batch.push(more);
    }
    rows.write(batch).await;
}

fn pause_after(deleted: Option<u64>) -> Duration {
    match deleted {
        Some(deleted) if deleted >= CLEAN_BATCH as u64 => CLEAN_PAUSES.1,
        _ => CLEAN_PAUSES.0,
    }
}
