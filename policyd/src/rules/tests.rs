// SPDX-License-Identifier: GPL-3.0-or-later
//! Rules from their text to what they say of requests.

use std::cell::Cell;
use std::io::Write;
use std::sync::LazyLock;

use common::config::Source;
use proptest::prelude::*;

use super::expression::{Fact, Moment, Scene, Truth};
use super::walk::{Step, Walk};
use super::*;
use crate::request::{PolicyRequest, ProtocolState};

/// What `[list.partners]` has.
static LISTED: LazyLock<ListSettings> = LazyLock::new(|| ListSettings {
    files: Vec::new(),
    entries: vec!["news.example.org".to_owned(), "mail.example.co.uk".to_owned()],
});

/// Rules of a configuration text.
fn rules(text: &str) -> Result<Rules, String> {
    let mut mistakes = Mistakes::new();
    let source = Source::from_text("octroi.toml", text).map_err(|mistakes| mistakes.to_string())?;
    let entries = source.list::<RuleSettings>("rule", &mut mistakes);
    let compiled = Rules::compile(
        &entries,
        &Names {
            dns_lists: vec!["zen"],
            limits: vec![
                LimitName { name: "bulk", terms: 1, bytes: false },
                LimitName { name: "traffic", terms: 2, bytes: true },
            ],
            lists: vec![("partners", &*LISTED)],
            trust: true,
            asns: true,
            countries: false,
            orders: OrdersTo::Contentd,
        },
        true,
    );
    mistakes.into_result(()).and(compiled).map_err(|mistakes| mistakes.to_string())
}

/// One rule with this condition.
fn rule(when: &str) -> Result<Rules, String> {
    let entry = toml_quoted(when);
    rules(&format!("[[rule]]\nname = 'r'\nwhen = {entry}\nthen = ['stop']\n"))
}

fn toml_quoted(text: &str) -> String {
    format!("{:?}", text).replace("\\'", "'").replace("\\u{", "\\U{")
}

fn request() -> PolicyRequest<'static> {
    PolicyRequest {
        state: ProtocolState::Rcpt,
        client_address: "192.0.2.77".parse().ok(),
        client_name: Some("mx7.Mail.Example.co.uk".into()),
        reverse_client_name: Some("mx7.mail.example.co.uk".into()),
        helo_name: "mx7.mail.example.co.uk".into(),
        sender: "Joe+x@News.Example.org".into(),
        recipient: "info@our.test".into(),
        size: 12_000_000,
        policy_context: "submission".into(),
        ..PolicyRequest::default()
    }
}

/// A Wednesday in November, half past eight in the evening.
const MOMENT: Moment = Moment { minutes: 20 * 60 + 30, date: 20_261_118, weekday: 2 };

fn truth(rules: &Rules, request: &PolicyRequest<'_>, known: &[Option<Fact>]) -> (Truth, Option<usize>) {
    let (missing, scans) = (Cell::new(None), rules.filters.room());
    let scene = Scene { request, moment: MOMENT, known, tags: 0, scans: &scans, missing: &missing };
    (rules.list()[0].when.holds(&scene), missing.get())
}

#[test]
fn conditions_are_true_or_false() {
    let list = {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"joe@news.example.org\nmail.example.co.uk\n").unwrap();
        file
    };
    let networks = {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"192.0.2.0/25\n.example.co.uk\n").unwrap();
        file
    };
    let (list, networks) = (list.path().display(), networks.path().display());
    for (when, expected) in [
        ("true", true),
        ("!false && true", true),
        ("sender == 'JOE+X@news.example.org'", true),
        ("'joe' == sender_local", false),
        ("sender != recipient", true),
        ("helo_name == client_name", true),
        ("sender_domain in ['a.example', 'NEWS.example.org']", true),
        ("!(sender_domain in ['a.example'])", true),
        ("protocol_state == 'rcpt'", true),
        ("protocol_state in ['DATA', 'END-OF-MESSAGE']", false),
        ("client_address == '192.0.2.77'", true),
        ("client_address != '192.0.2.0/24'", false),
        ("client_address in ['10.0.0.0/8', '192.0.2.64/26']", true),
        ("in_network(client_address, '10.0.0.0/8', '2001:db8::/32')", false),
        ("client_address.in_network('192.0.2.0/24')", true),
        ("server_address == client_address", false),
        ("server_address == server_address", false),
        ("size > '10MB'", true),
        ("size <= 12000000 && size >= 12000000", true),
        ("'10MB' < size", true),
        ("size / 1000 == 12000", true),
        ("size / (recipient_count + 1) - 1 < -5 + 2 * 3", false),
        ("size % 7 == 12000000 % 7", true),
        ("-size < 0", true),
        ("recipient_count in [0, 1]", true),
        ("size(helo_name) == 22", true),
        ("starts_with(helo_name, 'MX7.') && helo_name.startsWith('mx7')", true),
        ("ends_with(sender_domain, '.example.org') && sender_domain.endsWith('.ORG')", true),
        ("contains(client_name, '.mail.')", true),
        ("matches(client_name, \"^mx[0-9]+\\\\.\")", true),
        ("client_name.matches(r'^mx\\d\\.(mail|post)')", true),
        ("matches(sender, '(?-i)^joe')", false),
        ("org_domain(client_name) == 'example.co.uk'", true),
        ("org_domain(sender) == 'example.org'", true),
        ("org_domain(reverse_client_name) == org_domain(helo_name)", true),
        ("org_domain('192.0.2.1') == ''", true),
        ("domain(sender) == sender_domain && local_part(sender) == sender_local", true),
        ("authenticated || encrypted || null_sender || stress", false),
        ("time >= '20:30' && time < '20:31'", true),
        ("time_between('20:00', '06:00')", true),
        ("time_between('06:00', '20:30')", false),
        ("weekday in ['wed', 'thu']", true),
        ("weekday == 'sun'", false),
        ("date >= '2026-11-01' && date < '2026-12-01'", true),
        ("date == '2026-11-19'", false),
        ("authenticated ? size > '1MB' : size > '20MB'", false),
        ("(size > '1MB' ? sender : recipient) == sender", true),
        ("(size > '1MB' ? 1 : 2) == 1", true),
        ("authenticated == false", true),
        ("policy_context == 'submission'", true),
        ("sasl_username == ''", true),
        (&format!("in_list(sender, '{list}')"), true),
        (&format!("in_list(recipient, '{list}')"), false),
        (&format!("in_list(client_address, '{networks}')"), true),
        (&format!("in_list(client_name, '{networks}')"), true),
        (&format!("sender_domain.in_list('{networks}')"), false),
        ("in_list(sender, 'partners') && in_list(client_name, \"partners\")", true),
        ("in_list(recipient, 'partners')", false),
    ] {
        let compiled = rule(when).unwrap_or_else(|told| panic!("{when}: {told}"));
        assert_eq!(truth(&compiled, &request(), &[]), (Some(expected), None), "{when}");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (when, told) in [
        ("sendr == 'x'", "character 1, at \"sendr == 'x'\": there is no attribute \"sendr\"; did you mean \"sender\"?"),
        (
            "spf == 'pass'",
            "character 1, at \"spf == 'pass'\": there is no attribute \"spf\"; the function is written spf(...)",
        ),
        (
            "size > 1 && in_netwrk(client_address, 'x')",
            "character 13, at \"in_netwrk(client_address\": there is no function \"in_netwrk\"; did you mean \"in_network\"?",
        ),
        ("sender", "character 1, at \"sender\": this is a text; it must be true or false"),
        ("size && true", "character 1, at \"size && true\": this is a size; it must"),
        ("size == 'big'", "character 9, at \"'big'\": \"big\" is not a size"),
        ("size == '10'", "character 9, at \"'10'\": \"10\" has no unit"),
        ("size > sender", "character 6, at \"> sender\": a size cannot be compared with a text"),
        ("sender < 'x'", "character 8, at \"< 'x'\": these cannot be ordered: each is a text"),
        ("recipient_count == '5'", "character 20, at \"'5'\": a number is compared with a number"),
        ("time > 800", "character 6, at \"> 800\": a number cannot be compared with a time of day"),
        ("time > '25:00'", "character 8, at \"'25:00'\": \"25:00\" is not a time of day"),
        ("weekday == 'today'", "character 12, at \"'today'\": it is never \"today\"; it is one of mon, tue"),
        ("protocol_state in ['RCPT', 'RCTP']", "character 28, at \"'RCTP']\": it is never \"RCTP\""),
        ("client_address == 'mail.example'", "character 19, at \"'mail.example'\": \"mail.example\" is not an address"),
        (
            "in_network(client_address, '192.0.2.1/24')",
            "character 28, at \"'192.0.2.1/24')\": \"192.0.2.1/24\" has bits beyond its prefix",
        ),
        (
            "in_network(sender, '192.0.2.0/24')",
            "character 12, at \"sender, '192.0.2.0/24')\": this is a text; here stands client_address",
        ),
        (
            "in_network(client_address)",
            "character 1, at \"in_network(client_addres\": in_network is given 1 values; it is written in_network(client_address,",
        ),
        ("matches(sender, '(')", "character 17, at \"'(')\": not a regular expression: unclosed group"),
        ("matches(sender, recipient)", "character 17, at \"recipient)\": a pattern is written in quotes"),
        ("contains(sender, '')", "character 18, at \"'')\": every text has"),
        ("sender in []", "character 11, at \"[]\": nothing is in an empty list"),
        ("sender in recipient", "character 11, at \"recipient\": after \"in\" stands a list"),
        ("sender in ['a', 5]", "character 17, at \"5]\": the items of this list are texts"),
        ("['a'] == sender", "character 1, at \"['a'] == sender\": a list stands only after"),
        ("sender + 'x' == recipient", "character 1, at \"sender + 'x' == recipien\": texts cannot be put together"),
        ("size / 0 == 1 / 0", "character 15, at \"/ 0\": there is no such number"),
        ("true ? 1 : 'x'", "character 6, at \"? 1 : 'x'\": one side is a number, the other a text"),
        ("tagged('never')", "character 8, at \"'never')\": no rule before this one gives the tag"),
        ("known(sender)", "character 7, at \"sender)\": nothing is looked up here"),
        (
            "in_list(sender, 'partner')",
            "character 17, at \"'partner')\": there is no [list.partner]; did you mean \"partners\"?; the path",
        ),
        ("in_list(sender, './x')", "character 17, at \"'./x')\": \"./x\" is not the path"),
        ("count('bulks') > 1", "character 7, at \"'bulks') > 1\": there is no limit \"bulks\"; did you mean \"bulk\"?"),
        (
            "count('bulk', sender, recipient) > 1",
            "character 1, at \"count('bulk', sender, re\": the key of limit \"bulk\" has 1 terms, and 2 are given",
        ),
        ("count('bulk', spf()) > 1", "character 15, at \"spf()) > 1\": in a key stand a text"),
        (
            "count('bulk', true ? sender : recipient) > 1",
            "character 20, at \"? sender : recipient) >\": in a key stand",
        ),
        ("count('bulk') > '10MB'", "character 17, at \"'10MB'\": a number is compared with a number"),
        ("in_list(sender, 'x:/y')", "character 17, at \"'x:/y')\": \"x\" is no format"),
        ("spf() == 'temperror'", "character 10, at \"'temperror'\": it is never \"temperror\""),
        (
            "dnsbl('zem')",
            "character 7, at \"'zem')\": there is no DNS list \"zem\" in [perimeter]; did you mean \"zen\"?",
        ),
        ("country() == 'DE'", "character 1, at \"country() == 'DE'\": there is no perimeter.geo.country_db"),
        ("rdns_class() == 'good'", "character 17, at \"'good'\": it is never \"good\"; it is one of none, unmatched"),
        ("asn() == 'x'", "character 10, at \"'x'\": a number is compared with a number"),
        ("dnsbl_score() == 'high'", "character 18, at \"'high'\": a number is compared with a number"),
        ("size > 10MB", "character 10, at \"MB\": a size with its unit stands in quotes"),
    ] {
        let message = rule(when).map(drop).unwrap_err();
        let start = format!("octroi.toml:3: rule.when: rule \"r\": {told}");
        assert!(message.starts_with(&start), "{when}\nexpected {start}\ngot      {message}");
        assert_eq!(message.lines().count(), 1);
    }
}

#[test]
fn every_mistake_of_every_rule_is_told_at_once() {
    let text = "[[rule]]\nname = 'a'\nwhen = 'x'\nthen = ['fly']\n\n[[rule]]\nname = 'a'\nthen = []\n\n\
        [[rule]]\nname = 'b c'\nwhen = 'y'\nthen = ['accept', 'score +1', 'skip_to a', 'skip_to c']\n\
        [[rule]]\nname = 'd'\nwhen = \"in_list(sender, '/no/such/list')\"\nthen = ['stop']\n";
    let told = rules(text).map(drop).unwrap_err();
    for line in [
        "octroi.toml:3: rule.when: rule \"a\": character 1",
        "octroi.toml:4: rule.then: rule \"a\": \"fly\": there is no action \"fly\"",
        "octroi.toml:7: rule.name: there is a rule \"a\" already",
        "octroi.toml:8: rule.then: rule \"a\": needs at least one action",
        "octroi.toml:11: rule.name: \"b c\" is not a name",
        "octroi.toml:12: rule.when: ",
        "octroi.toml:13: rule.then: rule \"b c\": \"skip_to a\": skip_to goes forward only",
        "octroi.toml:13: rule.then: rule \"b c\": \"skip_to c\": there is no rule \"c\"",
        "octroi.toml:13: rule.then: rule \"b c\": score stands after accept, which ends the rule",
        "/no/such/list: cannot be read",
    ] {
        assert!(told.lines().any(|told| told.starts_with(line)), "{line} missing in\n{told}");
    }
}

#[test]
fn actions_are_checked() {
    for (then, told) in [
        ("accept now", "accept stands alone"),
        ("reject", "the text must begin with an enhanced status code such as \"5.7.1\""),
        ("reject 4.7.1 x", "the text must begin"),
        ("reject 55.7.1 x", "the text must begin"),
        ("defer 5.7.1 x", "the text must begin with an enhanced status code such as \"4.7.1\""),
        ("reject 5.7.1 {sendr}", "{sendr} does not exist"),
        ("reject 5.7.1 é", "the text must be of printable"),
        ("greylist soon", "\"soon\" is not a duration"),
        ("greylist 5", "\"5\" has no unit"),
        ("greylist 30d", "a delay of greylisting is between"),
        ("score", "\"\" is not a score"),
        ("score 0", "a score of 0"),
        ("score 99999", "\"99999\" is not a score"),
        ("prepend X-Foo", "must be a header line"),
        ("prepend", "prepend needs a header line"),
        ("tag", "\"\" is not a name"),
        ("limit bluk", "there is no limit \"bluk\"; did you mean \"bulk\"?"),
        ("ask", "\"\" is not an address"),
        ("compare unix:sock", "\"unix:sock\": a UNIX socket needs an absolute path"),
        ("hold on", "hold takes no address"),
        ("redirect", "redirect needs an address"),
        ("bcc a b@c", "\"a b@c\" is not a plain address"),
        ("rejct 5.7.1 x", "there is no action \"rejct\"; did you mean \"reject\"?"),
    ] {
        let message = rules(&format!("[[rule]]\nname = 'r'\nthen = ['{then}']\n")).map(drop).unwrap_err();
        let start = format!("octroi.toml:3: rule.then: rule \"r\": \"{then}\": {told}");
        assert!(message.starts_with(&start), "expected {start}\ngot      {message}");
    }
    let both = rules("[[rule]]\nname = 'r'\nthen = ['greylist', 'no_greylist']\n").map(drop).unwrap_err();
    assert!(both.contains("contradict"), "{both}");
}

#[test]
fn orders_need_a_way_to_contentd() {
    let source =
        Source::from_text("octroi.toml", "[[rule]]\nname = 'r'\nthen = ['hold', 'redirect box@our.test']\n").unwrap();
    let entries = source.list::<RuleSettings>("rule", &mut Mistakes::new());
    let told = Rules::compile(&entries, &Names::default(), false).map(drop).unwrap_err().to_string();
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.contains("\"hold\": needs handover.secret_file: contentd would not hear of it"), "{told}");
    let given_to = |orders| Rules::compile(&entries, &Names { orders, ..Names::default() }, false);
    assert!(given_to(OrdersTo::Contentd).is_ok() && given_to(OrdersTo::Postfix).is_ok());
}

#[test]
fn some_orders_are_contentds_and_some_are_postfixs() {
    for (then, contentd, postfix) in [
        ("no_attachments", "", "only contentd sees attachments"),
        ("filter smtp:[127.0.0.1]:10024", "only Postfix itself can pass mail to a filter", ""),
        ("filter nowhere", "is not transport:destination", "is not transport:destination"),
    ] {
        let text = format!("[[rule]]\nname = 'r'\nthen = ['{then}']\n");
        let entries = Source::from_text("octroi.toml", &text).unwrap();
        let entries = entries.list::<RuleSettings>("rule", &mut Mistakes::new());
        for (orders, told) in [(OrdersTo::Contentd, contentd), (OrdersTo::Postfix, postfix)] {
            let compiled = Rules::compile(&entries, &Names { orders, ..Names::default() }, false);
            match compiled.map(drop) {
                Ok(()) => assert_eq!(told, "", "{then} {orders:?}"),
                Err(mistakes) => assert!(!told.is_empty() && mistakes.to_string().contains(told), "{then}: {mistakes}"),
            }
        }
    }
}

#[test]
fn what_cannot_be_told_decides_nothing_unless_the_rest_does() {
    let failed = [Some(Fact::Untold)];
    let pass = [Some(Fact::Text("pass".into()))];
    for (when, missing, failed_is, pass_is) in [
        ("spf() == 'pass'", true, None, Some(true)),
        ("spf() != 'pass'", true, None, Some(false)),
        ("!(spf() in ['pass', 'none'])", true, None, Some(false)),
        ("spf() == 'fail' && size < 10", false, Some(false), Some(false)),
        ("size < 10 && spf() == 'fail'", false, Some(false), Some(false)),
        ("spf() == 'fail' || size > 10", false, Some(true), Some(true)),
        ("spf() == 'fail' || size < 10", true, None, Some(false)),
        ("known(spf())", true, Some(false), Some(true)),
        ("!known(spf()) || spf() == 'pass'", true, Some(true), Some(true)),
        ("(spf() == 'pass' ? size : 0) > 0", true, None, Some(true)),
        ("size / recipient_count > 5", false, None, None),
        ("dnsbl('zen') || size > 10", false, Some(true), Some(true)),
    ] {
        let compiled = rule(when).unwrap_or_else(|told| panic!("{when}: {told}"));
        let (first, asked) = truth(&compiled, &request(), &[None]);
        assert_eq!(first.is_none() && asked.is_some(), missing, "{when}: asked for {asked:?}");
        assert_eq!(truth(&compiled, &request(), &failed).0, failed_is, "{when}, failed");
        assert_eq!(truth(&compiled, &request(), &pass).0, pass_is, "{when}, pass");
    }
}

/// Walks through rules, and says in words what came; look-ups find SPF "pass".
fn walked(rules: &Rules, request: &PolicyRequest<'_>) -> String {
    let (mut walk, mut out) = (Walk::new(rules, false), Vec::new());
    loop {
        match walk.step(request, MOMENT) {
            Step::Need(number, need) => {
                out.push(need.told());
                walk.learn(number, Fact::Text("pass".into()));
            }
            Step::Matched(_, rule) => {
                out.push(rule.name.to_string());
                walk.follow(rule);
            }
            Step::Passed(_, rule) => out.push(format!("!{}", rule.name)),
            Step::Untold(_, rule) => out.push(format!("?{}", rule.name)),
            Step::End => return out.join(" "),
        }
    }
}

#[test]
fn rules_are_walked_in_order() {
    let text = |middle: &str| {
        format!(
            "[[rule]]\nname = 'one'\nwhen = \"size > '1MB'\"\nthen = ['tag large', 'score 1']\n\
             [[rule]]\nname = 'shadow'\nthen = ['reject 5.7.1 x']\nshadow = true\n{middle}\
             [[rule]]\nname = 'two'\nwhen = \"tagged('large') && spf() == 'pass'\"\nthen = ['score 2']\n\
             [[rule]]\nname = 'three'\nwhen = \"spf() == 'fail'\"\nthen = ['reject 5.7.1 x']\n\
             [[rule]]\nname = 'four'\nthen = ['stop']\n[[rule]]\nname = 'five'\nthen = ['accept']\n"
        )
    };
    assert_eq!(walked(&rules(&text("")).unwrap(), &request()), "one shadow spf() two four");
    let small = PolicyRequest { size: 1, ..request() };
    assert_eq!(walked(&rules(&text("")).unwrap(), &small), "shadow spf() four");
    let skipping = "[[rule]]\nname = 'skip'\nthen = ['skip_to four']\n";
    assert_eq!(walked(&rules(&text(skipping)).unwrap(), &request()), "one shadow skip four");
    let rejecting = "[[rule]]\nname = 'no'\nthen = ['score 1', 'reject 5.7.1 no']\n";
    assert_eq!(walked(&rules(&text(rejecting)).unwrap(), &request()), "one shadow no");
    let untold = "[[rule]]\nname = 'zero'\nwhen = '1 / recipient_count > 0'\nthen = ['stop']\n";
    assert_eq!(walked(&rules(&text(untold)).unwrap(), &request()), "one shadow ?zero spf() two four");
    assert_eq!(walked(&Rules::default(), &request()), "");
}

fn word() -> impl Strategy<Value = String> {
    let words = [
        "sender",
        "size",
        "client_address",
        "time",
        "date",
        "weekday",
        "authenticated",
        "spf()",
        "known(",
        "matches(",
        "in_network(",
        "in_list(",
        "size(",
        "domain(",
        "org_domain(",
        "time_between(",
        "tagged(",
        "(",
        ")",
        ",",
        "==",
        "!=",
        "<",
        ">=",
        "&&",
        "||",
        "!",
        "-",
        "+",
        "*",
        "/",
        "%",
        "in",
        "[",
        "]",
        "?",
        ":",
        "true",
        "1",
        "-9223372036854775808",
        "'x'",
        "'192.0.2.0/24'",
        "'10:00'",
        "'('",
        "'10MB'",
        "\"é\"",
    ];
    proptest::sample::select(words.to_vec()).prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_expression_compiles_or_is_refused(words in proptest::collection::vec(word(), 1..20), sender in "\\PC{0,20}") {
        let text = words.join(" ");
        let entry = format!("[[rule]]\nname = 'r'\nwhen = '''{text}'''\nthen = ['stop']\n");
        if let Ok(compiled) = rules(&entry) {
            let request = PolicyRequest { sender: sender.into(), ..request() };
            truth(&compiled, &request, &[None, Some(Fact::Untold)]);
            walked(&compiled, &request);
        }
    }

    #[test]
    fn any_action_is_read_or_refused(text in "(reject|defer|prepend|score|greylist|tag|skip_to)? ?\\PC{0,30}") {
        let entry = format!("[[rule]]\nname = 'r'\nthen = ['''{text}''']\n");
        let _ = rules(&entry);
    }
}

#[test]
fn what_a_count_asks_for_is_known_from_its_text() {
    use super::need::Need;
    let when = "count('bulk', org_domain(sender)) >= 5 && count('bulk', org_domain(sender)) < 9 && count('bulk') > 1 \
        && count('traffic', client_address, recipient) > '10MB' && greylist_known()";
    let rules = rule(when).unwrap_or_else(|told| panic!("{told}"));
    let told: Vec<String> = rules.needs().iter().map(Need::told).collect();
    let counts =
        ["count(\"bulk\", org_domain(sender))", "count(\"bulk\")", "count(\"traffic\", client_address, recipient)"];
    assert_eq!(told[..3], counts);
    assert_eq!(told[3..], ["greylist_known()"]);
    let values = |need: &Need| match need {
        Need::Count(count) => count.key.as_ref().map(|key| key.iter().map(|part| part.value(&request())).collect()),
        _ => None,
    };
    let keys: Vec<Option<Vec<Option<String>>>> = rules.needs().iter().map(values).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(keys[..2], [Some(vec![some("Example.org")]), None]);
    assert_eq!(keys[2], Some(vec![some("192.0.2.77"), some("info@our.test")]));
    let known = |numbers: [i64; 3]| {
        let numbers = numbers.map(|number| Some(Fact::Number(number)));
        numbers.into_iter().chain([Some(Fact::Flag(true))]).collect::<Vec<_>>()
    };
    assert_eq!(truth(&rules, &request(), &known([7, 2, 10_000_001])), (Some(true), None));
    assert_eq!(truth(&rules, &request(), &known([7, 2, 10_000_000])), (Some(false), None));
    assert_eq!(truth(&rules, &request(), &[]), (None, Some(0)));
}
