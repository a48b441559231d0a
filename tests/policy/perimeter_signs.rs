// SPDX-License-Identifier: GPL-3.0-or-later
//! HELO, reverse names, the sender's domain, SPF and countries as Postfix meets them: policyd over its socket, with a name server.

use std::net::Ipv4Addr;

use tests::mmdb::{self, Value};
use tests::nameserver::{Manner, NameServer};

use crate::gate::{Client, Gate, rcpt, sqlite};
use crate::perimeter::settings;

const ZONE: &str = "
    mx.example.net A 198.31.7.4
    example.net MX 10 mx.example.net
    good.example TXT \"v=spf1 ip4:198.31.7.0/24 -all\"
    good.example A 198.31.7.9
    strict.example TXT \"v=spf1 -all\"
    strict.example A 198.31.7.9
    soft.example TXT \"v=spf1 ~all\"
    soft.example A 198.31.7.9
    null.example MX 0 .
    inside.example MX 10 mx.inside.example
    mx.inside.example A 10.9.8.7
    bounce.example A 198.31.7.9
";

/// Starts one, without greylisting, with these sections.
async fn start(text: &str) -> (tempfile::TempDir, NameServer, Gate) {
    let ((folder, url), dns) = (sqlite(), NameServer::start(ZONE).await);
    let gate = Gate::with_dns(settings(&url, &dns, &format!("[greylist]\nmode = 'off'\n{text}"))).await;
    (folder, dns, gate)
}

/// A request of a message of its own: `fields` take the place of those of a plain one.
fn with(fields: &[(&str, &str)]) -> String {
    let mut request = rcpt("198.31.7.4", "a@example.net", "r@example.org").trim_end().to_owned();
    for (name, value) in fields {
        let line = |line: &&str| !line.starts_with(&format!("{name}="));
        request = request.lines().filter(line).collect::<Vec<_>>().join("\n");
        request.push_str(&format!("\n{name}={value}"));
    }
    request + "\n\n"
}

async fn asks(client: &mut Client, fields: &[(&str, &str)]) -> String {
    client.ask(&with(fields)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helo_and_names_are_weighed() {
    let text = "[perimeter]\nreject_score = 5\ngreylist_score = 0\n[perimeter.helo]\nown_names = ['mx.example.org']\n\
        own = 'reject'\nliteral = 5\ninvalid = 'defer'\nunresolvable = 5\nrandom = 'reject'\nrandom_after = 3\n\
        [perimeter.reverse_name]\nnone = 5\nunmatched = 3\n";
    let (_folder, dns, gate) = start(text).await;
    let mut client = gate.client().await;
    for (fields, answer) in [
        (&[][..], "DUNNO"),
        (
            &[("helo_name", "mx.example.org")],
            "REJECT 5.7.1 Client [198.31.7.4] refused: it calls itself by our name; id ",
        ),
        (
            &[("helo_name", "[198.31.7.4]")],
            "REJECT 5.7.1 Client [198.31.7.4] refused: it calls itself by an address; id ",
        ),
        (
            &[("helo_name", "a b"), ("client_address", "198.31.7.20")],
            "DEFER 4.7.1 Client [198.31.7.20] refused: what it calls ",
        ),
        (
            &[("helo_name", "no.example.com"), ("client_address", "198.31.7.21")],
            "REJECT 5.7.1 Client [198.31.7.21] refused: what it calls itself is not in DNS; id ",
        ),
        (
            &[("client_name", "unknown"), ("reverse_client_name", "unknown")],
            "REJECT 5.7.1 Client [198.31.7.4] refused: its address has no name; id ",
        ),
        (&[("client_name", "unknown")], "DUNNO"),
        // 3 and 5.
        (
            &[("client_name", "unknown"), ("helo_name", "no.example.com"), ("client_address", "198.31.7.22")],
            "REJECT 5.7.1 Client [198.31.7.22] refused: what it calls itself is not in DNS, the name of its address does not lead back to it; id ",
        ),
        (&[("helo_name", "mx.example.org"), ("protocol_state", "CONNECT")], "DUNNO"),
        (&[("helo_name", "mx.example.org"), ("sasl_username", "ann")], "DUNNO"),
        (&[("helo_name", "mx.example.org"), ("client_address", "127.0.0.1")], "DUNNO"),
        (&[("helo_name", "mx.example.org"), ("recipient", "postmaster@example.org")], "DUNNO"),
        (&[("helo_name", "mx.example.org"), ("protocol_state", "DATA"), ("recipient", "")], "DUNNO"),
    ] {
        let answered = asks(&mut client, fields).await;
        assert!(answered.starts_with(answer), "{fields:?} gave {answered}");
    }
    for (number, refused) in [(0, false), (1, false), (2, false), (3, true), (2, true)] {
        let name = format!("n{number}.example.net");
        dns.zone(&format!("{ZONE}\n{name} A 198.31.7.30\n"));
        let answered = asks(&mut client, &[("helo_name", &name), ("client_address", "198.31.7.30")]).await;
        assert_eq!(answered.starts_with("REJECT"), refused, "{number}: {answered}");
    }
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_that_nobody_can_answer_are_refused() {
    let text = "[perimeter.sender]\nno_mail_host = 'defer'\nnull_mx = 'reject'\nbogus_mx = 9\n";
    let (_folder, dns, gate) = start(text).await;
    let mut client = gate.client().await;
    for (sender, answer) in [
        ("a@example.net", "DUNNO"),
        ("a@good.example", "DUNNO"),
        ("", "DUNNO"),
        ("a@null.example", "REJECT 5.7.27 Client [198.31.7.4] refused: null.example has no mail; id "),
        ("a@none.example", "DEFER 4.1.8 Client [198.31.7.4] refused: none.example has no mail host; id "),
        ("a@inside.example", "REJECT 5.7.1 Client [198.31.7.4] refused: MX of inside.example is at 10.9.8.7; id "),
    ] {
        let answered = asks(&mut client, &[("sender", sender)]).await;
        assert!(answered.starts_with(answer), "{sender} gave {answered}");
    }
    dns.misbehave("late.example", Manner::Servfail);
    assert_eq!(asks(&mut client, &[("sender", "a@late.example")]).await, "DUNNO", "no answer is no sign");
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spf_has_an_effect_per_result_and_a_header_per_message() {
    let text =
        "[perimeter]\nreject_score = 5\n[perimeter.spf]\nfail = 'reject'\nsoftfail = 2\nheader = 'received_spf'\n";
    let (_folder, dns, gate) = start(text).await;
    let mut client = gate.client().await;
    let good = [("sender", "a@good.example"), ("instance", "1.good")];
    let header = asks(&mut client, &good).await;
    let expected = "PREPEND Received-SPF: pass (good.example authorises 198.31.7.4) receiver=";
    assert!(header.starts_with(expected), "{header}");
    assert!(header.ends_with("helo=mx.example.net; mechanism=\"ip4:198.31.7.0/24\""), "{header}");
    for _ in 0..3 {
        assert_eq!(asks(&mut client, &good).await, "DUNNO", "once per message");
    }
    let second = asks(&mut client, &[("sender", "a@soft.example"), ("instance", "2.soft")]).await;
    assert!(second.starts_with("PREPEND Received-SPF: softfail ("), "{second}");
    let refused = asks(&mut client, &[("sender", "a@strict.example"), ("instance", "3.fail")]).await;
    assert!(
        refused.starts_with("REJECT 5.7.23 Client [198.31.7.4] refused: SPF fail of strict.example; id "),
        "{refused}"
    );
    dns.misbehave("late.example", Manner::Servfail);
    let late = asks(&mut client, &[("sender", "a@late.example"), ("instance", "4.late")]).await;
    assert!(late.starts_with("PREPEND Received-SPF: temperror (no answer about late.example now)"), "{late}");
    let bounce = asks(&mut client, &[("sender", ""), ("helo_name", "strict.example"), ("instance", "5.null")]).await;
    assert!(
        bounce.starts_with("REJECT 5.7.23 Client [198.31.7.4] refused: SPF fail of strict.example; id "),
        "{bounce}"
    );
    gate.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn countries_and_networks_of_a_file_count() {
    let folder = tempfile::tempdir().unwrap();
    let (countries, asns) = (folder.path().join("country.mmdb"), folder.path().join("asn.mmdb"));
    let country = |code| Value::Map(vec![("country", Value::Map(vec![("iso_code", Value::Text(code))]))]);
    let registered = Value::Map(vec![("registered_country", Value::Map(vec![("iso_code", Value::Text("YY"))]))]);
    let networks = [
        (Ipv4Addr::new(198, 31, 7, 0), 24, country("XX")),
        (Ipv4Addr::new(198, 31, 8, 0), 24, country("DE")),
        (Ipv4Addr::new(198, 31, 9, 0), 24, registered),
    ];
    std::fs::write(&countries, mmdb::write(&networks)).unwrap();
    let asn = Value::Map(vec![
        ("autonomous_system_number", Value::Number(64496)),
        ("autonomous_system_organization", Value::Text("Example")),
    ]);
    std::fs::write(&asns, mmdb::write(&[(Ipv4Addr::new(198, 31, 8, 128), 25, asn)])).unwrap();
    let text = format!(
        "[perimeter.geo]\ncountry_db = '{}'\nasn_db = '{}'\ncountries = {{ XX = 'reject', YY = 9, '??' = 'defer' }}\nasns = {{ 64496 = 8 }}\n",
        countries.display(),
        asns.display()
    );
    let (_folder, _dns, gate) = start(&text).await;
    let mut client = gate.client().await;
    for (address, answer) in [
        ("198.31.7.4", "REJECT 5.7.1 Client [198.31.7.4] refused: it is in XX; id "),
        ("198.31.8.4", "DUNNO"),
        ("198.31.8.200", "REJECT 5.7.1 Client [198.31.8.200] refused: it is in AS64496; id "),
        ("198.31.9.4", "REJECT 5.7.1 Client [198.31.9.4] refused: it is in YY; id "),
        ("203.0.113.4", "DEFER 4.7.1 Client [203.0.113.4] refused: it is in ??; id "),
        ("2001:db8::1", "DEFER 4.7.1 Client [2001:db8::1] refused: it is in ??; id "),
    ] {
        let answered = asks(&mut client, &[("client_address", address)]).await;
        assert!(answered.starts_with(answer), "{address} gave {answered}");
    }
    gate.end().await;
    // A file that is none is named when the configuration is read.
    std::fs::write(&countries, "no database").unwrap();
    let settings = policyd::config::Settings::read(&common::config::Source::from_text("f", &text).unwrap()).unwrap();
    let mistakes = policyd::policy::Policy::load(settings).unwrap_err().to_string();
    assert!(mistakes.starts_with(&format!("{}: perimeter.geo.country_db: ", countries.display())), "{mistakes}");
}
