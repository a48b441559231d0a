// SPDX-License-Identifier: GPL-3.0-or-later
//! The sender as it stays the same over the tries of one message, and over the messages of one mailing list.
//!
//! Pure. Many senders change with every message or every try; each [`Step`] takes out one kind of change: sub-address (RFC 5233),
//! BATV tag (draft-levine-smtp-batv), the hash and time stamp of SRS, the recipient that VERP writes into the sender, words of digits
//! and of hexadecimal digits, and local parts made at random. What was cut out in the middle leaves a `#`.

use common::mail;
use serde::{Deserialize, Serialize};

/// One kind of change that is taken out of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// `joe+list` is `joe`.
    Subaddress,
    /// Words of digits are `#`.
    Digits,
    /// Words of hexadecimal digits are `#`.
    Hex,
    /// `prvs=TAG=joe` is `joe`.
    Batv,
    /// `srs0=HASH=TT=domain=joe` is `srs0=domain=joe`.
    Srs,
    /// The recipient in the sender is `#`.
    Verp,
    /// A local part with a random word in it is left out; the domain stays.
    Random,
}

impl Step {
    /// All steps, as by default.
    pub const ALL: [Self; 7] =
        [Self::Subaddress, Self::Digits, Self::Hex, Self::Batv, Self::Srs, Self::Verp, Self::Random];
}

/// All-digit local parts up to this length are telephone numbers or customers (E.164 allows 15 digits), longer ones are counters.
const LONGEST_NUMBER: usize = 15;
/// Shorter words of hexadecimal digits are names and words.
const SHORTEST_HEX: usize = 8;
/// Shortest group of a UUID.
const SHORTEST_PART: usize = 4;

/// The sender in lower case and normal form, given the recipient it writes to.
pub fn normal(sender: &str, recipient: &str, steps: &[Step]) -> String {
    let sender = sender.to_ascii_lowercase();
    let (local, domain) = mail::split(&sender);
    let mut normal = String::with_capacity(sender.len());
    push_local(&mut normal, local, &recipient.to_ascii_lowercase(), steps, !domain.is_empty());
    if !domain.is_empty() {
        normal.push('@');
        normal.push_str(domain);
    }
    normal
}

fn push_local(normal: &mut String, local: &str, recipient: &str, steps: &[Step], has_domain: bool) {
    let local = if steps.contains(&Step::Batv) { without_batv(local) } else { local };
    let inner = match srs(local).filter(|_| steps.contains(&Step::Srs)) {
        Some((fixed, inner)) => {
            normal.push_str(&fixed);
            inner
        }
        None => local,
    };
    let masked = match steps.contains(&Step::Verp) {
        true => without_recipient(inner, recipient),
        false => None,
    };
    let inner = masked.as_deref().unwrap_or(inner);
    let inner = if steps.contains(&Step::Subaddress) { mail::without_extension(inner) } else { inner };
    if has_domain && steps.contains(&Step::Random) && words(inner).any(is_random) {
        return;
    }
    push_words(normal, inner, steps);
}

/// Words are runs of letters and digits.
fn words(local: &str) -> impl Iterator<Item = &str> {
    local.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Writes `#` for every word of digits or of hexadecimal digits. A local part that is one number is somebody's address and stays.
fn push_words(normal: &mut String, local: &str, steps: &[Step]) {
    if local.len() <= LONGEST_NUMBER && is_number(local) {
        normal.push_str(local);
        return;
    }
    let hex = steps.contains(&Step::Hex);
    // Beside a long word of hexadecimal digits the short ones are parts of the same number, as in a UUID.
    let shortest = if hex && words(local).any(is_hex) { SHORTEST_PART } else { usize::MAX };
    let changes = |word: &str| {
        (steps.contains(&Step::Digits) && is_number(word))
            || (hex && is_hex(word))
            || (word.len() >= shortest && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let mut rest = local;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        normal.push_str(if changes(word) { "#" } else { word });
        let next = after.find(char::is_alphanumeric).unwrap_or(after.len());
        normal.push_str(&after[..next]);
        rest = &after[next..];
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// True for hexadecimal digits with at least two numbers among them: `5adf1f70`, not `decade` nor `facade1`.
fn is_hex(word: &str) -> bool {
    word.len() >= SHORTEST_HEX
        && word.bytes().all(|byte| byte.is_ascii_hexdigit())
        && word.bytes().filter(u8::is_ascii_digit).count() >= 2
}

/// True for a word that nobody chose: one that changes between letters and digits four times or more (`18fpzvxj3hn2t`), or a long one
/// with hardly a vowel. Words of hexadecimal digits are not counted: they become `#`, and what stands around them stays.
fn is_random(word: &str) -> bool {
    if is_hex(word) || !word.is_ascii() {
        return false;
    }
    let bytes = word.as_bytes();
    let changes = bytes.windows(2).filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit()).count();
    let vowels = bytes.iter().filter(|byte| b"aeiouy".contains(byte)).count();
    let letters = bytes.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    (bytes.len() >= 10 && changes >= 4) || (letters >= 16 && vowels * 7 < letters)
}

/// The local part with `#` for the recipient in it, whose `@` mailing lists write as one of `=` `#` `%` `-` `_` `.` `~` `!`, or as `at`
/// between two of them; none when it is not in there.
fn without_recipient(local: &str, recipient: &str) -> Option<String> {
    let (user, domain) = mail::split(recipient);
    if user.is_empty() || domain.is_empty() || local.len() <= domain.len() {
        return None;
    }
    let (at, _) = local.match_indices(domain).find(|(at, _)| ends_here(&local[at + domain.len()..]))?;
    let before = local[..at].strip_suffix(is_separator)?;
    let before = before.strip_suffix("at").and_then(|rest| rest.strip_suffix(is_separator)).unwrap_or(before);
    let before = before.strip_suffix(user).filter(|rest| rest.is_empty() || rest.ends_with(is_separator_or_plus))?;
    Some(format!("{before}#{}", &local[at + domain.len()..]))
}

fn ends_here(rest: &str) -> bool {
    !rest.starts_with(|c: char| c.is_alphanumeric())
}

fn is_separator(c: char) -> bool {
    "=#%-_.~!".contains(c)
}

fn is_separator_or_plus(c: char) -> bool {
    c == '+' || is_separator(c)
}

/// `prvs=TAG=local`, `prvs=local=TAG` and `btv1==TAG==local` without the tag, which is of hexadecimal digits.
fn without_batv(local: &str) -> &str {
    let is_tag = |text: &str| text.len() >= 6 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(rest) = local.strip_prefix("btv1==") {
        return rest
            .split_once("==")
            .filter(|(tag, inner)| is_tag(tag) && !inner.is_empty())
            .map_or(local, |(_, inner)| inner);
    }
    let Some(rest) = local.strip_prefix("prvs=") else { return local };
    match (rest.split_once('='), rest.rsplit_once('=')) {
        (Some((tag, inner)), _) if is_tag(tag) && !inner.is_empty() => inner,
        (_, Some((inner, tag))) if is_tag(tag) && !inner.is_empty() => inner,
        _ => local,
    }
}

/// Cuts `srs0=HASH=TT=domain=local` into `srs0=domain=` and `local`, and `srs1=HASH=relay==HASH=TT=domain=local`
/// into `srs1=relay==domain=` and `local`. The first separator may also be `+` or `-`.
fn srs(local: &str) -> Option<(String, &str)> {
    let (kind, rest) = local.split_at_checked(4)?;
    let rest = rest.strip_prefix(['=', '+', '-'])?;
    match kind {
        "srs0" => {
            let (domain, inner) = srs0(rest)?;
            Some((format!("srs0={domain}="), inner))
        }
        "srs1" => {
            let (_hash, rest) = rest.split_once('=')?;
            let (relay, rest) = rest.split_once('=')?;
            let (domain, inner) = srs0(rest.strip_prefix(['=', '+', '-'])?)?;
            Some((format!("srs1={relay}=={domain}="), inner))
        }
        _ => None,
    }
}

/// Domain and local part of `HASH=TT=domain=local`.
fn srs0(rest: &str) -> Option<(&str, &str)> {
    let (_hash, rest) = rest.split_once('=')?;
    let (_stamp, rest) = rest.split_once('=')?;
    rest.split_once('=').filter(|(domain, inner)| !domain.is_empty() && !inner.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECIPIENT: &str = "Ann.Lee@example.com";

    #[test]
    fn senders_are_brought_to_what_stays() {
        for (sender, expected) in [
            ("", ""),
            ("Joe@Example.ORG", "joe@example.org"),
            // Sub-address.
            ("joe+list@example.org", "joe@example.org"),
            ("bounces+123-user=example.net@lists.example.org", "bounces@lists.example.org"),
            ("ü+x@example.org", "ü@example.org"),
            // Digits.
            ("news-4711-8@example.org", "news-#-#@example.org"),
            ("news4711@example.org", "news4711@example.org"),
            ("12345678@example.org", "12345678@example.org"),
            ("1234567890123456@example.org", "#@example.org"),
            ("-1-@example.org", "-#-@example.org"),
            // Hexadecimal digits.
            ("bounce-5adf1f70e9@example.org", "bounce-#@example.org"),
            (
                "0100018f3a2b4c5d-6f9c1a2e-7b01-4d7e-9f3c-0123456789ab-000000@mail.example.org",
                "#-#-#-#-#-#-#@mail.example.org",
            ),
            ("deadbeef@example.org", "deadbeef@example.org"),
            ("decade1@example.org", "decade1@example.org"),
            ("news-face-feed@example.org", "news-face-feed@example.org"),
            // BATV.
            ("prvs=4232ab1234=joe@example.org", "joe@example.org"),
            ("prvs=joe=4232ab1234@example.org", "joe@example.org"),
            ("prvs=4232ab1234=joe+x@example.org", "joe@example.org"),
            ("prvs=joe@example.org", "prvs=joe@example.org"),
            ("btv1==023da4d2fe1==joe@example.org", "joe@example.org"),
            // SRS.
            ("SRS0=HHh1=TT=example.net=Joe@forward.example.org", "srs0=example.net=joe@forward.example.org"),
            ("SRS0+HHh1=TT=example.net=joe@forward.example.org", "srs0=example.net=joe@forward.example.org"),
            ("srs0=x4d=5b=example.net=news-7@forward.example.org", "srs0=example.net=news-#@forward.example.org"),
            (
                "SRS1=Ab2=relay.example.com==HHh1=TT=example.net=joe@fwd.example.org",
                "srs1=relay.example.com==example.net=joe@fwd.example.org",
            ),
            ("SRS0=broken@example.org", "srs0=broken@example.org"),
            ("prvs=12345678ab=srs0=h=tt=example.net=joe@f.example.org", "srs0=example.net=joe@f.example.org"),
            // VERP: the recipient in the sender.
            ("list-bounce-ann.lee=example.com@lists.example.org", "list-bounce-#@lists.example.org"),
            ("Ann.Lee=Example.com@lists.example.org", "#@lists.example.org"),
            ("news-ann.lee_at_example.com-12@lists.example.org", "news-#-#@lists.example.org"),
            ("news.ann.lee.example.com@lists.example.org", "news.#@lists.example.org"),
            ("list+ann.lee=example.com@lists.example.org", "list@lists.example.org"),
            ("joann.lee=example.com@lists.example.org", "joann.lee=example.com@lists.example.org"),
            ("ann.lee=example.community@lists.example.org", "ann.lee=example.community@lists.example.org"),
            // Made at random: only the domain stays.
            (
                "bounce-md_10612303.5adf1f70.v1-ab12cd34ef56ab78@mandrill.example.org",
                "bounce-md_#.#.v1-#@mandrill.example.org",
            ),
            ("msprvs1=18FpzVxJ3hN2T=bounces-123-456@bounces.example.org", "@bounces.example.org"),
            ("xkcdqwrtplkjhgfdszx@example.org", "@example.org"),
            ("k3jd8sk2ls9d", "k3jd8sk2ls9d"),
            // Names that people chose stay.
            ("h2o2u@example.org", "h2o2u@example.org"),
            ("donaudampfschifffahrt@example.org", "donaudampfschifffahrt@example.org"),
            ("info2024-team3@example.org", "info2024-team3@example.org"),
            ("postmaster", "postmaster"),
            ("é", "é"),
        ] {
            assert_eq!(normal(sender, RECIPIENT, &Step::ALL), expected, "{sender}");
        }
    }

    #[test]
    fn every_step_can_be_left_out() {
        for (step, sender) in [
            (Step::Subaddress, "joe+list@example.org"),
            (Step::Digits, "news-4711@example.org"),
            (Step::Hex, "bounce-5adf1f70e9@example.org"),
            (Step::Batv, "prvs=aabbccddee=joe@example.org"),
            (Step::Srs, "srs0=ha=tt=example.net=joe@example.org"),
            (Step::Verp, "list-ann.lee=example.com@example.org"),
            (Step::Random, "18fpzvxj3hn2t@example.org"),
        ] {
            let others: Vec<Step> = Step::ALL.into_iter().filter(|other| *other != step).collect();
            assert_eq!(normal(sender, RECIPIENT, &others), sender, "{step:?}");
            assert_ne!(normal(sender, RECIPIENT, &[step]), sender, "{step:?}");
        }
        assert_eq!(normal("Joe+1@Example.org", RECIPIENT, &[]), "joe+1@example.org");
    }

    proptest! {
        #[test]
        fn any_addresses_have_a_normal_form(sender in any::<String>(), recipient in any::<String>()) {
            normal(&sender, &recipient, &Step::ALL);
        }

        #[test]
        fn a_normal_sender_stays_as_it_is(sender in "(srs0=|prvs=)?[a-z0-9+=-]{0,12}@example.org") {
            let once = normal(&sender, RECIPIENT, &Step::ALL);
            // BATV inside BATV is taken off one layer at a time; nobody signs twice.
            prop_assume!(!once.starts_with("prvs=") && !once.starts_with("srs"));
            prop_assert_eq!(normal(&once, RECIPIENT, &Step::ALL), once);
        }
    }
}
