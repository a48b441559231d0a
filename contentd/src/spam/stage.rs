// SPDX-License-Identifier: GPL-3.0-or-later
//! The last stage of the pipeline: the spam rules, on the threads for such work, and the score of the message. Finds, decides nothing.

use std::sync::Arc;

use common::config::{Mistake, Mistakes};
use metrics::{counter, histogram};
use tokio::time::Instant;

use super::job::{Done, Job, Limits};
use super::lookup::{self, Lookups};
use super::notebook::Notebook;
use super::set::Rules;
use super::{STAGE, rounded};
use crate::ambiguity::AmbiguitySettings;
use crate::config::Settings;
use crate::envelope::Envelope;
use crate::findings::{Finding, FindingKind, Findings, Spam};
use crate::spool::Message;
use crate::workers::Workers;
use spamrules::{Reason, Report};

/// How often answers may lead to further questions: name servers of a domain, their addresses, those in a list.
const ROUNDS: usize = 3;

/// The stage, ready for use.
#[derive(Debug)]
pub struct Stage {
    rules: Arc<Rules>,
    limits: Limits,
    /// The score from which on messages are tagged; none: what the rules say.
    tag_level: Option<f64>,
    /// Further scores at which something changes: of spam, of header fields.
    further_levels: Vec<f64>,
    /// Whether all rules run for every message.
    all: bool,
    ambiguity: AmbiguitySettings,
    /// Who asks the network; none: nobody does.
    lookups: Option<Lookups>,
    /// Our name.
    hostname: String,
    /// Shared with other stages.
    workers: Arc<Workers>,
}

impl Stage {
    /// Makes it ready. Error: there are no name servers to ask.
    pub fn new(settings: &Settings, rules: Arc<Rules>, workers: Arc<Workers>) -> Result<Stage, Mistakes> {
        Ok(Stage {
            lookups: lookups(settings)?,
            rules,
            limits: Limits::of(&settings.spam),
            tag_level: settings.spam.tag_level.map(|level| level.0),
            further_levels: [Some(settings.spam.kill_level), settings.spam.header_level]
                .into_iter()
                .flatten()
                .map(|level| level.0)
                .collect(),
            all: settings.spam.all,
            ambiguity: settings.ambiguity.clone(),
            hostname: settings.contentd.own_name(),
            workers,
        })
    }

    /// The rules.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Bytes of a message that the rules see at most.
    pub fn sees(&self) -> usize {
        self.limits.size
    }

    /// Runs the rules, `whole`: all of them, whatever is configured. Err: the stage broke off.
    pub async fn run(
        &self,
        envelope: &Envelope,
        message: &Message,
        findings: &mut Findings,
        deadline: Instant,
        whole: bool,
    ) -> Result<(), String> {
        let Some(rules) = self.rules.current() else { return Ok(()) };
        let started = Instant::now();
        let raw = message.head(self.limits.size).await.map_err(|error| error.to_string())?;
        if (raw.len() as u64) < message.len() {
            partial(findings, "size");
        }
        let mut job = Job::new(Arc::clone(&rules), envelope, &self.hostname, raw, self.limits);
        let (others, required) = (self.others(findings), self.tag_level.unwrap_or(rules.rules.required()));
        if !(whole || self.all) {
            job.levels = self.further_levels.iter().chain([&required]).map(|level| level - others).collect();
        }
        if let Some(lookups) = &self.lookups {
            job.notebook = Notebook::new(envelope, lookups.most());
        }
        let done = self.rate(job, findings, deadline).await;
        histogram!("octroi_contentd_stage_seconds", "stage" => STAGE).record(started.elapsed().as_secs_f64());
        let Done { report, cpu, .. } = done?;
        histogram!("octroi_contentd_spam_cpu_seconds").record(cpu.as_secs_f64());
        note(&report, findings);
        if !report.set_aside.is_empty() {
            self.rules.look_for_switched_off();
        }
        let score = rounded(report.score + others);
        findings.spam = Some(Spam { score, required, report, rules });
        Ok(())
    }

    /// Runs the rules, looks up what they ask, and goes on with what has come.
    async fn rate(&self, job: Job, findings: &mut Findings, deadline: Instant) -> Result<Done, String> {
        let (mut job, mut done) = self.on_processor(job, deadline).await?;
        let Some(lookups) = &self.lookups else { return Ok(done) };
        let until = deadline.min(Instant::now() + lookups.time());
        for _ in 0..ROUNDS {
            if done.waiting.is_none() || Instant::now() >= until {
                break;
            }
            let questions = job.notebook.take_wanted();
            if questions.is_empty() {
                break;
            }
            let telling = job.notebook.learn(lookups.ask(questions, until).await);
            if !telling {
                // The report says already what it would say with "nothing".
                done.waiting = None;
                break;
            }
            let cpu = done.cpu;
            job.waiting = done.waiting.take();
            job.limits.time = self.limits.time.saturating_sub(cpu);
            (job, done) = self.on_processor(job, deadline).await?;
            done.cpu += cpu;
        }
        note_asked(&job.notebook, done.waiting.is_some(), findings);
        Ok(done)
    }

    /// Runs the rules when a processor is free.
    async fn on_processor(&self, mut job: Job, deadline: Instant) -> Result<(Job, Done), String> {
        let run = move || {
            job.limits.time = job.limits.time.min(deadline.saturating_duration_since(Instant::now()));
            let done = job.run();
            (job, done)
        };
        self.workers.run(run).await.map_err(|error| error.to_string())
    }

    /// What others have found that is a sign of spam.
    fn others(&self, findings: &Findings) -> f64 {
        let others: f64 = findings.symbols.iter().map(|symbol| symbol.score).sum();
        let ambiguities: f64 = self.ambiguity.scores(findings).iter().map(|(_, points)| points.value()).sum();
        others + ambiguities
    }
}

/// Who asks the network, where that is wanted.
fn lookups(settings: &Settings) -> Result<Option<Lookups>, Mistakes> {
    let spam = &settings.spam;
    if !spam.network || spam.rules.is_empty() {
        return Ok(None);
    }
    let wrong = |message| Mistake { origin: "configuration".to_owned(), key: "dns.servers".to_owned(), message };
    let resolver = settings.dns.resolver().map_err(wrong)?;
    Ok(Some(Lookups::new(spam, resolver, settings.contentd.own_name())))
}

/// Notes what has come of the questions. `open`: rules still wait for answers.
fn note_asked(notebook: &Notebook, open: bool, findings: &mut Findings) {
    findings.asked = notebook.asked();
    findings.spf = notebook.spf_word();
    if notebook.is_full() && findings.asked.asked > 0 {
        partial(findings, "questions");
    }
    if open || findings.asked.answered < findings.asked.asked {
        partial(findings, "network");
    }
}

/// Notes what the rules have not seen.
fn partial(findings: &mut Findings, why: &'static str) {
    counter!("octroi_contentd_spam_partial_total", "why" => why).increment(1);
    findings.add(Finding::new(FindingKind::RulesPartial, "", why));
}

/// Notes what was left out.
fn note(report: &Report, findings: &mut Findings) {
    if !report.complete {
        partial(findings, "time");
    }
    if report.uris_missing {
        partial(findings, "uris");
    }
    if report.bound.is_some_and(|bound| bound.left > 0) {
        counter!("octroi_contentd_spam_bounded_total").increment(1);
    }
    for aside in &report.set_aside {
        let reason = match aside.reason {
            Reason::Steps => "steps",
            Reason::Time => "time",
        };
        counter!("octroi_contentd_spam_set_aside_total", "reason" => reason).increment(1);
        let spent_ms = u64::try_from(aside.spent.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(id = findings.id, rule = aside.rule, reason, spent_ms, "a spam rule was set aside");
        findings.add(Finding::new(FindingKind::RulesPartial, "", format!("{} {reason}", aside.rule)));
    }
}

/// Tells the metrics page what the stage's numbers mean.
pub fn describe_metrics() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_histogram!("octroi_contentd_spam_cpu_seconds", "Processor time of the spam rules for one message");
    describe_counter!(
        "octroi_contentd_spam_partial_total",
        "Messages of which the spam rules have not seen all, by why"
    );
    describe_counter!("octroi_contentd_spam_set_aside_total", "Spam rules given up for one message, by reason");
    describe_counter!("octroi_contentd_spam_reloads_total", "Times the spam rules were read again, by outcome");
    describe_gauge!(
        "octroi_contentd_spam_generation",
        "Number of the set of spam rules in force; it grows with each one"
    );
    describe_gauge!("octroi_contentd_spam_rules", "Rules of the set in force");
    describe_gauge!(
        "octroi_contentd_spam_rules_off",
        "Rules of it that were set aside too often and do not run for an hour"
    );
    describe_gauge!("octroi_contentd_spam_rule_off", "1 while this rule is switched off");
    describe_counter!("octroi_contentd_spam_bounded_total", "Messages for which not all rules had to run");
    lookup::describe_metrics();
    describe_gauge!("octroi_contentd_spam_rule_errors", "Wrong lines in the files of the set in force");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Client, MessageId, Path};
    use crate::pipeline::Pipeline;
    use crate::verdict::{Category, decide};
    use common::config::Source;
    use std::time::Duration;

    #[tokio::test]
    async fn what_cannot_change_the_action_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let rules = "body A /heavy/\nscore A 20\nbody B /light/\nscore B 0.5\n";
        std::fs::write(folder.path().join("a.cf"), rules).unwrap();
        let text = format!("[spam]\nrules = [\"{}\"]\n", folder.path().display());
        let settings = Settings::read(&Source::from_text("f", &text).unwrap()).unwrap();
        let pipeline = Pipeline::new(&settings).unwrap();
        let envelope = Envelope::new(MessageId::generate(), Path::from_address(""), Client::default());
        let message = Message::from_bytes(b"From: a@b.test\nDate: x\n\nheavy and light\n".to_vec());
        let deadline = Instant::now() + Duration::from_secs(60);
        let whole = pipeline.inspect_whole(&envelope, &message, deadline).await;
        let spam = whole.spam.as_ref().unwrap();
        assert_eq!((spam.score, spam.report.hits.len(), spam.report.bound), (20.5, 2, None));
        let quick = pipeline.inspect(&envelope, &message, deadline).await;
        let spam = quick.spam.as_ref().unwrap();
        let bound = spam.report.bound.unwrap();
        assert!(bound.low >= 15.0 && spam.score >= 15.0, "{spam:?}");
        for findings in [&whole, &quick] {
            assert_eq!(decide(findings, &settings.policy()).category, Category::Spam);
        }
    }
}
