// SPDX-License-Identifier: GPL-3.0-or-later
//! Real mail and the whole set of rules through the real spamc: score and rules are those of the pipeline.

use std::path::Path;

use common::address::Address;
use common::config::Source;
use contentd::config::Settings;
use contentd::pipeline::Pipeline;
use contentd::spamd::assessment::Assessment;
use tests::filter::Filter;
use tests::reference;
use tests::spamc::spamc;

use crate::{Collection, Inspector};

/// Every so many of the 400 messages is asked about.
const STEP: usize = 8;

/// Time for a build that is not optimised, on a machine with other things to do.
fn settings(rules: &Path) -> String {
    let (rules, site) = (rules.display(), rules.join("etc"));
    format!("[spam]\nrules = [\"{rules}\", \"{}\"]\ntime = \"60s\"\nrule_time = \"60s\"\n", site.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spamc_is_told_what_the_pipeline_finds() {
    let (rules, answers, mail) =
        (Collection::unpack("sa-rules"), Collection::unpack("sa-reference-dev"), Collection::unpack("mail-dev"));
    let lines = settings(&rules.path("sa-rules"));
    let read = Settings::read(&Source::from_text("test.toml", &lines).expect("good TOML")).expect("good settings");
    let inspector = Inspector { pipeline: Pipeline::new(&read).expect("good settings"), settings: read };
    let spamd = format!("{lines}[spamd]\nlisten = [\"127.0.0.1:0\"]\n");
    let filter = Filter::start(&Address::tcp("127.0.0.1", 1), &spamd).await;
    let Some(Address::Tcp { port, .. }) = &filter.spamd else { panic!("it listens") };
    let port = port.to_string();
    let place = ["-d", "127.0.0.1", "-p", &port, "-s", "100000000"];
    let (all, _) = reference::expected(&answers.path("sa-reference"));
    let (mut asked, mut hits) = (0, 0);
    for expected in all.iter().step_by(STEP) {
        let raw = std::fs::read(mail.path(&expected.file)).expect("the message is there");
        let (findings, _) = inspector.inspect(&raw).await;
        let found = findings.spam.as_ref().expect("the rules were run");
        let mut names: Vec<&str> = found.report.hits.iter().map(|hit| hit.rule.as_str()).collect();
        names.extend(findings.symbols.iter().map(|symbol| symbol.name.as_str()));
        names.extend(inspector.settings.ambiguity.scores(&findings).iter().map(|(kind, _)| kind.word()));
        names.sort_unstable();
        let symbols = spamc(&[&place[..], &["-y"]].concat(), &raw).await;
        let mut told: Vec<&str> = symbols.text.trim().split(',').filter(|name| !name.is_empty()).collect();
        told.retain(|name| !name.starts_with("OCTROI_"));
        assert_eq!(told, names, "{}", expected.file);
        let check = spamc(&[&place[..], &["-c"]].concat(), &raw).await;
        if !symbols.text.contains("OCTROI_") {
            let is_spam = found.score >= found.required;
            let (score, required) = (found.score, found.required);
            let shown = Assessment { is_spam, score, required, lines: Vec::new() };
            let wanted = format!("{}/{}\n", shown.shown_score(), shown.shown_required());
            assert_eq!((check.text, check.status), (wanted, i32::from(is_spam)), "{}", expected.file);
        }
        asked += 1;
        hits += told.len();
    }
    println!("{asked} messages, {hits} hits");
    assert!(asked == 50 && hits > 100, "{asked} messages, {hits} hits");
    filter.stop().await;
}
