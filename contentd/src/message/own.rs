// SPDX-License-Identifier: GPL-3.0-or-later
//! The header fields that contentd adds, made from the findings: they say what was done and nothing else.
//!
//! `X-Virus-Scanned` stands only on a message that a scanner has seen whole. On all others stands
//! `X-Octroi-Status` with the reason, because a field that claims too much is worse than none. `X-Octroi-Scanned` tells for each
//! engine what it has seen, with what, and why not.

use std::time::Duration;

use super::edit::{HeaderField, HeaderSettings, OwnField};
use crate::findings::{Findings, Outcome, PARSER, Scan};
use crate::spam::headers::Shown;
use crate::verdict::Category;

/// The fields for one message, in the order of the configuration. `hostname` is ours, `spam` what there is to show about spam.
pub fn fields(
    findings: &Findings,
    hostname: &str,
    settings: &HeaderSettings,
    spam: Option<&Shown>,
) -> Vec<HeaderField> {
    let missing = not_scanned(findings);
    let field = |own: &OwnField| {
        let value = match (own, &missing) {
            (OwnField::VirusScanned, None) => format!("Octroi at {hostname}"),
            (OwnField::Status, Some(why)) => why.clone(),
            (OwnField::Scanned, _) => scanned(findings, missing.is_none()),
            (OwnField::Id, _) => findings.id.clone(),
            (OwnField::VirusScanned, Some(_)) | (OwnField::Status, None) => return None,
            (field, _) => spam?.value(*field)?,
        };
        Some(HeaderField::new(own.name(), &value))
    };
    settings.add.iter().filter_map(field).collect()
}

/// Why the message cannot be called scanned; none when it can.
fn not_scanned(findings: &Findings) -> Option<String> {
    if findings.scans.is_empty() {
        return Some("not scanned for viruses (no scanner configured)".to_owned());
    }
    if findings.out_of_time {
        return Some("not scanned for viruses (out of time)".to_owned());
    }
    let answered = findings.is_answered();
    for scan in &findings.scans {
        match &scan.outcome {
            // Another one has seen it.
            Outcome::Failed(_) if answered && scan.scanner != PARSER => {}
            Outcome::Failed(_) => return Some(format!("not scanned for viruses ({} failed)", scan.scanner)),
            Outcome::Incomplete(why) => return Some(format!("partly scanned for viruses ({}: {why})", scan.scanner)),
            Outcome::Encrypted(what) => {
                return Some(format!("partly scanned for viruses ({}: encrypted {what})", scan.scanner));
            }
            Outcome::Clean | Outcome::Infected(_) => {}
        }
    }
    let unchecked = findings.found.iter().find(|finding| finding.kind.category() == Some(Category::Unchecked))?;
    Some(format!("partly scanned for viruses ({unchecked})"))
}

/// `whole; clamd=clean (ClamAV 1.4.6/27800, signatures 2 days old), sophos=failed (no answer in time ...)`.
fn scanned(findings: &Findings, whole: bool) -> String {
    let extent = match (whole, findings.is_answered() && !findings.out_of_time) {
        (true, _) => "whole",
        (false, true) => "partly",
        (false, false) => "no",
    };
    let engines: Vec<String> = findings.scans.iter().map(engine).collect();
    if engines.is_empty() { extent.to_owned() } else { format!("{extent}; {}", engines.join(", ")) }
}

fn engine(scan: &Scan) -> String {
    let (word, why) = match &scan.outcome {
        Outcome::Clean => ("clean", None),
        Outcome::Infected(names) => ("infected", names.first()),
        Outcome::Incomplete(why) => ("partly", Some(why)),
        Outcome::Encrypted(what) => ("encrypted", Some(what)),
        // What ails our scanners is for our log.
        Outcome::Failed(_) => ("failed", None),
    };
    let days = |age: Duration| match age.as_secs() / 86_400 {
        0 => "signatures of today".to_owned(),
        1 => "signatures 1 day old".to_owned(),
        days => format!("signatures {days} days old"),
    };
    let facts: Vec<String> =
        [why.cloned(), scan.version.clone(), scan.signatures_age.map(days)].into_iter().flatten().collect();
    match facts.is_empty() {
        true => format!("{}={word}", scan.scanner),
        false => format!("{}={word} ({})", scan.scanner, facts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{Finding, FindingKind};

    fn shown(findings: &Findings) -> Vec<String> {
        let fields = fields(findings, "mx.example.org", &HeaderSettings::default(), None);
        fields.iter().map(|field| format!("{}: {}", field.name(), field.value())).collect()
    }

    #[test]
    fn only_what_was_scanned_whole_is_called_scanned() {
        let scanned =
            |outcome| Findings { id: "ID".into(), scans: vec![Scan::new("clamd", outcome)], ..Findings::default() };
        let status = |text: &str, scanned: &str| {
            vec![
                format!("X-Octroi-Status: {text}"),
                format!("X-Octroi-Scanned: {scanned}"),
                "X-Octroi-ID: ID".to_owned(),
            ]
        };
        assert_eq!(
            shown(&scanned(Outcome::Clean)),
            ["X-Virus-Scanned: Octroi at mx.example.org", "X-Octroi-Scanned: whole; clamd=clean", "X-Octroi-ID: ID"]
        );
        let none = Findings { id: "ID".into(), ..Findings::default() };
        assert_eq!(shown(&none), status("not scanned for viruses (no scanner configured)", "no"));
        assert_eq!(
            shown(&scanned(Outcome::Failed("x".into()))),
            status("not scanned for viruses (clamd failed)", "no; clamd=failed")
        );
        assert_eq!(
            shown(&scanned(Outcome::Incomplete("MaxFileSize".into()))),
            status("partly scanned for viruses (clamd: MaxFileSize)", "partly; clamd=partly (MaxFileSize)")
        );
        let mut deep = scanned(Outcome::Clean);
        deep.found.push(Finding::new(FindingKind::OverLimits, "1.2", "depth"));
        assert_eq!(
            shown(&deep),
            status("partly scanned for viruses (over-limits part=1.2 (depth))", "partly; clamd=clean")
        );
        let mut odd = scanned(Outcome::Clean);
        odd.found.push(Finding::new(FindingKind::HeaderSyntax, "", ""));
        assert_eq!(shown(&odd)[0], "X-Virus-Scanned: Octroi at mx.example.org");
        let late = Findings { out_of_time: true, ..scanned(Outcome::Clean) };
        assert_eq!(shown(&late)[1], "X-Octroi-Scanned: no; clamd=clean");
    }

    #[test]
    fn each_engine_says_what_it_has_seen_and_with_what() {
        let clamd = Scan {
            version: Some("ClamAV 1.4.6/27800".into()),
            signatures_age: Some(Duration::from_secs(2 * 86_400)),
            ..Scan::new("clamd", Outcome::Clean)
        };
        let findings =
            Findings { scans: vec![clamd, Scan::new("sophos", Outcome::Failed("x".into()))], ..Findings::default() };
        assert_eq!(
            shown(&findings)[1],
            "X-Octroi-Scanned: whole; clamd=clean (ClamAV 1.4.6/27800, signatures 2 days old), sophos=failed"
        );
        assert!(shown(&findings)[0].starts_with("X-Virus-Scanned: "));
    }
}
