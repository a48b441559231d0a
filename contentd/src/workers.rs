// SPDX-License-Identifier: GPL-3.0-or-later
//! The threads on which messages are taken apart and rules run: as many as there are processors, and always the same ones.
//!
//! The runtime's own threads for blocking work come and go. Regular expressions keep what they have built for each thread that uses them,
//! so with those they would build it again and again, and hold it several times over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use tokio::sync::{Semaphore, oneshot};

/// What a thread does next.
type Work = Box<dyn FnOnce() + Send>;

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the work broke off")]
pub struct BrokeOff;

/// The threads. They end when the last owner is gone and the work is done.
#[derive(Debug)]
pub struct Workers {
    /// One permit per thread: who waits for one waits here, where it can give up, and not in the queue.
    free: Arc<Semaphore>,
    queue: Sender<Work>,
}

impl Workers {
    /// Starts a thread for each processor.
    pub fn start() -> io::Result<Workers> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let (queue, work) = channel();
        let work = Arc::new(Mutex::new(work));
        for number in 0..count {
            let work = Arc::clone(&work);
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || serve(&work))?;
        }
        Ok(Workers { free: Arc::new(Semaphore::new(count)), queue })
    }

    /// Does some work when a thread is free; gives up when the caller does before that. Err: it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, BrokeOff> {
        // The semaphore is never closed, so this always gives a permit.
        let permit = Arc::clone(&self.free).acquire_owned().await;
        let (tell, told) = oneshot::channel();
        let work = move || {
            let _permit = permit;
            if let Ok(result) = catch_unwind(AssertUnwindSafe(work)) {
                // Nobody listens any more: the result is not wanted.
                let _ = tell.send(result);
            }
        };
        self.queue.send(Box::new(work)).map_err(|_| BrokeOff)?;
        told.await.map_err(|_| BrokeOff)
    }
}

fn serve(work: &Mutex<Receiver<Work>>) {
    loop {
        // Nothing is half done while the lock is held. The lock is gone before the work begins.
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(next) = next else { return };
        next();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn work_stays_on_the_same_few_threads() {
        let workers = Arc::new(Workers::start().unwrap());
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let at_once = Arc::new(AtomicUsize::new(0));
        let work = |_| {
            let (workers, at_once) = (Arc::clone(&workers), Arc::clone(&at_once));
            tokio::spawn(async move {
                let work = move || {
                    let before = at_once.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(std::time::Duration::from_millis(1));
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    (before + 1, thread::current().name().map(str::to_owned))
                };
                workers.run(work).await.unwrap()
            })
        };
        let mut names = BTreeSet::new();
        for task in (0..64).map(work).collect::<Vec<_>>() {
            let (at_once, name) = task.await.unwrap();
            assert!(at_once <= processors, "{at_once} at once");
            names.insert(name.unwrap());
        }
        assert!(names.len() <= processors && names.iter().all(|name| name.starts_with("worker-")), "{names:?}");
    }

    #[tokio::test]
    async fn a_panic_costs_only_its_own_work() {
        let workers = Workers::start().unwrap();
        for _ in 0..10 {
            assert_eq!(workers.run(|| panic!("on purpose")).await, Err::<(), _>(BrokeOff));
        }
        assert_eq!(workers.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn who_gives_up_while_it_waits_is_forgotten() {
        let workers = Workers::start().unwrap();
        let count = u32::try_from(thread::available_parallelism().map_or(1, usize::from)).unwrap();
        let all = Arc::clone(&workers.free).acquire_many_owned(count).await.unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&done);
        let waiting = workers.run(move || counted.fetch_add(1, Ordering::SeqCst));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), waiting).await.is_err());
        drop(all);
        workers.run(|| ()).await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 0);
    }
}
