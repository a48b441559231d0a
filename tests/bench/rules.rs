// SPDX-License-Identifier: GPL-3.0-or-later
//! What 200 rules cost one request: rules of the kinds that administrators write, none of which ends the list, walked in this process
//! for requests that differ. No server, no look-up; what is measured is what a rule file adds to every request.

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use common::config::{Mistakes, Source};
use policyd::config::RuleSettings;
use policyd::request::{PolicyRequest, ProtocolState};
use policyd::rules::expression::Moment;
use policyd::rules::walk::{Step, Walk};
use policyd::rules::{Names, Rules};

const RULES: usize = 200;
/// What the requirement allows, in microseconds.
const LIMIT: f64 = 10.0;
const TIME: Duration = Duration::from_millis(400);

type Condition = fn(usize) -> String;

/// Kinds of conditions, each with a number in it so that no two are equal.
const KINDS: [(&str, Condition); 8] = [
    ("equality", |n| format!("sender_domain == 'shop{n}.example'")),
    ("word and size", |n| format!("protocol_state == 'END-OF-MESSAGE' && size > '{}MB'", n + 1)),
    ("set of 50", |n| {
        let names: Vec<String> = (0..50).map(|m| format!("'user{n}.{m}@our.example'")).collect();
        format!("recipient in [{}]", names.join(", "))
    }),
    ("20 networks", |n| {
        let nets: Vec<String> = (0..20).map(|m| format!("'10.{}.{m}.0/24'", n % 256)).collect();
        format!("in_network(client_address, {})", nets.join(", "))
    }),
    ("end of a name", |n| format!("ends_with(client_name, '.dyn{n}.example.net') && !authenticated")),
    ("plain pattern", |n| format!("matches(helo_name, r'^mail{n}\\.example\\.org$')")),
    ("pattern", |n| format!("matches(client_name, r'^(dsl|cable|pool)[-.][0-9]+.*\\.isp{n}\\.(net|com)$')")),
    ("pattern anywhere", |n| format!("matches(sender, r'(bounce|news|info)[0-9a-f]{{4,}}-{n}@')")),
];

fn main() {
    let requests = requests();
    let mixed = |n: usize| KINDS[n % KINDS.len()].1(n);
    let mut out = std::io::stdout().lock();
    let mut row = |name: &str, rules: &Rules| {
        let cost = cost(rules, &requests).as_secs_f64() * 1e6;
        // Whoever reads the output is gone; there is nobody to tell.
        let _ = writeln!(out, "{name:<24} {cost:>8.3} us a request  {:>7.1} ns a rule", cost * 1e3 / RULES as f64);
        cost
    };
    row("no rules", &Rules::default());
    for (name, condition) in KINDS {
        row(name, &compiled(condition));
    }
    let cost = row("all kinds in turn", &compiled(mixed));
    if cost >= LIMIT {
        std::process::exit(1);
    }
}

fn compiled(condition: impl Fn(usize) -> String) -> Rules {
    let entry = |n| {
        format!(
            "[[rule]]\nname = 'rule{n}'\nwhen = \"\"\"{}\"\"\"\nthen = ['stop']\n",
            condition(n).replace('\\', "\\\\")
        )
    };
    let text: String = (0..RULES).map(entry).collect();
    let mut mistakes = Mistakes::new();
    let source = Source::from_text("rules", &text).expect("the rules are TOML");
    let entries = source.list::<RuleSettings>("rule", &mut mistakes);
    let rules = Rules::compile(&entries, &Names::default(), true).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!((rules.list().len(), mistakes.is_empty()), (RULES, true));
    rules
}

fn requests() -> Vec<PolicyRequest<'static>> {
    let request = |n: usize| PolicyRequest {
        state: ProtocolState::Rcpt,
        client_address: format!("198.51.{}.{}", n % 100, n % 250).parse().ok(),
        client_name: Some(format!("pool-{n}-3-2-1.customers.isp.example.net").into()),
        reverse_client_name: Some(format!("pool-{n}-3-2-1.customers.isp.example.net").into()),
        helo_name: format!("mail{n}.sender.example.com").into(),
        sender: format!("bounce-{n}-news@lists.sender{n}.example.com").into(),
        recipient: format!("first.last{n}@our.example").into(),
        size: 20_000 + n as u64,
        instance: "a1b.5d1.0".into(),
        ..PolicyRequest::default()
    };
    (0..64).map(request).collect()
}

/// The best of several runs: what disturbs a run only makes it longer.
fn cost(rules: &Rules, requests: &[PolicyRequest<'_>]) -> Duration {
    let (end, mut best) = (Instant::now() + TIME, Duration::MAX);
    while Instant::now() < end {
        let started = Instant::now();
        for request in requests {
            let mut walk = Walk::new(rules, false);
            while let Step::Matched(_, rule) = black_box(walk.step(black_box(request), Moment::default())) {
                walk.follow(rule);
            }
        }
        best = best.min(started.elapsed() / requests.len() as u32);
    }
    best
}
