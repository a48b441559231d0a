// SPDX-License-Identifier: GPL-3.0-or-later
//! The last stage of the pipeline: the spam rules, on the threads for such work, and the score of the message. Finds, decides nothing.

use std::sync::Arc;

use metrics::{counter, histogram};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::job::{Done, Job, Limits};
use super::set::Rules;
use super::{STAGE, rounded};
use crate::ambiguity::AmbiguitySettings;
use crate::config::Settings;
use crate::envelope::Envelope;
use crate::findings::{Finding, FindingKind, Findings, Spam};
use crate::spool::Message;
use spamrules::{Reason, Report};

/// The stage, ready for use.
#[derive(Debug)]
pub struct Stage {
    rules: Arc<Rules>,
    limits: Limits,
    /// The score from which on messages are tagged; none: what the rules say.
    tag_level: Option<f64>,
    ambiguity: AmbiguitySettings,
    /// Our name.
    hostname: String,
    /// One permit per processor, shared with other stages.
    processors: Arc<Semaphore>,
}

impl Stage {
    /// Makes it ready.
    pub fn new(settings: &Settings, rules: Arc<Rules>, processors: Arc<Semaphore>) -> Stage {
        Stage {
            rules,
            limits: Limits::of(&settings.spam),
            tag_level: settings.spam.tag_level.map(|level| level.0),
            ambiguity: settings.ambiguity.clone(),
            hostname: settings.contentd.own_name(),
            processors,
        }
    }

    /// The rules.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Runs the rules. Err: the stage broke off.
    pub async fn run(
        &self,
        envelope: &Envelope,
        message: &Message,
        findings: &mut Findings,
        deadline: Instant,
    ) -> Result<(), String> {
        let Some(rules) = self.rules.current() else { return Ok(()) };
        let started = Instant::now();
        let raw = message.head(self.limits.size).await.map_err(|error| error.to_string())?;
        if (raw.len() as u64) < message.len() {
            partial(findings, "size");
        }
        let mut job = Job::new(Arc::clone(&rules), envelope, &self.hostname, raw, self.limits);
        // The semaphore is never closed, so this always gives a permit.
        let permit = Arc::clone(&self.processors).acquire_owned().await;
        job.limits.time = job.limits.time.min(deadline.saturating_duration_since(Instant::now()));
        let run = move || {
            let _permit = permit;
            job.run()
        };
        let done = tokio::task::spawn_blocking(run).await;
        histogram!("octroi_contentd_stage_seconds", "stage" => STAGE).record(started.elapsed().as_secs_f64());
        let Done { report, cpu } = done.map_err(|error| error.to_string())?;
        histogram!("octroi_contentd_spam_cpu_seconds").record(cpu.as_secs_f64());
        note(&report, findings);
        let score = self.score(&report, findings);
        let required = self.tag_level.unwrap_or(report.required);
        findings.spam = Some(Spam { score, required, report, rules });
        Ok(())
    }

    /// What the rules say, and what others have found that is a sign of spam.
    fn score(&self, report: &Report, findings: &Findings) -> f64 {
        let others: f64 = findings.symbols.iter().map(|symbol| symbol.score).sum();
        let ambiguities: f64 = self.ambiguity.scores(findings).iter().map(|(_, points)| points.value()).sum();
        rounded(report.score + others + ambiguities)
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
    describe_gauge!("octroi_contentd_spam_rule_errors", "Wrong lines in the files of the set in force");
}
