// SPDX-License-Identifier: GPL-3.0-or-later
//! One figure out of a noisy machine: rounds in which the servers take turns (A B C A B C ..), the median of the
//! rounds, and ratios taken inside each round.
//!
//! A load is any closed loop that gives a [`Sample`]; what it sends is the generators' business.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::tests::process::Trouble;

use crate::cpu;

/// A load that meets more wrong answers than this stops: the figure is worthless, the point is made.
const MOST_ERRORS: u64 = 100;
/// The load before each measurement, not counted: caches warm, connections of the pool open.
const WARM_UP: f64 = 0.15;

/// What a server is, and so what answers are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It does nothing: the ratios of the others are to this one.
    Nothing,
    /// One of our daemons.
    Ours,
    /// A greylister of somebody else.
    Greylister,
    /// A rate limiter of somebody else.
    Limiter,
}

/// A server under test.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// Where it listens, on loopback.
    pub(crate) port: u16,
    /// Its process.
    pub(crate) process: u32,
    /// The server it leans on (PostgreSQL, clamd): CPU time counted apart.
    pub(crate) beside: Option<u32>,
    /// What it is.
    pub(crate) kind: Kind,
}

/// How long one load goes on: until either bound is met.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Time.
    pub(crate) time: Duration,
    /// Requests or messages.
    pub(crate) count: u64,
    /// At most so many a second, of all clients together; none: as fast as the server answers.
    pub(crate) pace: Option<u32>,
}

impl Bounds {
    fn warm_up(self) -> Bounds {
        let count = (self.count / 4).max(1);
        Bounds { time: self.time.mul_f64(WARM_UP), count, ..self }
    }
}

/// The bounds of one load while it runs, shared by its clients.
#[derive(Debug)]
pub(crate) struct Budget {
    begin: Instant,
    time: Duration,
    pace: Option<u32>,
    count: u64,
    left: AtomicU64,
    errors: AtomicU64,
}

impl Budget {
    /// Starts the clock.
    pub(crate) fn start(bounds: Bounds) -> Budget {
        let (left, errors) = (AtomicU64::new(bounds.count), AtomicU64::new(0));
        let Bounds { time, count, pace } = bounds;
        Budget { begin: Instant::now(), time, pace, count, left, errors }
    }

    /// True when one more may be sent; it is then taken from the count.
    pub(crate) fn take(&self) -> bool {
        self.begin.elapsed() < self.time
            && self.errors.load(Ordering::Relaxed) < MOST_ERRORS
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Waits until the next one is due, when there is a pace.
    async fn due(&self) {
        let Some(pace) = self.pace else { return };
        let sent = self.count - self.left.load(Ordering::Relaxed);
        let due = self.begin + Duration::from_secs_f64(sent as f64 / f64::from(pace));
        tokio::time::sleep_until(due.into()).await;
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}

/// One client's part of a load: `while tally.begin() { tally.end(..) }`.
#[derive(Debug)]
pub(crate) struct Tally {
    budget: Arc<Budget>,
    since: Instant,
    lost: bool,
    /// What the client has seen so far.
    pub(crate) sample: Sample,
}

impl Tally {
    /// A client of this load.
    pub(crate) fn new(budget: &Arc<Budget>) -> Tally {
        Tally { budget: Arc::clone(budget), since: budget.begin, lost: false, sample: Sample::default() }
    }

    /// True when one more is to be sent; its time runs from now.
    pub(crate) fn begin(&mut self) -> bool {
        let go_on = !self.lost && self.budget.take();
        self.since = Instant::now();
        go_on
    }

    /// The same, when the next one is due.
    pub(crate) async fn begin_at_pace(&mut self) -> bool {
        let go_on = !self.lost && self.budget.take();
        if go_on {
            self.budget.due().await;
        }
        self.since = Instant::now();
        go_on
    }

    /// How it went. A wrong answer is counted; with a broken connection the client is at its end.
    pub(crate) fn end(&mut self, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => self.sample.latencies.push(self.since.elapsed()),
            Err(failure) => {
                self.budget.errors.fetch_add(1, Ordering::Relaxed);
                self.lost = matches!(failure, Failure::Broken(_));
                self.sample.fail(failure);
            }
        }
    }
}

/// Why one request or message counts as an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server answered something else; the connection can go on.
    Wrong(String),
    /// No connection, or none any more.
    Broken(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Broken(error.to_string())
    }
}

/// What a load saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// One per right answer.
    pub(crate) latencies: Vec<Duration>,
    /// Wrong answers and lost connections.
    pub(crate) errors: u64,
    /// The first of them, in words.
    pub(crate) first_error: Option<String>,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
}

impl Sample {
    /// Counts an error.
    pub(crate) fn fail(&mut self, failure: Failure) {
        let (Failure::Wrong(text) | Failure::Broken(text)) = failure;
        self.errors += 1;
        self.first_error.get_or_insert(text);
    }

    /// Adds what another client of the same load saw.
    pub(crate) fn add(&mut self, other: Sample) {
        self.latencies.extend(other.latencies);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// The figures of one load on one server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Round {
    /// Right answers.
    pub(crate) done: u64,
    /// Right answers per second.
    pub(crate) rate: f64,
    /// Latency in µs, the middle one.
    pub(crate) p50: f64,
    /// Latency in µs that one in a hundred exceeds.
    pub(crate) p99: f64,
    /// CPU µs of the server for one answer.
    pub(crate) cpu: f64,
    /// The same of the server beside it; 0 when there is none.
    pub(crate) beside: f64,
}

/// One line of the table: one server under one load, all rounds.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The server.
    pub(crate) server: &'static str,
    /// What was sent.
    pub(crate) load: String,
    /// Clients at a time.
    pub(crate) clients: usize,
    /// True when the server has another beside it.
    pub(crate) has_beside: bool,
    /// In order.
    pub(crate) rounds: Vec<Round>,
    /// Over all rounds, warm-up included.
    pub(crate) errors: u64,
    /// The first of them.
    pub(crate) first_error: Option<String>,
    /// CPU (with the server beside) and rate, as multiples of the do-nothing server's: medians of the rounds'
    /// ratios. None for that server itself.
    pub(crate) ratios: Option<(f64, f64)>,
}

impl Row {
    /// The median over the rounds of one figure.
    pub(crate) fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(figure).collect())
    }

    /// A row without a round.
    pub(crate) fn new(subject: &Subject, load: &str, clients: usize) -> Row {
        Row {
            server: subject.name,
            load: load.to_owned(),
            clients,
            has_beside: subject.beside.is_some(),
            rounds: Vec::new(),
            errors: 0,
            first_error: None,
            ratios: None,
        }
    }

    /// Measures once, after a short load that does not count.
    pub(crate) async fn one_round(
        &mut self,
        subject: &Subject,
        bounds: Bounds,
        run: &impl AsyncFn(&Subject, Bounds) -> Result<Sample, Trouble>,
    ) -> Result<(), Trouble> {
        let place = format!("{}, {}, {} at a time", subject.name, self.load, self.clients);
        let named = |trouble: Trouble| Trouble::new(&place, trouble);
        self.note_errors(&run(subject, bounds.warm_up()).await.map_err(named)?);
        let before = Spent::now(subject).await.map_err(named)?;
        let sample = run(subject, bounds).await.map_err(named)?;
        let spent = Spent::now(subject).await.map_err(named)?.since(before);
        self.note_errors(&sample);
        self.rounds.push(figures(sample, spent));
        Ok(())
    }

    fn note_errors(&mut self, sample: &Sample) {
        self.errors += sample.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&sample.first_error);
        }
    }
}

/// Measures all `subjects` under the same load, in turns; one row each, in their order.
pub(crate) async fn take_turns(
    subjects: &[Subject],
    (load, clients): (&str, usize),
    (rounds, bounds): (usize, Bounds),
    run: impl AsyncFn(&Subject, Bounds) -> Result<Sample, Trouble>,
) -> Result<Vec<Row>, Trouble> {
    let mut rows: Vec<Row> = subjects.iter().map(|subject| Row::new(subject, load, clients)).collect();
    for _ in 0..rounds {
        for (subject, row) in subjects.iter().zip(&mut rows) {
            row.one_round(subject, bounds, &run).await?;
        }
    }
    let nothing = subjects.iter().position(|subject| subject.kind == Kind::Nothing);
    if let Some(nothing) = nothing.map(|index| rows[index].rounds.clone()) {
        for (subject, row) in subjects.iter().zip(&mut rows) {
            row.ratios = (subject.kind != Kind::Nothing).then(|| ratios(&row.rounds, &nothing));
        }
    }
    Ok(rows)
}

/// CPU time of a subject and of what is beside it.
#[derive(Debug, Clone, Copy)]
struct Spent {
    own: Duration,
    beside: Duration,
}

impl Spent {
    async fn now(subject: &Subject) -> Result<Spent, Trouble> {
        let own = cpu::spent_at_rest(subject.process).await?;
        let beside = match subject.beside {
            Some(process) => cpu::spent_at_rest(process).await?,
            None => Duration::ZERO,
        };
        Ok(Spent { own, beside })
    }

    fn since(self, before: Spent) -> Spent {
        Spent { own: self.own.saturating_sub(before.own), beside: self.beside.saturating_sub(before.beside) }
    }
}

fn figures(mut sample: Sample, spent: Spent) -> Round {
    sample.latencies.sort_unstable();
    let done = sample.latencies.len();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / done.max(1) as f64;
    Round {
        done: done as u64,
        rate: done as f64 / sample.elapsed.as_secs_f64().max(1e-9),
        p50: quantile(&sample.latencies, 50),
        p99: quantile(&sample.latencies, 99),
        cpu: each(spent.own),
        beside: each(spent.beside),
    }
}

/// µs; nearest rank, 0 when there is nothing.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}

fn ratios(rounds: &[Round], nothing: &[Round]) -> (f64, f64) {
    let of = |figure: fn(&Round) -> f64| {
        median(rounds.iter().zip(nothing).map(|(round, nothing)| figure(round) / figure(nothing)).collect())
    };
    (of(|round| round.cpu + round.beside), of(|round| round.rate))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
        let hundred: Vec<Duration> = (1..=100).map(Duration::from_micros).collect();
        assert_eq!(quantile(&hundred, 50).round(), 50.0);
        assert_eq!(quantile(&hundred, 99).round(), 99.0);
        assert_eq!(quantile(&hundred[..1], 99).round(), 1.0);
        assert_eq!(quantile(&[], 99), 0.0);
    }

    #[test]
    fn a_ratio_is_taken_inside_its_round() {
        let round = |cpu: f64, beside: f64, rate: f64| Round { done: 1, rate, p50: 0.0, p99: 0.0, cpu, beside };
        // The machine is twice as slow in the second round and stands still in the third: the ratio stays.
        let nothing = [round(5.0, 0.0, 100.0), round(10.0, 0.0, 50.0), round(10.0, 0.0, 50.0)];
        let server = [round(10.0, 10.0, 25.0), round(20.0, 20.0, 12.5), round(900.0, 0.0, 1.0)];
        assert_eq!(ratios(&server, &nothing), (4.0, 0.25));
    }

    /// A client that meets these outcomes, the last one again and again.
    fn client(bounds: Bounds, outcomes: &[Result<(), Failure>]) -> Sample {
        let mut tally = Tally::new(&Arc::new(Budget::start(bounds)));
        let mut turn = 0;
        while tally.begin() {
            tally.end(outcomes[turn.min(outcomes.len() - 1)].clone());
            turn += 1;
        }
        tally.sample
    }

    #[test]
    fn a_load_ends_at_its_count_and_keeps_its_errors() {
        let wrong = |text: &str| Err(Failure::Wrong(text.to_owned()));
        let five = Bounds { time: Duration::from_secs(60), count: 5, pace: None };
        let sample = client(five, &[Ok(()), wrong("no"), wrong("never"), Ok(())]);
        assert_eq!((sample.latencies.len(), sample.errors, sample.first_error.as_deref()), (3, 2, Some("no")));
    }

    #[tokio::test]
    async fn a_pace_holds() {
        let bounds = Bounds { time: Duration::from_secs(60), count: 100, pace: Some(1000) };
        let budget = Budget::start(bounds);
        let mut tally = Tally::new(&Arc::new(budget));
        for _ in 0..50 {
            assert!(tally.begin_at_pace().await);
        }
        assert!(tally.budget.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn a_broken_connection_ends_its_client_and_many_errors_or_time_end_the_load() {
        let forever = Bounds { time: Duration::from_secs(60), count: u64::MAX, pace: None };
        let sample = client(forever, &[Ok(()), Err(Failure::Broken("lost".to_owned()))]);
        assert_eq!((sample.latencies.len(), sample.errors), (1, 1));
        let sample = client(forever, &[Err(Failure::Wrong("no".to_owned()))]);
        assert_eq!(sample.errors, MOST_ERRORS);
        let sample = client(Bounds { time: Duration::ZERO, ..forever }, &[Ok(())]);
        assert_eq!(sample.latencies.len(), 0);
    }
}
