// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of header fields: characters, subjects, message ids, recipients. Forged `Received` fields of large providers are in
//! [`super::forged`], dates in [`super::dates`].

use super::forged::gated;
use super::locales::is_faraway;
use super::matching::has;
use super::{Argument, Eval, dates, forged};
use crate::context::Context;
use crate::headers::{Selector, list, text, values};

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "check_for_unique_subject_id" => |_, _| 0,
        "check_for_faraway_charset_in_headers" => check_for_faraway_charset_in_headers,
        "check_illegal_chars" => check_illegal_chars,
        "gated_through_received_hdr_remover" => |context, _| u32::from(gated(context)),
        "check_for_matching_env_and_hdr_from" => check_for_matching_env_and_hdr_from,
        "check_for_missing_to_header" => check_for_missing_to_header,
        "subject_is_all_caps" => subject_is_all_caps,
        "check_for_to_in_subject" => check_for_to_in_subject,
        "check_messageid_not_usable" => check_messageid_not_usable,
        "check_header_count_range" => check_header_count_range,
        "check_unresolved_template" => check_unresolved_template,
        "check_ratware_name_id" => check_ratware_name_id,
        "check_ratware_envelope_from" => check_ratware_envelope_from,
        "check_equal_from_domains" => check_equal_from_domains,
        "sorted_recipients" => |context, _| u32::from(recipients(context).sorted),
        "similar_recipients" => similar_recipients,
        _ => return forged::find(name).or_else(|| dates::find(name)),
    })
}

/// An encoded word of `From` or `Subject` is in a charset of a language that is not expected (`ok_locales`).
fn check_for_faraway_charset_in_headers(context: &Context<'_>, _: &[Argument]) -> u32 {
    let expected = &context.settings.text.ok_locales;
    let faraway = |value: &Vec<u8>| {
        let words = super::matching::pattern!(r"=\?(.+?)\?.\?.*?\?=").captures_iter(value);
        words.filter_map(|c| c.get(1)).any(|charset| is_faraway(&String::from_utf8_lossy(charset.as_bytes()), expected))
    };
    u32::from(["From:raw", "Subject:raw"].iter().any(|field| values(context, &Selector::of(field)).iter().any(faraway)))
}

/// `(field, ratio, count)`: at least so many bytes of a raw field are neither ASCII text nor part of valid UTF-8.
fn check_illegal_chars(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let [field, ratio, count] = arguments else { return 0 };
    let field = field.as_str();
    let selector = if field.ends_with(":raw") { field.to_string() } else { format!("{field}:raw") };
    let text = values(context, &Selector::of(&selector)).concat();
    let control = |b: &u8| matches!(b, 0..=8 | 0x0b | 0x0c | 0x0e..=0x1f);
    if text.iter().all(|b| crate::message::is_space(*b)) {
        return 0;
    }
    if !text.is_ascii() && std::str::from_utf8(&text).is_ok() && !text.iter().any(control) {
        return 0;
    }
    let mut illegal = text.iter().filter(|b| control(b) || **b >= 0x7f).count();
    // One sign for cent, pound or a registered trade mark is common in subjects.
    if selector.eq_ignore_ascii_case("subject:raw")
        && text.iter().filter(|b| matches!(b, 0xa2 | 0xa3 | 0xae)).count() == 1
    {
        illegal = illegal.saturating_sub(1);
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of bytes of one header")]
    let (share, illegal) = (illegal as f64 / text.len() as f64, illegal as f64);
    u32::from(share >= ratio.number() && illegal >= count.number())
}

fn check_for_matching_env_and_hdr_from(context: &Context<'_>, _: &[Argument]) -> u32 {
    u32::from(text(context, "EnvelopeFrom:addr").eq_ignore_ascii_case(&text(context, "From:addr")))
}

fn check_for_missing_to_header(context: &Context<'_>, _: &[Argument]) -> u32 {
    u32::from(text(context, "To").is_empty() && text(context, "Apparently-To").is_empty())
}

/// Several words, and no small letter in them.
fn subject_is_all_caps(context: &Context<'_>, _: &[Argument]) -> u32 {
    let subject = text(context, "Subject");
    let subject = without_reply_marks(subject.trim());
    let blank = |c: char| c.is_ascii_whitespace() || c == '\u{b}';
    if !subject.contains(blank) || subject.len() < 10 {
        return 0;
    }
    let raw = text(context, "Subject:raw");
    let other_script = has!(
        r"(?i)=\?[-_a-z0-9]*(?:koi|jp|jis|euc|gb|big5|isoir|cp1251|windows-1251|georgianps|pt154|tis)[-_a-z0-9]*\?",
        raw
    );
    let any = |test: fn(&u8) -> bool| subject.bytes().any(|b| test(&b));
    u32::from(!other_script && any(u8::is_ascii_uppercase) && !any(u8::is_ascii_lowercase))
}

fn without_reply_marks(mut subject: &str) -> &str {
    const MARKS: [&str; 10] = ["Re:", "Fwd:", "Fw:", "Aw:", "Antwort:", "WG:", "SV:", "VB:", "VS:", "VL:"];
    while let Some(mark) = MARKS.iter().find(|m| subject.get(..m.len()).is_some_and(|s| s.eq_ignore_ascii_case(m))) {
        subject = subject[mark.len()..].trim_start();
    }
    subject
}

/// `('address')` or `('user')`: the recipient is named in the subject.
fn check_for_to_in_subject(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let to = text(context, "To:addr");
    let subject = text(context, "Subject");
    let small = subject.to_ascii_lowercase();
    let Some(kind) = arguments.first().filter(|_| !to.is_empty()) else { return 0 };
    let user = to.split('@').next().unwrap_or_default();
    let wanted = if kind.as_str() == "address" { to.as_str() } else { user };
    if !small.contains(&wanted.to_ascii_lowercase()) {
        return 0;
    }
    let name = regex::escape(wanted);
    let pattern = match kind.as_str() {
        "address" => format!(r"(?i)\b{name}\b"),
        "user" => format!(
            r"(?i)^(?:(?:re|fw):\s*(?:\w+\s+)?{name}\n?\z|(?-i:{name})\s*[,:;!?-](?:\n?\z|\s)|{name}\n?\z|,\s*{name}[,:;!?-]\n?\z)"
        ),
        _ => return 0,
    };
    regex::bytes::RegexBuilder::new(&pattern)
        .unicode(false)
        .build()
        .map_or(0, |p| u32::from(p.is_match(subject.as_bytes())))
}

/// Lists and some servers write message ids of their own.
fn check_messageid_not_usable(context: &Context<'_>, _: &[Argument]) -> u32 {
    let leave = has!(r"(?i)<mailto:(?:leave-\S+|\S+-unsubscribe)@\S+>\n?\z", text(context, "List-Unsubscribe"));
    let received = text(context, "Received");
    u32::from(
        leave || gated(context) || received.contains("/CWT/DCE)") || received.contains("iPlanet Messaging Server"),
    )
}

/// `(field, least, most)`: how many different fields of a name there are.
fn check_header_count_range(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let [field, least, most] = arguments else { return 0 };
    let different: std::collections::HashSet<&[u8]> =
        context.message.headers().all(field.as_str()).map(crate::message::Header::decoded).collect();
    #[expect(clippy::cast_precision_loss, reason = "a count of fields")]
    let count = different.len() as f64;
    u32::from(count >= least.number() && count <= most.number())
}

/// A field with `%NAME`, which the sender's program should have replaced.
fn check_unresolved_template(context: &Context<'_>, _: &[Argument]) -> u32 {
    let template = |line: &&[u8]| has!(r"%[A-Z][A-Z_-]", line);
    let usual = |line: &&[u8]| {
        has!(
            r"(?i)^(?:X-VMS-To|X-UIDL|X-Face|To|Cc|From|Subject|References|In-Reply-To|(?:X-|Resent-|X-Original-)?Message-Id):",
            line
        )
    };
    let (all, _) = context.message.headers().text(false);
    u32::from(all.split(|b| *b == b'\n').any(|line| template(&line) && !usual(&line)))
}

/// A message id of 28 capitals before the sender's own address.
fn check_ratware_name_id(context: &Context<'_>, _: &[Argument]) -> u32 {
    let id = text(context, "MESSAGEID");
    let found = super::matching::pattern!(r"<[A-Z]{28}\.([^>]+?)>").captures(id.as_bytes()).and_then(|c| c.get(1));
    let Some(found) = found else { return 0 };
    let from = text(context, "From");
    let address = format!("<{}>", String::from_utf8_lossy(found.as_bytes()));
    u32::from(from.match_indices(&address).any(|(at, _)| has!(r#""[^"]+"\s*\z"#, &from[..at])))
}

/// The sender of the envelope is made from the recipient: `example.org.user@elsewhere.example`.
fn check_ratware_envelope_from(context: &Context<'_>, _: &[Argument]) -> u32 {
    let (to, from) = (text(context, "To:addr"), text(context, "EnvelopeFrom:addr"));
    if from.is_empty() || has!(r"(?i)^SRS\d[=+-]", from) {
        return 0;
    }
    let Some((user, host)) = to.split_once('@').filter(|(user, host)| !user.is_empty() && !host.is_empty()) else {
        return 0;
    };
    let domains = &context.settings.domains;
    let domain = domains.registered(host);
    if !domains.has_tld(&domain) {
        return 0;
    }
    let (from, user) = (from.to_ascii_lowercase(), format!("{}@", user.to_ascii_lowercase()));
    let made = from.match_indices(&domain).any(|(at, _)| {
        let before = at.checked_sub(1).map(|i| from.as_bytes()[i]);
        let boundary = before.is_some_and(crate::relays::ip::is_word)
            != domain.bytes().next().is_some_and(crate::relays::ip::is_word);
        let mut rest = from[at + domain.len()..].chars();
        boundary && rest.next().is_some_and(|c| c != '\n') && rest.as_str().starts_with(&user)
    });
    u32::from(made)
}

/// The last two labels of the author's and of the envelope's domain differ.
fn check_equal_from_domains(context: &Context<'_>, _: &[Argument]) -> u32 {
    let domain = |selector: &str| {
        let address = text(context, selector);
        let host = address.rsplit_once('@').map(|(_, host)| host.to_ascii_lowercase()).unwrap_or_default();
        let labels: Vec<&str> = host.split('.').collect();
        match labels[..] {
            [.., second, top] if labels.len() > 2 && !second.is_empty() && !top.is_empty() => format!("{second}.{top}"),
            _ => host,
        }
    };
    let (author, envelope) = (domain("From:addr"), domain("EnvelopeFrom:addr"));
    u32::from(!author.is_empty() && !envelope.is_empty() && author != envelope)
}

/// What can be said of a list of recipients.
#[derive(Debug, Default)]
struct Recipients {
    sorted: bool,
    similar: f64,
}

const SORTED: usize = 7;
const SIMILAR: usize = 5;
const MOST: usize = 256;

fn recipients(context: &Context<'_>) -> std::rc::Rc<Recipients> {
    context.memo(|context| {
        let mut all = list(context, "ToCc:addr");
        if all.len() < SIMILAR {
            all.extend(list(context, "Bcc:addr"));
        }
        all.dedup_by(|next, previous| next.eq_ignore_ascii_case(previous));
        all.truncate(MOST);
        Recipients { sorted: all.len() >= SORTED && all.is_sorted(), similar: similarity(&all) }
    })
}

/// How many pairs of addresses begin with the same two letters, in user or in host.
fn similarity(addresses: &[String]) -> f64 {
    if addresses.len() < SIMILAR {
        return 0.0;
    }
    let two = |text: &str| text.as_bytes().get(..2).unwrap_or(text.as_bytes()).to_vec();
    let split: Vec<_> = addresses
        .iter()
        .map(|address| {
            let host = address.split_once('@').map_or("", |(_, host)| host);
            (two(address), two(host), host)
        })
        .collect();
    let (mut hits, mut pairs) = (0_u32, 0_u32);
    for (i, (user, begins, host)) in split.iter().enumerate() {
        for (other_user, other_begins, other_host) in split.iter().skip(i + 1) {
            hits += u32::from(user == other_user) + u32::from(begins == other_begins && host != other_host);
            pairs += 1;
        }
    }
    f64::from(hits) / f64::from(pairs)
}

fn similar_recipients(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    u32::from(within(recipients(context).similar, arguments, 1.0))
}

/// `(least, below)`, either of them `undef`.
pub(super) fn within(value: f64, arguments: &[Argument], unit: f64) -> bool {
    let bound = |at: usize| arguments.get(at).filter(|a| a.as_str() != "undef").map(|a| a.number() * unit);
    bound(0).is_none_or(|least| value >= least) && bound(1).is_none_or(|below| value < below)
}

#[cfg(test)]
mod tests {
    use super::super::tests::eval;

    #[test]
    fn subjects() {
        let caps = |subject: &str| eval(&format!("Subject: {subject}\n"), "subject_is_all_caps", &[]);
        assert_eq!(caps("RE: MAKE MONEY FAST"), 1);
        assert_eq!(
            (caps("MAKE Money fast"), caps("MONEYMONEYMONEY"), caps("A B"), caps("1234567 890123")),
            (0, 0, 0, 0)
        );
        assert_eq!(caps("=?koi8-r?Q?MAKE_MONEY?= FAST"), 0);
        let to = |subject: &str, kind| {
            eval(&format!("To: joe@example.org\nSubject: {subject}\n"), "check_for_to_in_subject", &[kind])
        };
        assert_eq!((to("joe, hello", "user"), to("re: hi joe", "user"), to("hello joe here", "user")), (1, 1, 0));
        assert_eq!((to("is joe@example.org yours", "address"), to("none", "address")), (1, 0));
    }

    #[test]
    fn languages() {
        let message = "Subject: =?koi8-r?Q?=C1?=\n\nx\n";
        let hit = |locales| {
            let directives = [("ok_locales", locales)];
            super::super::tests::with(
                message,
                &directives,
                &crate::answers::NoAnswers,
                "check_for_faraway_charset_in_headers",
                &[],
            )
        };
        assert_eq!((hit("en"), hit("ru"), hit("all")), (1, 0, 0));
    }

    #[test]
    fn characters() {
        let chars = |field: &str, count| {
            eval(&format!("Subject: {field}\n"), "check_illegal_chars", &["Subject", "0.00", count])
        };
        assert_eq!(chars("caf\u{e9} d\u{e9}j\u{e0}", "2"), 0, "valid UTF-8");
        assert_eq!(chars("caf\u{e9} \u{1}", "2"), 1, "valid UTF-8 with a control");
        assert_eq!(chars("plain", "1"), 0);
    }

    #[test]
    fn counts_and_templates() {
        let twice = "Subject: a\nSubject: b\nX: a\nX: a\n";
        assert_eq!(eval(twice, "check_header_count_range", &["Subject", "2", "999"]), 1);
        assert_eq!(eval(twice, "check_header_count_range", &["X", "2", "999"]), 0);
        assert_eq!(eval("X-Name: %RND_TEXT\n", "check_unresolved_template", &[]), 1);
        assert_eq!(eval("Subject: %RND_TEXT\n", "check_unresolved_template", &[]), 0);
    }

    #[test]
    fn senders() {
        let message = "Return-Path: <a@bounce.example.com>\nFrom: a@example.com\nTo: joe@www.example.org\n";
        assert_eq!(eval(message, "check_equal_from_domains", &[]), 0);
        assert_eq!(eval(message, "check_for_matching_env_and_hdr_from", &[]), 0);
        let made = "Return-Path: <x-example.org.joe@other.com>\nTo: joe@www.example.org\n";
        assert_eq!(eval(made, "check_ratware_envelope_from", &[]), 1);
        assert_eq!(eval(message, "check_ratware_envelope_from", &[]), 0);
        let id = "From: \"A\" <a@example.com>\nMessage-Id: <ABCDEFGHIJKLMNOPQRSTUVWXYZAB.a@example.com>\n";
        assert_eq!(eval(id, "check_ratware_name_id", &[]), 1);
    }

    #[test]
    fn recipients() {
        let to = |users: &[&str]| {
            format!("To: {}\n", users.iter().map(|u| format!("{u}@example.org")).collect::<Vec<_>>().join(", "))
        };
        assert_eq!(eval(&to(&["a", "b", "c", "d", "e", "f", "g"]), "sorted_recipients", &[]), 1);
        assert_eq!(eval(&to(&["b", "a", "c", "d", "e", "f", "g"]), "sorted_recipients", &[]), 0);
        let similar = to(&["joan", "john", "joe", "jolly", "jon"]);
        assert_eq!(eval(&similar, "similar_recipients", &["0.65", "undef"]), 1);
        assert_eq!(eval("Cc: x@example.org\n", "check_for_missing_to_header", &[]), 1);
    }
}
