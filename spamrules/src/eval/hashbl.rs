// SPDX-License-Identifier: GPL-3.0-or-later
//! Lists that are asked for hashes: of addresses, URIs, texts that a pattern finds, tags and attachments (SpamAssassin's plugin HashBL).
//!
//! Where a message has more than a list is to be asked for, the first ones count: SpamAssassin draws lots (`shuffle`), which would make
//! the outcome change from run to run.

use super::hash_values;
use super::hash_values::Found;
use super::{Argument, Eval};
use crate::answers::Record;
use crate::context::Context;
use crate::digest;
use crate::regexes::Pattern;

pub(crate) use super::hash_values::Settings;

pub(crate) fn find(name: &str) -> Option<Eval> {
    Some(match name {
        "check_hashbl_emails" => check_hashbl_emails,
        "check_hashbl_uris" => check_hashbl_uris,
        "check_hashbl_bodyre" => check_hashbl_bodyre,
        "check_hashbl_tag" => check_hashbl_tag,
        "check_hashbl_attachments" => check_hashbl_attachments,
        _ => return None,
    })
}

/// Values of one message that a list is asked for, where the rule does not say.
const MOST: usize = 10;
/// What the function does that a rule names without options.
const PLAIN: &str = "sha1/max=10/shuffle";

/// The options of a rule: words between slashes, some with a number.
pub(super) struct Choice<'a>(Vec<(&'a str, Option<&'a str>)>);

impl<'a> Choice<'a> {
    fn of(arguments: &'a [Argument], default: &'a str) -> Choice<'a> {
        let text = arguments.get(1).map(Argument::as_str).filter(|text| !text.is_empty()).unwrap_or(default);
        let words = text.split('/').map(str::trim).filter(|word| !word.is_empty());
        Choice(words.map(|word| word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)))).collect())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(word, _)| word.eq_ignore_ascii_case(name))
    }

    pub(super) fn number(&self, name: &str) -> Option<usize> {
        let (_, value) = self.0.iter().find(|(word, _)| word.eq_ignore_ascii_case(name))?;
        value.and_then(|value| value.parse().ok()).filter(|number| *number > 0)
    }

    /// The value as it is asked for.
    fn hashed(&self, value: &[u8]) -> String {
        if self.has("sha256") {
            digest::sha256(value)
        } else if self.has("sha1") {
            digest::sha1(value)
        } else if self.has("md5") {
            digest::md5(value)
        } else {
            String::from_utf8_lossy(value).into_owned()
        }
    }

    fn in_its_case(&self, text: String) -> String {
        if self.has("case") { text } else { text.to_ascii_lowercase() }
    }
}

/// The list that a rule asks: the zone, and with `/TXT` another type of record than addresses.
fn zone(arguments: &[Argument]) -> Option<(&str, Record)> {
    let text = arguments.first()?.as_str().trim_end_matches('.');
    match text.rsplit_once('/') {
        Some((zone, kind)) if kind.eq_ignore_ascii_case("txt") => Some((zone, Record::Txt)),
        Some((zone, kind)) if kind.eq_ignore_ascii_case("a") => Some((zone, Record::A)),
        _ => Some((text, Record::A)),
    }
}

/// Asks the list for each value. Each is asked for whatever the others gave, so that a caller who notes questions learns all of them.
fn ask(
    context: &Context<'_>,
    arguments: &[Argument],
    choice: &Choice<'_>,
    wanted: Option<&Argument>,
    values: Vec<Found>,
) -> u32 {
    let Some((zone, record)) = zone(arguments) else { return 0 };
    let wanted = wanted.filter(|wanted| !wanted.as_str().is_empty());
    let pattern = wanted.map(Argument::pattern);
    if pattern.is_some_and(|pattern| pattern.is_none()) {
        return 0;
    }
    let fits = |answer: &String| match pattern.flatten() {
        Some(pattern) => pattern.is_match(answer.as_bytes()),
        None => answer.starts_with("127."),
    };
    let ignored = |text: &str| context.settings.hashes.is_ignored(text);
    let mut asked: Vec<String> = Vec::new();
    let mut hit = false;
    for Found { shown, octets } in values {
        let hash = choice.hashed(&octets);
        if ignored(&shown) || ignored(&hash) || asked.contains(&hash) || !is_askable(&hash, zone) {
            continue;
        }
        if asked.len() >= choice.number("max").unwrap_or(MOST) {
            break;
        }
        let answers = context.answers.dns(&format!("{hash}.{zone}"), record).unwrap_or_default();
        if answers.iter().any(fits) {
            hit = true;
            context.note(shown.replace('@', "[at]"));
        }
        asked.push(hash);
    }
    u32::from(hit)
}

/// Whether a value can stand in a question: unhashed ones may be anything.
fn is_askable(hash: &str, zone: &str) -> bool {
    hash.len() + zone.len() < 253
        && hash.split('.').all(|label| (1..=63).contains(&label.len()))
        && hash.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `(list, options, headers, answer, acl)`: mail addresses of the header and the body.
fn check_hashbl_emails(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let choice = Choice::of(arguments, "sha1/notag/noquote/max=10/shuffle");
    let sources = arguments.get(2).map(Argument::as_str).filter(|text| !text.is_empty());
    let list = arguments.get(4).map(Argument::as_str);
    let values = hash_values::emails(context, &choice, sources.unwrap_or("ALLFROM/Reply-To/body"), list);
    let values = values.into_iter().map(|address| Found::text(choice.in_its_case(address))).collect();
    ask(context, arguments, &choice, arguments.get(3), values)
}

/// `(list, options, answer)`: URIs in all their forms.
fn check_hashbl_uris(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let choice = Choice::of(arguments, PLAIN);
    if choice.has("raw") {
        return 0;
    }
    let fold = |form: &[u8]| if choice.has("case") { form.to_vec() } else { form.to_ascii_lowercase() };
    let values = hash_values::uris(context).iter().map(|form| Found::octets(fold(form))).collect();
    ask(context, arguments, &choice, arguments.get(2), values)
}

/// `(list, options, pattern, answer)`: what the first group of a pattern finds in the text.
fn check_hashbl_bodyre(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let choice = Choice::of(arguments, PLAIN);
    let Some(pattern) = arguments.get(2).and_then(Argument::grouped) else { return 0 };
    let values = hash_values::texts(context, pattern).into_iter().map(|text| {
        let text = choice.in_its_case(text);
        Found::text(if choice.has("num") { text.chars().filter(char::is_ascii_digit).collect() } else { text })
    });
    ask(context, arguments, &choice, arguments.get(3), values.filter(|value| !value.shown.is_empty()).collect())
}

/// `(list, options, tag, answer)`: the values of a tag.
fn check_hashbl_tag(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let choice = Choice::of(arguments, PLAIN);
    let Some(tag) = arguments.get(2).map(|tag| tag.as_str().trim_matches('_').to_ascii_uppercase()) else { return 0 };
    let values = super::dns::tag_values(context, &tag).into_iter();
    let values = values.filter_map(|value| hash_values::of_tag(context, &choice, choice.in_its_case(value)));
    ask(context, arguments, &choice, arguments.get(3), values.map(Found::text).collect())
}

/// `(list, options, answer)`: the decoded contents of the parts.
fn check_hashbl_attachments(context: &Context<'_>, arguments: &[Argument]) -> u32 {
    let choice = Choice::of(arguments, PLAIN);
    if choice.has("raw") {
        return 0;
    }
    ask(context, arguments, &choice, arguments.get(2), hash_values::attachments(context, &choice))
}

/// Reads a pattern that a directive gives.
pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::new(text.trim()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::tests::with;
    use crate::answers::{Answers, Record};

    /// Notes the questions, and answers those that begin as wanted.
    #[derive(Default)]
    struct Noted {
        listed: &'static str,
        asked: RefCell<Vec<String>>,
    }

    impl Answers for Noted {
        fn dns(&self, name: &str, record: Record) -> Option<Vec<String>> {
            self.asked.borrow_mut().push(format!("{name} {record:?}"));
            (!self.listed.is_empty() && name.starts_with(self.listed)).then(|| vec!["127.0.0.2".to_owned()])
        }
    }

    const MESSAGE: &str = "From: A.B+tag@Example.com\nReply-To: <info@example.net>\n\nWrite to c.d@example.org or to\n\
        sales@example.org, Joe <joe@example.net>\nhttp://www.example.com/Path\nbtc 1abcdefghijkmnopqrstuvwxyzABCDEF, 1-23\n";

    fn asked(directives: &[(&str, &str)], name: &str, arguments: &[&str]) -> Vec<String> {
        let answers = Noted::default();
        assert_eq!(with(MESSAGE, directives, &answers, name, arguments), 0);
        answers.asked.into_inner()
    }

    #[test]
    fn addresses() {
        let raw = |sources| asked(&[], "check_hashbl_emails", &["l.test", "raw/notag/noquote", sources]);
        assert_eq!(raw("ALLFROM/body"), ["a.b@example.com.l.test A", "c.d@example.org.l.test A"]);
        assert_eq!(raw("Reply-To"), Vec::<String>::new(), "a role is nobody's address");
        let options = |options| asked(&[], "check_hashbl_emails", &["l.test/TXT", options, "From"]);
        assert_eq!(options("raw/nodot"), ["ab+tag@example.com.l.test Txt"]);
        assert_eq!(options("raw/user/case"), ["A.B+tag.l.test Txt"]);
        assert_eq!(options("raw/host"), ["example.com.l.test Txt"]);
        assert_eq!(options("md5/notag"), ["2abba83e2f6356b8955cc8b8c6970365.l.test Txt"]);
        let unquoted = asked(&[], "check_hashbl_emails", &["l.test", "raw", "body"]);
        assert_eq!(unquoted, ["c.d@example.org.l.test A", "joe@example.net.l.test A"]);
    }

    #[test]
    fn directives_about_addresses() {
        let from = |directives: &[(&str, &str)], list: &[&str]| {
            let arguments: Vec<&str> = ["l.test", "raw", "From"].iter().chain(list).copied().collect();
            asked(directives, "check_hashbl_emails", &arguments).len()
        };
        assert_eq!(from(&[("uridnsbl_skip_domain", "example.com")], &[]), 0);
        assert_eq!(from(&[("hashbl_ignore", "A.B+tag@example.com")], &[]), 0);
        assert_eq!(from(&[("hashbl_acl_mine", "example.com")], &["", "mine"]), 1);
        assert_eq!(from(&[("hashbl_acl_mine", "example.net")], &["", "mine"]), 0);
        assert_eq!(from(&[("hashbl_acl_mine", "example.com !example.com")], &["", "mine"]), 0);
        assert_eq!(from(&[], &["", "mine"]), 0);
        assert_eq!(from(&[("hashbl_email_regex", "nobody@\\S+")], &[]), 0);
        assert_eq!(from(&[("hashbl_email_welcomelist", "^A\\.B")], &[]), 0);
        let alias = asked(
            &[("hashbl_email_domain_alias", "other.com example.com example.org")],
            "check_hashbl_emails",
            &["l.test", "raw", "From"],
        );
        assert_eq!(alias, ["a.b+tag@other.com.l.test A"]);
    }

    #[test]
    fn uris_texts_and_tags() {
        let uri = asked(&[], "check_hashbl_uris", &["l.test", "sha1"]);
        assert_eq!(uri, [format!("{}.l.test A", crate::digest::sha1(b"http://www.example.com/path"))]);
        assert!(asked(&[("uridnsbl_skip_domain", "example.com")], "check_hashbl_uris", &["l.test", "sha1"]).is_empty());
        assert_eq!(
            asked(&[], "check_hashbl_bodyre", &["l.test", "raw/case", r"\b(1[a-zA-Z]{25,34})\b"]),
            ["1abcdefghijkmnopqrstuvwxyzABCDEF.l.test A"]
        );
        assert_eq!(asked(&[], "check_hashbl_bodyre", &["l.test", "raw/num", r"\b(1-\d+)"]), ["123.l.test A"]);
        assert_eq!(asked(&[], "check_hashbl_tag", &["l.test", "raw", "_AUTHORDOMAIN_"]), ["example.com.l.test A"]);
        assert!(asked(&[], "check_hashbl_tag", &["l.test", "raw/ip", "AUTHORDOMAIN"]).is_empty());
        assert_eq!(asked(&[], "check_hashbl_attachments", &["l.test", "md5"]).len(), 1);
        assert!(asked(&[("hashbl_ignore", "text/plain")], "check_hashbl_attachments", &["l.test", "md5"]).is_empty());
        assert!(asked(&[], "check_hashbl_attachments", &["l.test", "md5/minsize=100000"]).is_empty());
    }

    #[test]
    fn answers() {
        let hit = |answer: &[&str]| {
            let answers = Noted { listed: "c.d@", ..Noted::default() };
            let arguments: Vec<&str> = ["l.test", "raw", "body"].iter().chain(answer).copied().collect();
            with(MESSAGE, &[], &answers, "check_hashbl_emails", &arguments)
        };
        assert_eq!((hit(&[]), hit(&["^127\\."]), hit(&["^127\\.0\\.0\\.3$"]), hit(&["("])), (1, 1, 0, 0));
    }
}
