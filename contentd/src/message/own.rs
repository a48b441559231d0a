// SPDX-License-Identifier: GPL-3.0-or-later
//! The header fields that contentd adds, made from the findings: they say what was done and nothing else.
//!
//! `X-Virus-Scanned` stands only on a message that a scanner has seen whole. On all others stands
//! `X-Octroi-Status` with the reason, because a field that claims too much is worse than none.

use super::edit::{HeaderField, HeaderSettings, OwnField};
use crate::findings::{Findings, Outcome};
use crate::verdict::Category;

/// The fields for one message, in the order of the configuration. `hostname` is ours.
pub fn fields(findings: &Findings, hostname: &str, settings: &HeaderSettings) -> Vec<HeaderField> {
    let missing = not_scanned(findings);
    let field = |own: &OwnField| {
        let value = match (own, &missing) {
            (OwnField::VirusScanned, None) => format!("Octroi at {hostname}"),
            (OwnField::Status, Some(why)) => why.clone(),
            (OwnField::Id, _) => findings.id.clone(),
            (OwnField::VirusScanned, Some(_)) | (OwnField::Status, None) => return None,
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
    for scan in &findings.scans {
        match &scan.outcome {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{Finding, FindingKind, Scan};

    fn shown(findings: &Findings) -> Vec<String> {
        let fields = fields(findings, "mx.example.org", &HeaderSettings::default());
        fields.iter().map(|field| format!("{}: {}", field.name(), field.value())).collect()
    }

    #[test]
    fn only_what_was_scanned_whole_is_called_scanned() {
        let scanned = |outcome| Findings {
            id: "ID".into(),
            scans: vec![Scan { scanner: "clamd", outcome }],
            ..Findings::default()
        };
        let status = |text: &str| vec![format!("X-Octroi-Status: {text}"), "X-Octroi-ID: ID".to_owned()];
        assert_eq!(shown(&scanned(Outcome::Clean)), ["X-Virus-Scanned: Octroi at mx.example.org", "X-Octroi-ID: ID"]);
        let none = Findings { id: "ID".into(), ..Findings::default() };
        assert_eq!(shown(&none), status("not scanned for viruses (no scanner configured)"));
        assert_eq!(shown(&scanned(Outcome::Failed("x".into()))), status("not scanned for viruses (clamd failed)"));
        assert_eq!(
            shown(&scanned(Outcome::Incomplete("MaxFileSize".into()))),
            status("partly scanned for viruses (clamd: MaxFileSize)")
        );
        let mut deep = scanned(Outcome::Clean);
        deep.found.push(Finding::new(FindingKind::OverLimits, "1.2", "depth"));
        assert_eq!(shown(&deep), status("partly scanned for viruses (over-limits part=1.2 (depth))"));
        let mut odd = scanned(Outcome::Clean);
        odd.found.push(Finding::new(FindingKind::HeaderSyntax, "", ""));
        assert_eq!(shown(&odd)[0], "X-Virus-Scanned: Octroi at mx.example.org");
    }
}
