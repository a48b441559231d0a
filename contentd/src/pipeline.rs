// SPDX-License-Identifier: GPL-3.0-or-later
//! The stages that look at a message: parse and unpack, antivirus beside it, banned files. Each adds findings, none decides.
//!
//! Work that burns the processor runs beside the event loop, as many at once as there are processors; messages
//! wait for a share of memory first, so that many large ones at once do not fill it.

use crate::active::ActiveSettings;
use crate::budget::{self, Budget};
use crate::checks::{self, Checks};
use crate::config::Settings;
use crate::envelope::Envelope;
use crate::findings::{Banned, Finding, FindingKind, Findings, Outcome, PARSER, Scan};
use crate::message::Limits;
use crate::message::parts::{self, View};
use crate::message::rename;
use crate::scan::banned::BannedFiles;
use crate::scan::engines::{Answers, Engines};
use crate::scan::originals::{Original, as_it_came};
use crate::scan::sample::{Queue, Seen};
use crate::scan::settings::Group;
use crate::spam;
use crate::spam::set::{LoadError, Rules};
use crate::spam::stage::Stage;
use crate::spool::Message;
use crate::unpack;
use crate::unpack::helper::Helpers;
use crate::unpack::passwords;
use crate::workers::Workers;
use bytes::Bytes;
use common::config::{Mistake, Mistakes};
use metrics::{counter, histogram};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// How much later than the deadline a stage is cut off that does not keep it.
const GRACE: Duration = Duration::from_millis(500);
/// A message of this size is walked at once.
const SMALL: usize = 32 * 1024;
/// Memory that all messages under inspection share, in KiB. A larger message is inspected alone.
const MEMORY_KIB: u32 = 64 * 1024;

/// The stages, ready for use.
#[derive(Debug)]
pub struct Pipeline {
    limits: Limits,
    /// What may be decoded of one message.
    budget: budget::Limits,
    banned: Arc<BannedFiles>,
    checks: Arc<Checks>,
    active: ActiveSettings,
    spam: Stage,
    /// Words tried as passwords besides those of the message; none: none are tried.
    common_passwords: Option<Arc<[String]>>,
    /// Who takes apart what is risky; none: all is done in this process.
    helpers: Option<Arc<Helpers>>,
    engines: Engines,
    /// What they get besides what is decoded.
    originals: Arc<[Original]>,
    /// Signatures older than this are noted; zero: never.
    max_age: Duration,
    workers: Arc<Workers>,
    /// One permit per KiB.
    memory: Arc<Semaphore>,
}

impl Pipeline {
    /// Makes the stages ready, and loads the spam rules. Errors: patterns that are no regular expressions, tables and rules that cannot be
    /// read.
    pub fn new(settings: &Settings) -> Result<Pipeline, Mistakes> {
        let rules = Rules::load(&settings.spam).map_err(rules_mistake)?;
        Pipeline::with_rules(settings, rules)
    }

    /// The same with rules that are loaded already.
    pub fn with_rules(settings: &Settings, rules: Arc<Rules>) -> Result<Pipeline, Mistakes> {
        let (banned, checks) = (BannedFiles::new(&settings.banned), Checks::load(&settings.checks));
        let (banned, checks) = match (banned, checks) {
            (Ok(banned), Ok(checks)) => (Arc::new(banned), Arc::new(checks)),
            (banned, checks) => {
                let mut mistakes = Mistakes::default();
                [banned.err(), checks.err()].into_iter().flatten().for_each(|wrong| mistakes.extend(wrong));
                return Err(mistakes);
            }
        };
        let engines = Engines::new(&settings.antivirus, &settings.contentd.place().dir);
        let originals = settings.antivirus.originals.clone();
        let texts = engines.want_texts() || !originals.contains(&Original::Mail);
        let workers = Arc::new(Workers::start().map_err(no_threads)?);
        Ok(Pipeline {
            limits: Limits { texts, sha256: false, ..settings.mime.limits() },
            budget: settings.unpack.limits(),
            banned,
            checks,
            active: settings.active.clone(),
            spam: Stage::new(settings, rules, Arc::clone(&workers))?,
            common_passwords: settings.unpack.passwords.then(|| settings.unpack.common_passwords.clone().into()),
            helpers: None,
            engines,
            originals: originals.into(),
            max_age: settings.antivirus.max_signature_age.0,
            workers,
            memory: Arc::new(Semaphore::new(MEMORY_KIB as usize)),
        })
    }

    /// The same, with helpers for what is risky to take apart.
    pub fn with_helpers(self, helpers: Option<Arc<Helpers>>) -> Pipeline {
        Pipeline { helpers, ..self }
    }

    /// The same, whose findings show the SHA-256 of each part.
    pub fn with_sha256(mut self) -> Pipeline {
        self.limits.sha256 = true;
        self
    }

    /// The spam rules.
    pub fn rules(&self) -> &Arc<Rules> {
        self.spam.rules()
    }

    /// Whether the scanners are there, and which signatures they have.
    pub async fn ready(&self) -> Result<String, String> {
        self.engines.ready().await
    }

    /// Looks at a message. What is not done by `deadline` is left out, and the findings say so. Stages keep the deadline themselves, so
    /// that an engine that is still silent is noted as such; a stage that does not is cut off a moment later.
    pub async fn inspect(&self, envelope: &Envelope, message: &Message, deadline: Instant) -> Findings {
        self.look_at(envelope, message, deadline, false).await
    }

    /// The same with all spam rules, those that cannot change what is done with the message too: for who wants to see the score.
    pub async fn inspect_whole(&self, envelope: &Envelope, message: &Message, deadline: Instant) -> Findings {
        self.look_at(envelope, message, deadline, true).await
    }

    async fn look_at(&self, envelope: &Envelope, message: &Message, deadline: Instant, whole: bool) -> Findings {
        let mut findings = Findings { id: envelope.id.to_string(), size: message.len(), ..Findings::default() };
        let cut_off =
            timeout_at(deadline + GRACE, self.stages(envelope, message, &mut findings, deadline, whole)).await.is_err();
        findings.out_of_time = cut_off || Instant::now() >= deadline;
        if findings.out_of_time {
            counter!("octroi_contentd_deadlines_total").increment(1);
        }
        for finding in &findings.found {
            counter!("octroi_contentd_findings_total", "name" => finding.kind.word()).increment(1);
        }
        findings
    }

    /// The stages. The engines work on what is decoded while the rest is still being decoded.
    async fn stages(
        &self,
        envelope: &Envelope,
        message: &Message,
        findings: &mut Findings,
        deadline: Instant,
        whole: bool,
    ) {
        let share = self.share_of_memory(message).await;
        let mut answers = self.look(Group::Primary, envelope, message, findings, deadline).await;
        if answers.all_failed() && self.engines.have_backup() {
            counter!("octroi_contentd_backups_total").increment(1);
            // The message is taken apart once more: to keep all that was decoded for an engine that is hardly ever asked would cost more.
            let mut again = Findings { id: findings.id.clone(), size: findings.size, ..Findings::default() };
            let spare = self.look(Group::Backup, envelope, message, &mut again, deadline).await;
            answers.scans.extend(spare.scans);
            answers.symbols.extend(spare.symbols);
        }
        findings.scans.extend(answers.scans);
        findings.symbols.extend(answers.symbols);
        self.ages(findings);
        let share = self.smaller(share);
        self.rate(envelope, message, findings, deadline, whole).await;
        drop(share);
    }

    /// Runs the spam rules. They come last, because what others have found counts, too.
    async fn rate(
        &self,
        envelope: &Envelope,
        message: &Message,
        findings: &mut Findings,
        deadline: Instant,
        whole: bool,
    ) {
        if let Err(error) = self.spam.run(envelope, message, findings, deadline, whole).await {
            tracing::error!(id = findings.id, error, "the spam rules broke off");
            stage_failed(findings, spam::STAGE);
        }
    }

    /// Takes the message apart and has the engines of one group look at what comes out.
    async fn look(
        &self,
        group: Group,
        envelope: &Envelope,
        message: &Message,
        findings: &mut Findings,
        deadline: Instant,
    ) -> Answers {
        let started = Instant::now();
        let (queue, round) = self.engines.begin(group).await;
        let (answers, ()) =
            tokio::join!(round.scan(deadline), self.parse(envelope, message, queue, findings, deadline));
        if !answers.scans.is_empty() {
            histogram!("octroi_contentd_stage_seconds", "stage" => "antivirus").record(started.elapsed().as_secs_f64());
        }
        answers
    }

    /// Notes engines whose signatures are too old.
    fn ages(&self, findings: &mut Findings) {
        for place in 0..findings.scans.len() {
            let scan = &findings.scans[place];
            let Some(age) = scan.signatures_age.filter(|age| *age > self.max_age && !self.max_age.is_zero()) else {
                continue;
            };
            let detail = format!("{}: {} days", scan.scanner, age.as_secs() / 86_400);
            findings.add(Finding::new(FindingKind::OldSignatures, "", detail));
        }
    }

    /// Waits for room for the message and for what is decoded from it.
    async fn share_of_memory(&self, message: &Message) -> Option<OwnedSemaphorePermit> {
        let kib = (message.len() / 1024).saturating_mul(2).saturating_add(16);
        let kib = u32::try_from(kib).unwrap_or(MEMORY_KIB).min(MEMORY_KIB);
        // The semaphores are never closed, so this always gives a permit.
        Arc::clone(&self.memory).acquire_many_owned(kib).await.ok()
    }

    /// Gives back what the spam rules do not need: they see the start of the message only, and may wait for the network.
    fn smaller(&self, share: Option<OwnedSemaphorePermit>) -> Option<OwnedSemaphorePermit> {
        let mut share = share?;
        let kept = share.num_permits().min(self.spam.sees() / 512 + 16);
        share.split(kept)
    }

    /// Takes the message apart, archives included, and gives away what a scanner should see by itself. Then looks for what tables and
    /// lists forbid.
    async fn parse(
        &self,
        envelope: &Envelope,
        message: &Message,
        queue: Queue,
        findings: &mut Findings,
        deadline: Instant,
    ) {
        let started = Instant::now();
        let raw = match message.bytes().await {
            Ok(raw) => raw,
            Err(error) => {
                tracing::error!(id = findings.id, %error, "the spooled message cannot be read");
                findings.scans.push(Scan::new(PARSER, Outcome::Failed(error.to_string())));
                return;
            }
        };
        let recipients = envelope.recipients.iter().map(|path| path.address.clone()).collect();
        let work = Work {
            limits: self.limits,
            budget: Budget::new(&self.budget, size(&raw), self.limits.readings(size(&raw)), deadline.into_std()),
            checks: Arc::clone(&self.checks),
            banned: Arc::clone(&self.banned),
            helpers: self.helpers.clone(),
            passwords: self.common_passwords.clone(),
            originals: Arc::clone(&self.originals),
            until: deadline.into_std(),
            recipients,
            raw,
            queue,
        };
        let walked = self.walk(work).await;
        histogram!("octroi_contentd_stage_seconds", "stage" => "parse").record(started.elapsed().as_secs_f64());
        match walked {
            Ok((View { parts, findings: found, .. }, checked, banned)) => {
                (findings.parts, findings.checked, findings.banned) = (parts, checked, banned);
                let (symbols, active) = self.active.judge(&found);
                findings.symbols.extend(symbols);
                findings.banned.extend(active);
                found.into_iter().for_each(|finding| findings.add(finding));
            }
            Err(error) => {
                tracing::error!(id = findings.id, error, "the parser broke off; this is a bug");
                stage_failed(findings, "parse");
            }
        }
    }

    /// Does the work, at once when it is little: to wake another thread costs more than to walk a small message. Err: it panicked.
    async fn walk(&self, mut work: Work) -> Result<Worked, String> {
        let mut view = None;
        if work.is_little() {
            let walked = std::panic::catch_unwind(AssertUnwindSafe(|| work.walk())).map_err(|_| "panic".to_owned())?;
            if unpack::is_needless(&walked) {
                work.queue.never_wait();
                let finished = std::panic::catch_unwind(AssertUnwindSafe(|| work.finish(walked)));
                return finished.map_err(|_| "panic".to_owned());
            }
            view = Some(walked);
        }
        work.budget.pause();
        let rest = move || {
            work.budget.resume();
            let view = view.unwrap_or_else(|| work.walk());
            work.finish(view)
        };
        self.workers.run(rest).await.map_err(|error| error.to_string())
    }

    /// Whether these two recipients have to come in messages of their own, because not the same files are banned for them.
    pub(crate) fn separates(&self, one: &str, other: &str) -> bool {
        self.banned.separates(one, other)
    }
}

/// What a set of rules that cannot be loaded is in a configuration.
pub(crate) fn rules_mistake(error: LoadError) -> Mistakes {
    Mistake { origin: "configuration".to_owned(), key: "spam.rules".to_owned(), message: error.to_string() }.into()
}

/// The machine gives us no threads.
fn no_threads(error: std::io::Error) -> Mistakes {
    let message = format!("cannot start a thread for each processor: {error}");
    Mistake { origin: "configuration".to_owned(), key: "contentd".to_owned(), message }.into()
}

/// Notes a stage that broke off.
fn stage_failed(findings: &mut Findings, stage: &'static str) {
    counter!("octroi_contentd_stage_failures_total", "stage" => stage).increment(1);
    findings.add(Finding::new(FindingKind::StageFailed, "", stage));
}

fn size(raw: &Bytes) -> u64 {
    raw.len() as u64
}

/// A message that is taken apart: what that needs.
struct Work {
    raw: Bytes,
    limits: Limits,
    budget: Budget,
    checks: Arc<Checks>,
    banned: Arc<BannedFiles>,
    helpers: Option<Arc<Helpers>>,
    /// Tried after those in the message; none: no password is tried.
    passwords: Option<Arc<[String]>>,
    /// What engines get besides what is decoded.
    originals: Arc<[Original]>,
    until: std::time::Instant,
    recipients: Vec<String>,
    queue: Queue,
}

/// What has been found: by the decoders, by Postfix's tables, of files that are not allowed.
type Worked = (View, checks::Outcome, Vec<Banned>);

impl Work {
    /// Whether it takes so little time that the other sessions of this thread may wait for it.
    fn is_little(&self) -> bool {
        self.raw.len() <= SMALL && self.checks.is_empty()
    }

    fn walk(&mut self) -> View {
        parts::walk(&self.raw, &self.limits, &mut self.budget)
    }

    /// Opens archives, gives the engines what they should see, and applies tables and lists.
    fn finish(self, mut view: View) -> Worked {
        let Work { raw, limits, mut budget, checks, banned, helpers, passwords, originals, until, recipients, queue } =
            self;
        let (mail, texts) = as_it_came(&raw, &view, originals.contains(&Original::Mail));
        queue.put(mail, Seen::Nowhere);
        std::mem::take(&mut view.texts).into_iter().for_each(|text| queue.put(text.into(), texts));
        let words = || passwords.as_deref().map_or_else(Vec::new, |common| passwords::of(&raw, &limits, common, until));
        let members_only = !originals.contains(&Original::Archives);
        let means = unpack::Means { helpers: helpers.as_deref(), words: Some(&words), members_only };
        let view = unpack::unpack_with(means, view, &limits, &mut budget, &mut |kept| {
            let seen = if kept.alike { Seen::InArchive } else { Seen::Nowhere };
            queue.put(kept.bytes.into(), seen);
        });
        drop(queue);
        let mut checked = checks.run(&raw, &view.heads);
        let judged = banned.judge(&view.parts, &recipients);
        let renamed = rename::apply(&judged.renamed, &raw, &view.heads, &mut checked);
        (view, checked, [judged.banned, renamed].concat())
    }
}

/// Tells the metrics page what the pipeline's numbers mean.
pub fn describe_metrics() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    spam::stage::describe_metrics();
    describe_counter!("octroi_contentd_findings_total", "Findings in messages, by name");
    describe_counter!("octroi_contentd_members_total", "Files taken out of archives and documents, by format");
    describe_counter!("octroi_contentd_deadlines_total", "Messages whose inspection was not done in time");
    describe_counter!("octroi_contentd_stage_failures_total", "Stages that broke off because of a bug");
    describe_counter!("octroi_contentd_checks_total", "Lines that a table of Postfix has acted upon, by action");
    describe_counter!("octroi_contentd_check_limits_total", "Patterns of such tables that took too many steps");
    describe_counter!(
        "octroi_contentd_banned_rules_total",
        "Parts that a rule of [[banned.rule]] has fitted, by rule and action"
    );
    describe_counter!("octroi_contentd_splits_total", "Recipients asked to come in a message of their own");
    describe_histogram!("octroi_contentd_stage_seconds", "Time in one stage of the pipeline");
    describe_counter!("octroi_contentd_engine_scans_total", "Messages given to antivirus engines, by outcome");
    describe_counter!("octroi_contentd_engine_samples_total", "Pieces of messages given to antivirus engines");
    describe_counter!(
        "octroi_contentd_originals_left_out_total",
        "Messages and archives that engines got decoded only, by which of both"
    );
    describe_counter!(
        "octroi_contentd_originals_left_out_bytes_total",
        "Bytes of such messages and archives that no engine got as they are, by which of both"
    );
    describe_counter!(
        "octroi_contentd_engine_connections_total",
        "Connections to engines: fresh, kept, or found stale"
    );
    describe_histogram!("octroi_contentd_engine_seconds", "Time of one message at one engine");
    describe_gauge!("octroi_contentd_engine_up", "1 while an engine is asked, 0 while it is set aside");
    describe_gauge!("octroi_contentd_engine_signatures_age_seconds", "Age of an engine's signatures");
    describe_counter!("octroi_contentd_backups_total", "Messages for which backup engines were asked");
}
