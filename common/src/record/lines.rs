// SPDX-License-Identifier: GPL-3.0-or-later
//! Lines of the log on their way to standard error. Decisions are gathered for [`GATHER`] and written by a thread of their own,
//! many with one write(2); whoever writes any other line waits until it is written, and with it all that came before.
//!
//! Bounded: while nobody reads standard error, lines are lost beyond [`MOST`] bytes, and counted; how many is told as soon as
//! lines can be written again. A crash of the process loses at most the decisions of the last [`GATHER`]; a panic does not.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// How long decisions wait for others to be written with them.
const GATHER: Duration = Duration::from_millis(5);
/// With so many bytes the wait is over.
const ENOUGH: usize = 64 * 1024;
/// Bytes that may wait.
const MOST: usize = 256 * 1024;
/// How long a line that is no decision waits to be written; when that was in vain, the next ones do not wait at all.
const PATIENCE: Duration = Duration::from_millis(200);
/// Pause when standard error takes nothing at the moment.
const PAUSE: Duration = Duration::from_millis(10);

/// The `target` of the events that tell decisions.
pub const DECISION: &str = "decision";

/// Where lines are put. Copies share one thread.
#[derive(Debug, Clone)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, at once or soon.
    work: Condvar,
    /// Something was written, or could not be.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Somebody waits.
    urgent: bool,
    /// Waiting was in vain, and nothing has been written since.
    stuck: bool,
    /// Bytes taken in and dealt with since the start.
    taken: u64,
    dealt: u64,
    lost: u64,
    closed: bool,
}

impl Lines {
    /// Starts the thread that writes to `out`. Errors when the system gives no thread.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self(Arc::default());
        let shared = lines.0.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_on(out))?;
        Ok(lines)
    }

    /// Waits until everything put here so far is written, at most so long.
    pub(super) fn flush(&self, patience: Duration) {
        let state = self.0.lock();
        self.0.wait_until_dealt(state, patience);
    }

    fn put(&self, line: &[u8], gathers: bool) {
        let mut state = self.0.lock();
        if state.waiting.len() + line.len() > MOST {
            state.lost += 1;
            return;
        }
        let sleeping = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        state.taken += line.len() as u64;
        if !gathers && !state.stuck {
            return self.0.wait_until_dealt(state, PATIENCE);
        }
        let enough = state.waiting.len() >= ENOUGH && state.waiting.len() - line.len() < ENOUGH;
        drop(state);
        if sleeping || enough {
            self.0.work.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another thread leaves nothing half done here.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait_until_dealt(&self, mut state: MutexGuard<'_, State>, patience: Duration) {
        let (until, end) = (state.taken, Instant::now() + patience);
        while state.dealt < until {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.stuck = true;
                return;
            }
            state.urgent = true;
            self.work.notify_one();
            state = self.done.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    /// The thread.
    fn write_on(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        while self.next(&mut batch) {
            let written = write_all(&mut out, &batch);
            let lost = self.dealt(&batch, written.is_ok());
            if lost > 0 {
                metrics::counter!("octroi_log_lost_total").increment(lost);
                tracing::warn!(target: DECISION, lines = lost, "lines of the log were lost, nobody read it");
            }
            batch.clear();
            // What one flood needed is not kept for ever.
            batch.shrink_to(4 * ENOUGH);
        }
    }

    /// Waits for lines and takes them; false at the end.
    fn next(&self, batch: &mut Vec<u8>) -> bool {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return false;
            }
            state = self.work.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        let gathers = |state: &mut State| !state.urgent && !state.closed && state.waiting.len() < ENOUGH;
        let gathered = self.work.wait_timeout_while(state, GATHER, gathers);
        let mut state = gathered.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        state.urgent = false;
        std::mem::swap(&mut state.waiting, batch);
        true
    }

    /// Notes what became of a batch; how many lines have been lost, as soon as that can be told.
    fn dealt(&self, batch: &[u8], written: bool) -> u64 {
        let mut state = self.lock();
        state.dealt += batch.len() as u64;
        let lost = match written {
            true => {
                state.stuck = false;
                std::mem::take(&mut state.lost)
            }
            false => {
                state.lost += batch.iter().filter(|byte| **byte == b'\n').count() as u64;
                0
            }
        };
        drop(state);
        self.done.notify_all();
        lost
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // This copy and the thread's: nobody can put a line any more.
        if Arc::strong_count(&self.0) <= 2 {
            self.0.lock().closed = true;
            self.0.work.notify_one();
        }
    }
}

/// Like [`Write::write_all`], but waits when there is no room at the moment: standard error may be somebody's non-blocking pipe.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes the line of one event.
#[derive(Debug)]
pub(super) struct Line<'a> {
    lines: &'a Lines,
    gathers: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.put(line, self.gathers);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, gathers: false }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        Line { lines: self, gathers: event.target() == DECISION }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Gives each write to the test, which lets it go on, or fail.
    struct Slow {
        writes: mpsc::Sender<String>,
        answers: mpsc::Receiver<io::Result<()>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A test that has ended takes no more.
            let _ = self.writes.send(String::from_utf8_lossy(bytes).into_owned());
            self.answers.recv().unwrap_or(Ok(())).map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Lines, mpsc::Receiver<String>, mpsc::Sender<io::Result<()>>) {
        let ((writes, written), (answer, answers)) = (mpsc::channel(), mpsc::channel());
        (Lines::start(Slow { writes, answers }).unwrap(), written, answer)
    }

    #[test]
    fn decisions_are_gathered_in_their_order_and_nothing_is_lost() {
        let (lines, written, answer) = slow();
        for number in 0..100 {
            lines.put(format!("{number}\n").as_bytes(), true);
        }
        let all: String = (0..100).map(|number| format!("{number}\n")).collect();
        let mut seen = String::new();
        while seen.len() < all.len() {
            seen.push_str(&written.recv().unwrap());
            answer.send(Ok(())).unwrap();
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn other_lines_are_written_at_return_with_all_before_them() {
        let (lines, written, answer) = slow();
        for _ in 0..2 {
            answer.send(Ok(())).unwrap();
        }
        lines.put(b"decision\n", true);
        lines.put(b"warning\n", false);
        let seen: String = written.try_iter().collect();
        assert_eq!(seen, "decision\nwarning\n");
    }

    #[test]
    fn nobody_waits_for_ever_and_what_does_not_fit_is_counted() {
        let (lines, written, answer) = slow();
        lines.put(b"stuck\n", false);
        assert!(lines.0.lock().stuck);
        assert_eq!(written.recv().unwrap(), "stuck\n");
        let begun = Instant::now();
        let line = [b'x'; 1023].into_iter().chain(*b"\n").collect::<Vec<u8>>();
        for _ in 0..MOST / 1024 + 7 {
            lines.put(&line, false);
        }
        assert!(begun.elapsed() < PATIENCE * 5, "only the first one waits");
        assert_eq!(lines.0.lock().lost, 7);
        answer.send(Ok(())).unwrap();
        assert_eq!(written.recv().unwrap().len(), MOST);
        // What could not be written is lost too.
        answer.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
        lines.flush(PATIENCE);
        assert_eq!(lines.0.lock().lost, (MOST / 1024) as u64, "the seven have been told");
    }

    #[test]
    fn a_pipe_without_room_is_waited_for() {
        struct Full(u8);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                match self.0 {
                    1 => Err(ErrorKind::WouldBlock.into()),
                    2 => Err(ErrorKind::Interrupted.into()),
                    _ => Ok(bytes.len().min(2)),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Full(0);
        write_all(&mut out, b"abcde").unwrap();
        assert_eq!(out.0, 5);
    }
}
