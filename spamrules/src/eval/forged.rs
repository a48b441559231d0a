// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests whether mail that claims to be from a large provider has the `Received` fields that the provider's servers write.
//!
//! The formats are those that rules were written for; a provider that changes its servers makes them hit, so their scores are low.

use std::rc::Rc;

use super::matching::{has, ip, on_one_line, pattern};
use super::{Argument, Eval};
use crate::context::Context;
use crate::headers::{found, text};
use crate::relays::Which;

pub(super) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "check_for_fake_aol_relay_in_rcvd" => check_for_fake_aol_relay_in_rcvd,
        "check_for_forged_hotmail_received_headers" => |context, _| u32::from(hotmail(context).forged),
        "check_for_no_hotmail_received_headers" => |context, _| u32::from(hotmail(context).missing),
        "check_for_msn_groups_headers" => |context, _| u32::from(msn_groups(context)),
        "check_for_forged_eudoramail_received_headers" => check_for_forged_eudoramail_received_headers,
        "check_for_forged_yahoo_received_headers" => check_for_forged_yahoo_received_headers,
        "check_for_forged_juno_received_headers" => check_for_forged_juno_received_headers,
        "check_for_forged_gmail_received_headers" => check_for_forged_gmail_received_headers,
        "check_for_forged_gw05_received_headers" => check_for_forged_gw05_received_headers,
        _ => return None,
    })
}

/// Whether the message went through a list that removes `Received` fields, or has none.
pub(super) fn gated(context: &Context<'_>) -> bool {
    let received = found(context, "Received");
    let list = found(context, "Mailing-List").unwrap_or_default();
    let ezmlm = has!(r"(?m)^contact \S+@\S+; run by ezmlm$", list)
        && has!(r"(?m)^mailing list \S+@\S+", text(context, "Delivered-To"))
        && received.as_ref().is_some_and(|r| has!(r"qmail \d+ invoked (?:from network|by .{3,20})\); \d+ ... \d+", r));
    ezmlm || received.is_none_or(|r| has!(r"from groups\.msn\.com \(\S+\.msn\.com ", r))
}

fn from_is_at(context: &Context<'_>, domain: &str) -> bool {
    let from = text(context, "From:addr").to_ascii_lowercase();
    from.strip_suffix(domain).is_some_and(|rest| !rest.bytes().next_back().is_some_and(crate::relays::ip::is_word))
}

fn check_for_fake_aol_relay_in_rcvd(context: &Context<'_>, _: &[Argument]) -> u32 {
    let received = on_one_line(&text(context, "Received"));
    let named = has!(r"(?i) rly-[a-z][a-z]\d\d\.", received);
    let real = has!(r"/AOL-\d+\.\d+\.\d+\)", received) || has!(r"ESMTP id (?:RELAY|MAILRELAY|MAILIN)", received);
    u32::from(named && !real)
}

/// What the fields say of mail from Hotmail.
#[derive(Debug, Default)]
struct Hotmail {
    /// A host claims the name without the provider's fields.
    forged: bool,
    /// The author is there, but no server of theirs.
    missing: bool,
}

fn hotmail(context: &Context<'_>) -> Rc<Hotmail> {
    context.memo(|context| {
        let received = on_one_line(&text(context, "Received"));
        if hotmail_is_real(context, &received) {
            return Hotmail::default();
        }
        let forged = has!(r"(?:from |HELO |helo=)\S*hotmail\.com\b", received);
        Hotmail { forged, missing: !forged && from_is_at(context, "hotmail.com") }
    })
}

fn hotmail_is_real(context: &Context<'_>, received: &str) -> bool {
    if received.contains("from mail pickup service by hotmail.com with Microsoft SMTPSVC;")
        || msn_groups(context)
        || gated(context)
    {
        return true;
    }
    let address = found(context, "X-Originating-Ip").is_some_and(|v| crate::relays::ip::find(v.as_bytes()).is_some());
    let tenant =
        found(context, "X-OriginatorOrg").is_some_and(|v| v.contains("hotmail.com") || v.contains("msonline-outlook"));
    let old = || {
        has!(r"from (?:\S*\.)?hotmail.com \(\S+\.hotmail(?:\.msn)?\.com[ \)]", received)
            || has!(concat!(r"from \S*\.hotmail.com \(\[", ip!(), r"\][ \):]"), received)
            || has!(r"from \S+ by \S+\.hotmail(?:\.msn)?\.com with HTTP;", received)
            || has!(r"from \[66\.218.\S+\] by \S+\.yahoo\.com", received)
    };
    let new = || {
        has!(r"from \S*\.outbound\.protection\.outlook\.com \(\S+\.outbound\.protection\.outlook\.com[ \)]", received)
            || has!(concat!(r"from \S*\.(?:eur|nam)prd\d+\.prod\.outlook\.com \(", ip!(), r"\)"), received)
    };
    (address && old()) || (tenant && new())
}

/// Mail of MSN's groups, which Hotmail handed over without fields.
fn msn_groups(context: &Context<'_>) -> bool {
    let to = text(context, "To");
    let group =
        pattern!(r"(?i)<(\S+)@groups\.msn\.com>").captures(to.as_bytes()).and_then(|c| c.get(1)).map(|m| m.as_bytes());
    let received = text(context, "Received");
    let server = pattern!(r"from mail pickup service by (p\d\d\.groups\.msn\.com)\b").captures(received.as_bytes());
    let (Some(group), Some(server)) = (group, server.and_then(|c| c.get(1))) else { return false };
    let group = String::from_utf8_lossy(group);
    let server = String::from_utf8_lossy(server.as_bytes());
    let id = text(context, "Message-Id");
    if group == "notifications" {
        return id.starts_with('<') && id.contains(&format!("@{server}>"));
    }
    id.starts_with(&format!("<{group}-"))
        && id.contains("@groups.msn.com>")
        && text(context, "EnvelopeFrom:addr").contains(&format!("{group}-bounce@groups.msn.com"))
}

fn check_for_forged_eudoramail_received_headers(context: &Context<'_>, _: &[Argument]) -> u32 {
    if !from_is_at(context, "eudoramail.com") || gated(context) {
        return 0;
    }
    let received = on_one_line(&text(context, "Received"));
    let address = found(context, "X-Sender-Ip").is_some_and(|v| crate::relays::ip::find(v.as_bytes()).is_some());
    u32::from(!(address && has!(r"by \S*whowhere.com;", received)))
}

fn check_for_forged_yahoo_received_headers(context: &Context<'_>, _: &[Argument]) -> u32 {
    if !from_is_at(context, "yahoo.com") || gated(context) {
        return 0;
    }
    let mut received = text(context, "Received");
    if !text(context, "Resent-From").is_empty() && !text(context, "Resent-To").is_empty() {
        received = found(context, "X-Received").unwrap_or(received);
    }
    let received = on_one_line(&received);
    let relays = context.relays();
    let bounce = has!(r" rdns=\S+\.yahoo\.com ", relays.text(Which::Trusted))
        || has!(r"^[^\]]+ rdns=\S+\.yahoo\.com ", relays.text(Which::Untrusted));
    let server = || {
        has!(r"by web\S+\.mail\S*\.yahoo\.com via HTTP", received)
            || has!(r"by sonic\S+\.consmr\.mail\S*\.yahoo\.com with HTTP", received)
            || has!(r"by smtp\S+\.yahoo\.com with SMTP", received)
            || has!(concat!(r"from \[", ip!(), r"\] by \S+\.(?:groups|scd|dcn)\.yahoo\.com with NNFMP"), received)
            || has!(r"by \w+\.\w+\.yahoo\.com \(\d+\.\d+\.\d+/\d+\.\d+\.\d+\)(?: with ESMTP)? id \w+", received)
    };
    let story = || has!(r"\bmailer\d+\.bulk\.scd\.yahoo\.com\b", received) && from_is_at(context, "@reply.yahoo.com");
    u32::from(!bounce && !server() && !story())
}

fn check_for_forged_juno_received_headers(context: &Context<'_>, _: &[Argument]) -> u32 {
    if !from_is_at(context, "juno.com") || gated(context) {
        return 0;
    }
    let (origin, mailer, received) =
        (text(context, "X-Originating-IP"), text(context, "X-Mailer"), text(context, "Received"));
    if !origin.is_empty() {
        let server = has!(concat!(r"from.*\b(?:juno|untd)\.com.*[\[\(]", ip!(), r"[\]\)].*by"), received)
            || has!(r" cookie\.(?:juno|untd)\.com ", received);
        return u32::from(!server || !mailer.contains("Juno "));
    }
    let webmail = pattern!(concat!(r"from (webmail\S+\.untd\.com) \((webmail\S+\.untd\.com) \[", ip!(), r"\]\) by"));
    let same = |c: regex::bytes::Captures<'_>| c.get(1).map(|m| m.as_bytes()) == c.get(2).map(|m| m.as_bytes());
    let real = if has!(concat!(r"from.*\bmail\.com.*\[", ip!(), r"\].*by"), received) {
        has!(r"\bmail\.com", mailer)
    } else {
        webmail.captures_iter(received.as_bytes()).any(same) && has!(r"^Webmail Version \d", mailer)
    };
    // Without the field there is no address in it either: this form always counts as forged.
    u32::from(!real || crate::relays::ip::find(origin.as_bytes()).is_none())
}

fn check_for_forged_gmail_received_headers(context: &Context<'_>, _: &[Argument]) -> u32 {
    /// Shortest values of the fields that Google's servers add.
    const SHORTEST: usize = 60;
    if !from_is_at(context, "gmail.com") {
        return 0;
    }
    let received = text(context, "X-Received");
    let inner =
        has!(r"by 10\.\S+ with SMTP id \S+", received) || has!(r"by 2002:a\d\d:\w+:\S+ with SMTP id \S+", received);
    let outer = has!(r"by smtp\.googlemail\.com with ESMTPSA id \S+", text(context, "Received"));
    let long = |field: &str| text(context, field).len() >= SHORTEST;
    let marked = long("X-Gm-Message-State") && long("X-Google-Smtp-Source");
    u32::from(!inner && !outer && !marked)
}

fn check_for_forged_gw05_received_headers(context: &Context<'_>, _: &[Argument]) -> u32 {
    let received = text(context, "Received");
    let form = pattern!(
        r"\nfrom\s(\S+)\sby\s(\S+)\swith\sESMTP;\s+\S\S\S,\s+\d+\s+\S\S\S\s+\d{4}\s+\d\d:\d\d:\d\d\s+[-+]*\d{4}\n\z"
    );
    let server = form.captures(received.as_bytes()).and_then(|c| c.get(2));
    u32::from(server.is_some_and(|name| !name.as_bytes().contains(&b'.')))
}

#[cfg(test)]
mod tests {
    use super::super::tests::eval;

    const LINE: &str =
        "Received: from x.example.org (x.example.org [203.0.113.1]) by b.example.org (Postfix) with SMTP id 1111\n";

    #[test]
    fn a_provider_without_its_servers() {
        for (from, name) in [
            ("a@hotmail.com", "check_for_no_hotmail_received_headers"),
            ("a@yahoo.com", "check_for_forged_yahoo_received_headers"),
            ("a@juno.com", "check_for_forged_juno_received_headers"),
            ("a@gmail.com", "check_for_forged_gmail_received_headers"),
            ("a@eudoramail.com", "check_for_forged_eudoramail_received_headers"),
        ] {
            assert_eq!(eval(&format!("{LINE}From: {from}\n"), name, &[]), 1, "{name}");
            assert_eq!(eval(&format!("{LINE}From: a@example.org\n"), name, &[]), 0, "{name}");
        }
    }

    #[test]
    fn real_servers() {
        let yahoo = "Received: from [203.0.113.1] by web1.mail.yahoo.com via HTTP; x\nFrom: a@yahoo.com\n";
        assert_eq!(eval(yahoo, "check_for_forged_yahoo_received_headers", &[]), 0);
        let hotmail = "Received: from hotmail.com (f1.law8.hotmail.com [203.0.113.1]) by b.example.org (Postfix) with SMTP id 1\n\
                       X-Originating-IP: [203.0.113.9]\nFrom: a@hotmail.com\n";
        assert_eq!(eval(hotmail, "check_for_forged_hotmail_received_headers", &[]), 0);
        let forged =
            "Received: from hotmail.com (x.example.org [203.0.113.1]) by b.example.org (Postfix) with SMTP id 1\n";
        assert_eq!(eval(forged, "check_for_forged_hotmail_received_headers", &[]), 1);
        assert_eq!(eval(" x: y\nFrom: a@hotmail.com\n", "gated_through_received_hdr_remover", &[]), 1);
    }

    #[test]
    fn aol() {
        let fake = "Received: from rly-ab12.mx.aol.com ([203.0.113.1]) by b.example.org with SMTP id 1\n";
        assert_eq!(eval(fake, "check_for_fake_aol_relay_in_rcvd", &[]), 1);
        assert_eq!(eval(LINE, "check_for_fake_aol_relay_in_rcvd", &[]), 0);
    }
}
