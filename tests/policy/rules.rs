// SPDX-License-Identifier: GPL-3.0-or-later
//! The administrator's rules in a running daemon, and in a decision with canned DNS.

use std::net::Ipv4Addr;

use common::config::Source;
use policyd::config::Settings;
use tests::mmdb::{self, Value};
use tests::nameserver::NameServer;

use crate::gate::{Gate, patient, rcpt, sql, sqlite, store, strict};
use crate::perimeter;
use crate::pool::{Host, from};

/// A strict greylist on the store at `url`, with these rules.
fn with_rules(url: &str, rules: &str) -> Settings {
    let read = Settings::read(&Source::from_text("octroi.toml", rules).unwrap());
    let rules = read.unwrap_or_else(|mistakes| panic!("{mistakes}")).rules;
    patient(Settings { rules, ..strict(url) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_answer_before_the_greylist() {
    let (_folder, url) = sqlite();
    let rules = r#"
        [[rule]]
        name = "watched"
        when = "sender_domain == 'Bad.Example'"
        then = ["defer 4.7.1 not yet"]
        shadow = true
        [[rule]]
        name = "bad"
        when = "sender_domain in ['bad.example', 'worse.example']"
        then = ["reject 5.7.1 <{sender}> not from [{client_address}]; rule {rule}"]
        [[rule]]
        name = "friends"
        when = "in_network(client_address, '192.0.2.0/28')"
        then = ["prepend X-Friend: {client_address}", "accept"]
        [[rule]]
        name = "trusted-name"
        when = "starts_with(recipient, 'direct')"
        then = ["no_greylist", "prepend X-Direct: yes", "stop"]
        [[rule]]
        name = "large"
        when = "size > '1KB' && recipient_local == 'small'"
        then = ["defer_if_permit 4.3.4 {size} bytes are too many"]
    "#;
    let gate = Gate::ready(with_rules(&url, rules)).await;
    let mut client = gate.client().await;
    for (ip, sender, recipient, action) in [
        ("192.0.2.1", "a@BAD.example", "r@our.test", "REJECT 5.7.1 <a@BAD.example> not from [192.0.2.1]; rule bad"),
        ("192.0.2.1", "a@good.example", "r@our.test", "PREPEND X-Friend: 192.0.2.1"),
        ("198.51.100.1", "a@good.example", "Direct@our.test", "PREPEND X-Direct: yes"),
        ("198.51.100.1", "a@good.example", "small@our.test", "DEFER_IF_PERMIT 4.3.4 1234 bytes are too many"),
    ] {
        let request = rcpt(ip, sender, recipient).replace("instance=1.2.3.4", &format!("instance=1.{recipient}"));
        assert_eq!(client.ask(&request).await.as_deref(), Some(action), "{ip} {sender} {recipient}");
    }
    let waits = client.ask(&rcpt("198.51.100.1", "a@good.example", "r@our.test")).await.unwrap();
    assert!(waits.starts_with("DEFER_IF_PERMIT 4.7.1 Greylisted"), "no rule, so the greylist decides: {waits}");

    let metrics = gate.get("/metrics").await;
    for line in [
        "octroi_policyd_rule_matches_total{rule=\"bad\"} 1",
        "octroi_policyd_rule_matches_total{rule=\"friends\"} 1",
        "octroi_policyd_rule_shadow_total{rule=\"watched\",action=\"defer\"} 1",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line} missing in\n{metrics}");
    }
    assert!(!metrics.contains("rule=\"watched\"} "), "a shadow rule counts only as such");
    gate.end().await;
}

const ZONE: &str = "\
    pass.example TXT v=spf1 ip4:203.0.113.0/24 -all\n\
    down.example SERVFAIL\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_look_up_what_they_cannot_do_without() {
    let (_folder, url) = sqlite();
    let rules = r#"
        [[rule]]
        name = "spf-fail"
        when = "spf() == 'fail' && !ends_with(sender, '@trusted.example')"
        then = ["reject 5.7.23 SPF says no"]
        [[rule]]
        name = "spf-unknown"
        when = "!known(spf()) && starts_with(recipient, 'strict')"
        then = ["defer 4.7.24 SPF cannot be told"]
        [[rule]]
        name = "no-greylist"
        when = "spf() != 'fail'"
        then = ["accept"]
    "#;
    let host = Host::start(&url, ZONE, |settings| settings.rules = with_rules(&url, rules).rules).await;
    for (ip, sender, recipient, reason) in [
        ("198.51.100.1", "a@pass.example", "r@our.test", "rule_rejected"),
        ("203.0.113.1", "a@pass.example", "r@our.test", "rule_accepted"),
        ("203.0.113.1", "a@none.example", "r@our.test", "rule_accepted"),
        ("203.0.113.1", "", "r@our.test", "rule_accepted"),
        // A look-up that failed: neither "fail" nor "not fail".
        ("203.0.113.1", "a@down.example", "r@our.test", "greylist_new"),
        ("203.0.113.1", "a@down.example", "strict@our.test", "rule_deferred"),
    ] {
        let mut request = from(ip, "mx.example", sender);
        request.recipient = recipient.into();
        assert_eq!(host.reason(&request).await, reason, "{ip} <{sender}> <{recipient}>");
    }
    host.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_greylists_whom_the_mode_would_let_pass_with_a_delay_of_its_own() {
    let (_folder, url) = sqlite();
    let rules = r#"
        [[rule]]
        name = "lines"
        when = "starts_with(sender, 'line')"
        then = ["greylist 15m"]
        [[rule]]
        name = "usual"
        when = "starts_with(sender, 'usual')"
        then = ["greylist"]
        [[rule]]
        name = "kept"
        when = "starts_with(sender, 'kept')"
        then = ["no_greylist"]
        [[rule]]
        name = "too-late"
        when = "starts_with(sender, 'kept')"
        then = ["greylist 1h"]
    "#;
    let mut settings = with_rules(&url, rules);
    settings.greylist.mode = policyd::config::GreylistMode::Adaptive;
    let gate = Gate::ready(settings).await;
    let mut client = gate.client().await;
    let mut number = 0;
    let mut ask = async |sender: &str| {
        number += 1;
        let request =
            rcpt("192.0.2.1", sender, "r@our.test").replace("instance=1.2.3.4", &format!("instance={number}"));
        client.ask(&request).await.unwrap()
    };
    let store = store(&url).await;
    let five_minutes = "update greylist set first_seen = first_seen - 300000, last_seen = last_seen - 300000";
    assert_eq!(ask("plain@x.example").await, "DUNNO", "nothing speaks against the client");
    assert_eq!(ask("kept@x.example").await, "DUNNO", "what an earlier rule says stays");
    for (sender, minutes) in [("line@x.example", 15), ("usual@x.example", 4)] {
        let waits = ask(sender).await;
        let told = format!("try again in {minutes} minutes");
        assert!(waits.starts_with("DEFER_IF_PERMIT 4.7.1 ") && waits.contains(&told), "{sender}: {waits}");
    }
    sql(&store, five_minutes).await;
    assert!(ask("usual@x.example").await.starts_with("PREPEND X-Greylist"));
    let waits = ask("line@x.example").await;
    assert!(waits.contains("try again in 10 minutes"), "{waits}");
    sql(&store, five_minutes).await;
    assert!(ask("line@x.example").await.starts_with("DEFER_IF_PERMIT"));
    sql(&store, five_minutes).await;
    assert!(ask("line@x.example").await.starts_with("PREPEND X-Greylist"));
    gate.end().await;
}

/// Runs the administrator's command in this folder; gives its exit status and what it printed.
async fn octroi(folder: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(tests::daemon::binary("octroi").unwrap());
    let output = command.current_dir(folder).args(arguments).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_candidate_is_tried_on_recorded_requests() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let rule = |name: &str, when: &str, then: &str| {
        format!("[[rule]]\nname = '{name}'\nwhen = \"{when}\"\nthen = ['{then}']\n")
    };
    let present = rule("bad", "sender_domain == 'bad.example'", "reject 5.7.1 no; id {id}");
    write("now.toml", &present);
    write(
        "new.toml",
        &format!("{present}{}", rule("large", "size > '1KB' && sender_domain == 'big.example'", "reject 5.3.4 {size}")),
    );
    let requests: String = [("a@bad.example", 3), ("a@big.example", 5), ("a@good.example", 2)]
        .into_iter()
        .flat_map(|(sender, count)| std::iter::repeat_n(rcpt("192.0.2.1", sender, "r@our.test"), count))
        .collect();
    write("requests", &requests);
    let replay = ["rules", "replay", "--config", "now.toml", "--candidate", "new.toml"];
    let (status, out, err) = octroi(folder.path(), &[&replay[..], &["requests"]].concat()).await;
    assert_eq!((status, err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    assert_eq!(lines[0], "10 requests, 5 decisions change", "{out}");
    assert_eq!(lines[1], "5  DUNNO (unsuspicious) -> REJECT (rule_rejected; rules large)");
    assert_eq!(lines[2], "RCPT client=192.0.2.1 sender=<a@big.example> recipient=<r@our.test>: REJECT 5.3.4 1234");
    assert!(lines.contains(&"3        3  bad") && lines.contains(&"0        5  large"), "{out}");

    write(
        "log",
        "time=1 level=info msg=policy id=x client=192.0.2.1 sender=a@bad.example rcpt=r@our.test state=RCPT\n",
    );
    let (status, out, _) = octroi(folder.path(), &[&replay[..], &["log"]].concat()).await;
    assert_eq!((status, out.lines().next()), (Some(0), Some("1 requests, 0 decisions change")));
    write("wrong.toml", "[[rule]]\nname = 'x'\nwhen = 'nothing'\nthen = ['stop']\n");
    let wrong = ["rules", "replay", "--config", "now.toml", "--candidate", "wrong.toml", "requests"];
    let (status, _, err) = octroi(folder.path(), &wrong).await;
    assert!(status == Some(78) && err.contains("wrong.toml:3: rule.when: "), "{err}");
}

#[tokio::test]
async fn oddities_are_told_and_foreign_rules_printed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("octroi.toml", "[[rule]]\nname = 'all'\nthen = ['accept']\n[[rule]]\nname = 'late'\nthen = ['stop']\n");
    let (status, out, _) = octroi(folder.path(), &["--config", "octroi.toml", "rules", "lint"]).await;
    assert_eq!(status, Some(65));
    assert!(
        out.starts_with("octroi.toml:4: rule \"late\": is never asked: \"all\" before it always ends the list\n"),
        "{out}"
    );
    write("postfwd.cf", "id=A; sender==x@y.example; action=REJECT no\nid=B; rbl=zen.example; action=REJECT\n");
    let (status, out, err) = octroi(folder.path(), &["rules", "import", "postfwd", "postfwd.cf"]).await;
    assert_eq!(status, Some(0), "{err}");
    assert!(out.contains("name = 'A'") && out.contains("# not carried over: rule B: rbl=zen.example: "), "{out}");
    assert!(err.contains("1 rules, 1 notes"), "{err}");
    write("imported.toml", &out);
    let (status, out, err) = octroi(folder.path(), &["--config", "imported.toml", "rules", "lint"]).await;
    assert_eq!((status, out.as_str()), (Some(0), "1 rules, 0 hints\n"), "{err}");
    write(
        "limit.yaml",
        "limits:\n  - [10, 60]\nlimits_by_id:\n  boss: []\nbackend: 2\npgsql_config: {password: hidden}\n",
    );
    let (status, out, err) = octroi(folder.path(), &["rules", "import", "policyd-rate-limit", "limit.yaml"]).await;
    assert_eq!(status, Some(0), "{err}");
    assert!(out.contains("rate = ['10/1m']") && out.contains("except = ['sasl_username=boss']"), "{out}");
    assert!(err.contains("1 limits, 1 notes") && !out.contains("hidden"), "{out}{err}");
    write("limits.toml", &out);
    let (status, _, err) = octroi(folder.path(), &["--config", "limits.toml", "rules", "lint"]).await;
    assert_eq!(status, Some(0), "{err}");
    let (status, _, err) = octroi(folder.path(), &["rules", "import", "policyd-rate-limit", "postfwd.cf"]).await;
    assert!(status == Some(65) && err.contains("postfwd.cf: "), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_where_a_rule_asks_for_it() {
    let (_folder, url) = sqlite();
    let text = "[[limit]]\nname = 'bulk'\nkey = ['domain(sender)']\nunit = 'recipients'\nrate = '2/1h'\nby_rule = true\n\
        action = 'defer 4.7.1 enough of it'\n\
        [[rule]]\nname = 'bulk-senders'\nwhen = \"ends_with(sender_domain, 'bulk.example')\"\nthen = ['no_greylist', 'limit bulk']\n\
        [[rule]]\nname = 'others'\nthen = ['no_greylist']\n";
    let read = Settings::read(&Source::from_text("octroi.toml", text).unwrap());
    let Settings { rules, limit, .. } = read.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let gate = Gate::ready(patient(Settings { rules, limit, ..strict(&url) })).await;
    let mut client = gate.client().await;
    for (sender, expected) in [
        ("a@bulk.example", "DUNNO"),
        ("b@bulk.example", "DUNNO"),
        ("c@bulk.example", "DEFER 4.7.1 enough of it"),
        ("a@other.example", "DUNNO"),
        ("b@other.example", "DUNNO"),
        ("c@other.example", "DUNNO"),
    ] {
        let request =
            rcpt("192.0.2.1", sender, "r@our.test").replace("instance=1.2.3.4", &format!("instance={sender}"));
        assert_eq!(client.ask(&request).await.as_deref(), Some(expected), "{sender}");
    }
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_policy_server_is_asked_and_compared() {
    let (_folder, url) = sqlite();
    let theirs = "[[rule]]\nname = 'their-bad'\nwhen = \"sender_domain == 'bad.example'\"\nthen = ['reject 5.7.9 they say no']\n\
        [[rule]]\nname = 'marked'\nwhen = \"sender_domain == 'marked.example'\"\nthen = ['prepend X-Theirs: yes', 'accept']\n\
        [[rule]]\nname = 'rest'\nthen = ['accept']\n";
    let other = Gate::ready(with_rules(&url, theirs)).await;
    let dead = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = format!(
        "[[rule]]\nname = 'migrating'\nthen = ['no_greylist', 'compare {other}']\n\
         [[rule]]\nname = 'dead'\nwhen = \"starts_with(recipient, 'dead')\"\nthen = ['ask {dead}', 'reject 5.7.1 went on']\n\
         [[rule]]\nname = 'silent'\nwhen = \"starts_with(recipient, 'silent')\"\nthen = ['ask {silent}', 'reject 5.7.1 went on']\n\
         [[rule]]\nname = 'unasked'\nwhen = \"starts_with(recipient, 'alone')\"\nthen = ['stop']\n\
         [[rule]]\nname = 'ask'\nthen = ['ask {other}']\n",
        other = other.address,
        silent = silent.local_addr().unwrap(),
    );
    let (_second, url) = sqlite();
    let mut settings = with_rules(&url, &ours);
    settings.policyd.budget = "2s".parse().unwrap();
    let gate = Gate::ready(settings).await;
    let mut client = gate.client().await;
    for (sender, recipient, action) in [
        ("a@bad.example", "r@our.test", "REJECT 5.7.9 they say no"),
        ("b@bad.example", "r@our.test", "REJECT 5.7.9 they say no"),
        ("a@marked.example", "r@our.test", "PREPEND X-Theirs: yes"),
        ("a@good.example", "r@our.test", "DUNNO"),
        ("a@bad.example", "alone@our.test", "DUNNO"),
        ("a@good.example", "dead@our.test", "REJECT 5.7.1 went on"),
        ("a@good.example", "silent@our.test", "REJECT 5.7.1 went on"),
    ] {
        let request = rcpt("192.0.2.1", sender, recipient).replace("instance=1.2.3.4", &format!("instance={sender}"));
        assert_eq!(client.ask(&request).await.as_deref(), Some(action), "{sender} {recipient}");
    }
    let wanted = [
        "octroi_policyd_asked_total{outcome=\"unreachable\"} 1",
        "octroi_policyd_asked_total{outcome=\"late\"} 1",
        "octroi_policyd_compared_total{outcome=\"differs\"} 3",
        "octroi_policyd_compared_total{outcome=\"same\"} 4",
        "octroi_policyd_decisions_total{action=\"reject\",reason=\"rule_asked\"} 2",
    ];
    let counted = async {
        loop {
            let metrics = gate.get("/metrics").await;
            if wanted.iter().all(|line| metrics.lines().any(|told| told == *line)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(crate::gate::PATIENCE, counted).await;
    assert!(in_time.is_ok(), "{}", gate.get("/metrics").await);
    gate.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_servers_are_asked_in_a_test_only_on_request() {
    let (folder, url) = sqlite();
    let theirs = "[[rule]]\nname = 'theirs'\nthen = ['reject 5.7.9 they say no']\n";
    let other = Gate::ready(with_rules(&url, theirs)).await;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let ours = format!(
        "[store]\nurl = 'sqlite:{0}/ours.db'\n[greylist]\nmode = 'off'\n\
         [[rule]]\nname = 'look'\nthen = ['compare {other}']\n\
         [[rule]]\nname = 'ask'\nwhen = \"starts_with(sender, 'ask')\"\nthen = ['ask {other}']\n",
        folder.path().display(),
        other = other.address
    );
    write("octroi.toml", &ours);
    write(
        "requests",
        &(rcpt("192.0.2.1", "ask@x.example", "r@our.test") + &rcpt("192.0.2.1", "a@x.example", "r@our.test")),
    );
    let run = async |program: &str, arguments: &[&str]| {
        let mut command = tokio::process::Command::new(tests::daemon::binary(program).unwrap());
        let output = command.current_dir(folder.path()).args(arguments).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let out = run("policyd", &["test", "--config", "octroi.toml", "requests"]).await;
    let address = &other.address;
    for told in [format!("rule ask: {address} is not asked here"), format!("compare: {address} is not asked here")] {
        assert!(out.contains(&told), "{told} missing in\n{out}");
    }
    assert!(!out.contains("REJECT"), "{out}");
    let out = run("policyd", &["test", "--ask", "--config", "octroi.toml", "requests"]).await;
    assert!(out.contains("action=REJECT 5.7.9 they say no"), "{out}");
    for told in [
        format!("compare: {address} says the same (reject)"),
        format!("compare: {address} says reject, we say goes_on"),
    ] {
        assert!(out.contains(&told), "{told} missing in\n{out}");
    }
    let out =
        run("octroi", &["rules", "replay", "--config", "octroi.toml", "--candidate", "octroi.toml", "requests"]).await;
    assert!(
        out.contains("candidate: other policy servers are not asked here; go on without an answer: look, ask"),
        "{out}"
    );
    assert!(out.contains("2 requests, 0 decisions change"), "{out}");
    other.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_perimeter_knows_is_known_to_rules() {
    let (folder, url) = sqlite();
    let (countries, asns) = (folder.path().join("country.mmdb"), folder.path().join("asn.mmdb"));
    let network = (Ipv4Addr::new(198, 31, 8, 0), 24);
    let iso = Value::Map(vec![("country", Value::Map(vec![("iso_code", Value::Text("XX"))]))]);
    std::fs::write(&countries, mmdb::write(&[(network.0, network.1, iso)])).unwrap();
    let asn = Value::Map(vec![("autonomous_system_number", Value::Number(64496))]);
    std::fs::write(&asns, mmdb::write(&[(network.0, network.1, asn)])).unwrap();
    let dns = NameServer::start(
        "2.0.0.127.bl.rules.test A 127.0.0.2\n5.7.31.198.bl.rules.test A 127.0.0.2\n6.7.31.198.bl.rules.test A 127.0.0.2\n",
    )
    .await;
    let text = format!(
        "[greylist]\nmode = 'off'\n[perimeter]\nreject_score = 0\ngreylist_score = 0\n\
         [perimeter.geo]\ncountry_db = '{}'\nasn_db = '{}'\n\
         [[perimeter.dnsbl]]\nzone = 'bl.rules.test'\nname = 'bl-rules'\nweight = 3\n\
         [[rule]]\nname = 'listed'\nwhen = \"dnsbl('bl-rules') && rdns_class() == 'confirmed'\"\nthen = ['reject 5.7.1 listed']\n\
         [[rule]]\nname = 'score'\nwhen = 'dnsbl_score() >= 3'\nthen = ['defer 4.7.1 scored']\n\
         [[rule]]\nname = 'place'\nwhen = \"country() == 'XX' && asn() == 64496\"\nthen = ['reject 5.7.1 not from there']\n",
        countries.display(),
        asns.display()
    );
    let gate = Gate::with_dns(perimeter::settings(&url, &dns, &text)).await;
    perimeter::until_metric(&gate, "octroi_policyd_dnslist_up{list=\"bl-rules\"} 1").await;
    let mut client = gate.client().await;
    let unnamed = |request: String| request.replace("client_name=mx.example.net\n", "client_name=unknown\n");
    for (request, action) in [
        (rcpt("198.31.7.5", "a@x.example", "r@our.test"), "REJECT 5.7.1 listed"),
        (unnamed(rcpt("198.31.7.6", "a@x.example", "r@our.test")), "DEFER 4.7.1 scored"),
        (rcpt("198.31.7.7", "a@x.example", "r@our.test"), "DUNNO"),
        (rcpt("198.31.8.7", "a@x.example", "r@our.test"), "REJECT 5.7.1 not from there"),
    ] {
        assert_eq!(client.ask(&request).await.as_deref(), Some(action), "{request}");
    }
    gate.end().await;
}
