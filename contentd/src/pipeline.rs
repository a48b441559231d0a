// SPDX-License-Identifier: GPL-3.0-or-later
//! The stages that look at a message: parse and unpack, antivirus beside it, banned files. Each adds findings, none decides.
//!
//! Work that burns the processor runs beside the event loop, as many at once as there are processors; messages
//! wait for a share of memory first, so that many large ones at once do not fill it.

use crate::budget::{self, Budget};
use crate::config::Settings;
use crate::envelope::Envelope;
use crate::findings::{Finding, FindingKind, Findings, Outcome, Scan};
use crate::message::Limits;
use crate::message::parts::{self, Kept, View};
use crate::scan::banned::BannedFiles;
use crate::scan::clamd::{Clamd, Sample};
use crate::spool::Message;
use crate::unpack;
use common::config::{Mistake, Mistakes};
use metrics::{counter, histogram};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

/// Memory that all messages under inspection share, in KiB. A larger message is inspected alone.
const MEMORY_KIB: u32 = 64 * 1024;

/// The stages, ready for use.
#[derive(Debug)]
pub struct Pipeline {
    limits: Limits,
    /// What may be decoded of one message.
    budget: budget::Limits,
    banned: BannedFiles,
    clamd: Option<Clamd>,
    /// One permit per processor.
    processors: Arc<Semaphore>,
    /// One permit per KiB.
    memory: Arc<Semaphore>,
}

impl Pipeline {
    /// Makes the stages ready. Errors: name patterns that are no regular expressions.
    pub fn new(settings: &Settings) -> Result<Pipeline, Mistakes> {
        let banned = BannedFiles::new(&settings.banned).map_err(|wrong| {
            let mut mistakes = Mistakes::default();
            for error in wrong {
                let (origin, key) = ("configuration".to_owned(), "banned.names".to_owned());
                mistakes.push(Mistake { origin, key, message: error.to_string() });
            }
            mistakes
        })?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Pipeline {
            limits: Limits::default(),
            budget: settings.unpack.limits(),
            banned,
            clamd: settings.antivirus.clamd.clone().map(Clamd::new),
            processors: Arc::new(Semaphore::new(processors)),
            memory: Arc::new(Semaphore::new(MEMORY_KIB as usize)),
        })
    }

    /// Whether the scanners are there, and which signatures they have.
    pub async fn ready(&self) -> Result<String, String> {
        match &self.clamd {
            Some(clamd) => clamd.version().await.map_err(|error| error.to_string()),
            None => Ok("no scanner configured".to_owned()),
        }
    }

    /// Looks at a message. What is not done by `deadline` is left out, and the findings say so.
    pub async fn inspect(&self, envelope: &Envelope, message: &Message, deadline: Instant) -> Findings {
        let mut findings = Findings { id: envelope.id.to_string(), size: message.len(), ..Findings::default() };
        if timeout_at(deadline, self.stages(message, &mut findings, deadline)).await.is_err() {
            findings.out_of_time = true;
            counter!("octroi_contentd_deadlines_total").increment(1);
        }
        for finding in &findings.found {
            counter!("octroi_contentd_findings_total", "name" => finding.kind.word()).increment(1);
        }
        findings
    }

    /// The stages. The scanners work on what is decoded while the rest is still being decoded.
    async fn stages(&self, message: &Message, findings: &mut Findings, deadline: Instant) {
        let share = self.share_of_memory(message).await;
        let (give, kept) = mpsc::unbounded_channel();
        let (outcome, ()) =
            tokio::join!(self.antivirus(message, kept, deadline), self.parse(message, give, findings, deadline));
        findings.scans.extend(outcome.map(|outcome| Scan { scanner: "clamd", outcome }));
        self.ban(findings);
        drop(share);
    }

    /// Waits for room for the message and for what is decoded from it.
    async fn share_of_memory(&self, message: &Message) -> Option<OwnedSemaphorePermit> {
        let kib = (message.len() / 1024).saturating_mul(2).saturating_add(16);
        let kib = u32::try_from(kib).unwrap_or(MEMORY_KIB).min(MEMORY_KIB);
        // The semaphores are never closed, so this always gives a permit.
        Arc::clone(&self.memory).acquire_many_owned(kib).await.ok()
    }

    /// Takes the message apart, archives included, and gives away what a scanner should see by itself.
    async fn parse(
        &self,
        message: &Message,
        give: mpsc::UnboundedSender<Waiting>,
        findings: &mut Findings,
        deadline: Instant,
    ) {
        let started = Instant::now();
        let raw = match message.bytes().await {
            Ok(raw) => raw,
            Err(error) => {
                tracing::error!(id = findings.id, %error, "the spooled message cannot be read");
                findings.scans.push(Scan { scanner: "parser", outcome: Outcome::Failed(error.to_string()) });
                return;
            }
        };
        let permit = Arc::clone(&self.processors).acquire_owned().await;
        let (limits, budget, until) = (self.limits, self.budget, deadline.into_std());
        let queue = Queue { give, room: Arc::new(Semaphore::new(QUEUE_KIB as usize)), wanted: self.clamd.is_some() };
        let walk = move || {
            let _permit = permit;
            let size = raw.len() as u64;
            let mut budget = Budget::new(&budget, size, limits.readings(size), until);
            let view = parts::walk(&raw, &limits, &mut budget);
            unpack::unpack(view, &limits, &mut budget, &mut |kept| queue.put(kept))
        };
        let walked = tokio::task::spawn_blocking(walk).await;
        histogram!("octroi_contentd_stage_seconds", "stage" => "parse").record(started.elapsed().as_secs_f64());
        match walked {
            Ok(View { parts, findings: found, .. }) => {
                findings.parts = parts;
                found.into_iter().for_each(|finding| findings.add(finding));
            }
            Err(error) => {
                tracing::error!(id = findings.id, %error, "the parser broke off; this is a bug");
                counter!("octroi_contentd_stage_failures_total", "stage" => "parse").increment(1);
                findings.add(Finding::new(FindingKind::StageFailed, "", "parse"));
            }
        }
    }

    /// Looks for banned files.
    fn ban(&self, findings: &mut Findings) {
        findings.banned = self.banned.check(&findings.parts);
    }

    /// Has the raw message scanned, and each decoded part that is no text, and each member of an archive: clamd decodes a
    /// message itself, but where its reading and a mail client's differ, the part would go unseen.
    async fn antivirus(
        &self,
        message: &Message,
        mut kept: mpsc::UnboundedReceiver<Waiting>,
        deadline: Instant,
    ) -> Option<Outcome> {
        let clamd = self.clamd.as_ref()?;
        let started = Instant::now();
        let mut outcome = clamd.scan(&Sample::Message(message.clone()), deadline).await;
        while let Some(Waiting { kept, room }) = kept.recv().await {
            if matches!(outcome, Outcome::Infected(_) | Outcome::Failed(_)) {
                break;
            }
            let of_part = clamd.scan(&Sample::Bytes(kept.bytes), deadline).await;
            drop(room);
            // What was incomplete before stays so, unless there is worse.
            if outcome == Outcome::Clean || matches!(of_part, Outcome::Infected(_) | Outcome::Failed(_)) {
                outcome = of_part;
            }
        }
        histogram!("octroi_contentd_stage_seconds", "stage" => "antivirus").record(started.elapsed().as_secs_f64());
        Some(outcome)
    }
}

/// Decoded bytes that may wait for the scanner, in KiB, of one message.
const QUEUE_KIB: u32 = 64 * 1024;

/// Something that waits for the scanner, and its share of the room for that.
struct Waiting {
    kept: Kept,
    room: Option<OwnedSemaphorePermit>,
}

/// What the decoders give to the scanner. They wait when it is slower, so that what is unpacked does not fill the memory.
struct Queue {
    give: mpsc::UnboundedSender<Waiting>,
    room: Arc<Semaphore>,
    wanted: bool,
}

impl Queue {
    /// Called on the thread that decodes. When the scanner has seen enough, nothing more is kept for it.
    fn put(&self, kept: Kept) {
        if !self.wanted || self.give.is_closed() {
            return;
        }
        let kib = u32::try_from(kept.bytes.len() / 1024 + 1).unwrap_or(QUEUE_KIB).min(QUEUE_KIB);
        let room = tokio::runtime::Handle::current().block_on(async {
            tokio::select! {
                // The semaphore is never closed, so this always gives a permit.
                room = Arc::clone(&self.room).acquire_many_owned(kib) => room.ok(),
                () = self.give.closed() => None,
            }
        });
        // Nobody listens any more: the scanner has said what there is to say.
        let _ = self.give.send(Waiting { kept, room });
    }
}

/// Tells the metrics page what the pipeline's numbers mean.
pub fn describe_metrics() {
    use metrics::{describe_counter, describe_histogram};
    describe_counter!("octroi_contentd_findings_total", "Findings in messages, by name");
    describe_counter!("octroi_contentd_members_total", "Files taken out of archives and documents, by format");
    describe_counter!("octroi_contentd_deadlines_total", "Messages whose inspection was not done in time");
    describe_counter!("octroi_contentd_stage_failures_total", "Stages that broke off because of a bug");
    describe_histogram!("octroi_contentd_stage_seconds", "Time in one stage of the pipeline");
    describe_counter!("octroi_contentd_clamd_scans_total", "Samples given to clamd, by outcome");
    describe_counter!("octroi_contentd_clamd_connections_total", "Connections to clamd: fresh, kept, or found stale");
    describe_histogram!("octroi_contentd_clamd_seconds", "Time for one sample at clamd");
}
