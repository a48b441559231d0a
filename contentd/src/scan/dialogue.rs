// SPDX-License-Identifier: GPL-3.0-or-later
//! Scanners to which one sample after the other goes over a connection that is kept: which connection, and what becomes of it when it
//! breaks. How a sample is sent and what the answer means is the protocol's (`sssp`, `icap`).

use metrics::counter;

use super::engine::{Failure, Tally};
use super::idle::Idle;
use super::sample::{Feed, Sample};
use super::settings::EngineSettings;
use super::wire::Wire;
use crate::findings::Outcome;

/// A protocol of question and answer.
pub(super) trait Dialogue: Sync {
    /// Name of the scanner, for metrics.
    fn name(&self) -> &str;

    /// Its limits.
    fn settings(&self) -> &EngineSettings;

    /// Its unused connections.
    fn idle(&self) -> &Idle<Wire>;

    /// A new connection, greeted.
    fn connect(&self) -> impl Future<Output = Result<Wire, Failure>> + Send;

    /// Sends a sample and reads the answer; also whether the connection can be used again.
    fn exchange(
        &self,
        wire: &mut Wire,
        sample: &Sample,
    ) -> impl Future<Output = Result<(Outcome, bool), Failure>> + Send;

    fn count(&self, kind: &'static str) {
        counter!("octroi_contentd_engine_connections_total", "engine" => self.name().to_owned(), "kind" => kind)
            .increment(1);
    }

    /// Has all pieces of a message scanned.
    fn scan(&self, feed: &mut Feed, tally: &mut Tally) -> impl Future<Output = Result<(), Failure>> + Send {
        async move {
            let mut wire = None;
            while let Some(piece) = feed.recv().await {
                if piece.sample.len() > self.settings().size_limit().0 {
                    tally.add(Outcome::Incomplete(format!("larger than max_size {}", self.settings().size_limit())));
                    continue;
                }
                counter!("octroi_contentd_engine_samples_total", "engine" => self.name().to_owned()).increment(1);
                tally.add(self.sample(&mut wire, &piece.sample).await?);
                if tally.is_infected() {
                    break;
                }
            }
            if let Some(wire) = wire {
                self.idle().keep(wire);
            }
            Ok(())
        }
    }

    /// One sample; once more over a new connection when the old one broke. `wire` is left only in a known state.
    fn sample(
        &self,
        wire: &mut Option<Wire>,
        sample: &Sample,
    ) -> impl Future<Output = Result<Outcome, Failure>> + Send {
        async move {
            let mut tries = 0;
            loop {
                let kept = wire.take().or_else(|| self.idle().take()).filter(|wire: &Wire| wire.heard().is_empty());
                let stale = kept.is_some();
                let mut used = match kept {
                    Some(kept) => kept,
                    None => self.connect().await?,
                };
                match self.exchange(&mut used, sample).await {
                    Ok((outcome, usable)) => {
                        *wire = usable.then_some(used);
                        return Ok(outcome);
                    }
                    Err(error) if stale && error.is_broken_connection() => self.count("stale"),
                    Err(error) if error.is_broken_connection() && tries < self.settings().retries => tries += 1,
                    Err(error) => return Err(error),
                }
            }
        }
    }
}
