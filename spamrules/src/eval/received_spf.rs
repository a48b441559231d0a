// SPDX-License-Identifier: GPL-3.0-or-later
//! What hosts of ours have found out about SPF and left in the message: `Received-SPF` fields (RFC 7208 section 9.1).
//!
//! Only fields above the `Received` field of the first host that is not ours are believed; what stands below, anybody can have written. A message
//! without any `Received` field has come from nobody known, and none of its fields is believed.

use super::matching::pattern;
use crate::answers::{SpfIdentity, SpfResult};
use crate::context::Context;
use crate::headers::{self, Selector};

/// Directives about these fields.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    ignored: bool,
    /// Whether the newest field counts, not the oldest.
    newest: bool,
}

impl Settings {
    /// Takes a directive; `None` when it is none of these.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        let switch = match key {
            "ignore_received_spf_header" => &mut self.ignored,
            "use_newest_received_spf_header" => &mut self.newest,
            _ => return None,
        };
        Some(match value.trim() {
            "0" | "1" => {
                *switch = value.trim() == "1";
                Ok(())
            }
            other => Err(format!("{other:?} is neither 1 nor 0")),
        })
    }
}

/// What the fields say, per identity.
#[derive(Default)]
struct Told {
    helo: Option<SpfResult>,
    sender: Option<SpfResult>,
}

/// The result that a host of ours has left.
pub(super) fn told(context: &Context<'_>, identity: SpfIdentity) -> Option<SpfResult> {
    let told = context.memo(read);
    match identity {
        SpfIdentity::Helo => told.helo,
        SpfIdentity::MailFrom => told.sender,
    }
}

fn read(context: &Context<'_>) -> Told {
    let settings = &context.settings.received_spf;
    let fields = context.message.headers();
    let mut told = Told::default();
    if settings.ignored || fields.first("received-spf").is_none() || fields.first("received").is_none() {
        return told;
    }
    let mut fields = headers::values(context, &Selector::of("ALL-INTERNAL"));
    if !settings.newest {
        fields.reverse();
    }
    for (identity, result) in fields.iter().filter_map(|field| parse(field)) {
        let slot = match identity {
            SpfIdentity::Helo => &mut told.helo,
            SpfIdentity::MailFrom => &mut told.sender,
        };
        slot.get_or_insert(result);
    }
    told
}

/// The result of a field, and whose it is; without a word about that it is the sender's.
fn parse(field: &[u8]) -> Option<(SpfIdentity, SpfResult)> {
    let found = pattern!(r"(?i)^received-spf:\s*([a-z]+)\b").captures(field)?;
    let result = match found.get(1)?.as_bytes().to_ascii_lowercase().as_slice() {
        b"pass" => SpfResult::Pass,
        b"neutral" => SpfResult::Neutral,
        b"softfail" => SpfResult::SoftFail,
        b"fail" => SpfResult::Fail,
        b"none" => SpfResult::None,
        b"temperror" => SpfResult::TempError,
        b"permerror" => SpfResult::PermError,
        _ => return None,
    };
    let identity = pattern!(r"(?i)\bidentity=([a-z]+)").captures_iter(field).last();
    let identity = identity.and_then(|found| found.get(1)).map(|name| name.as_bytes().to_ascii_lowercase());
    match identity.as_deref() {
        None | Some(b"mfrom" | b"mailfrom") => Some((SpfIdentity::MailFrom, result)),
        Some(b"helo") => Some((SpfIdentity::Helo, result)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use crate::answers::NoAnswers;

    const FROM_OUTSIDE: &str =
        "Received: from a.example.org (a.example.org [203.0.113.7]) by mx.example.com (Postfix) with SMTP id 1111\n";

    fn hits(header: &str, directives: &[(&str, &str)], function: &str) -> bool {
        with(&format!("{header}From: a@example.org\n\nbody\n"), directives, &NoAnswers, function, &[]) > 0
    }

    #[test]
    fn fields_of_ours_are_believed() {
        let ours = format!(
            "Received-SPF: Pass (x) identity=mailfrom; client-ip=203.0.113.7\nReceived-SPF: none identity=helo;\n{FROM_OUTSIDE}"
        );
        assert!(hits(&ours, &[], "check_for_spf_pass") && hits(&ours, &[], "check_for_spf_helo_none"));
        assert!(!hits(&ours, &[("ignore_received_spf_header", "1")], "check_for_spf_pass"));
        let old = format!("Received-SPF: softfail (example.org: domain of x)\n{FROM_OUTSIDE}");
        assert!(hits(&old, &[], "check_for_spf_softfail"));
        let unknown = format!("Received-SPF: pass identity=pra\n{FROM_OUTSIDE}");
        assert!(!hits(&unknown, &[], "check_for_spf_pass"));
    }

    #[test]
    fn the_oldest_counts() {
        let two = format!("Received-SPF: fail\nReceived-SPF: pass\n{FROM_OUTSIDE}");
        assert!(hits(&two, &[], "check_for_spf_pass") && !hits(&two, &[], "check_for_spf_fail"));
        assert!(hits(&two, &[("use_newest_received_spf_header", "1")], "check_for_spf_fail"));
    }

    #[test]
    fn others_are_not() {
        assert!(!hits(&format!("{FROM_OUTSIDE}Received-SPF: pass\n"), &[], "check_for_spf_pass"));
        assert!(!hits("Received-SPF: pass\n", &[], "check_for_spf_pass"));
    }
}
