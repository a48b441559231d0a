// SPDX-License-Identifier: GPL-3.0-or-later
//! The pieces in `deploy/postfix/` are understood by the Postfix at hand, and the gate leaves nothing behind.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use tests::daemon::binary;
use tests::ports::Ports;
use tests::sandbox::{Options, Sandbox};

use crate::{gate, said};

#[test]
fn postfix_knows_every_parameter_we_ship() {
    let gate = gate(&Options::for_tests());
    for list in ["-n", "-M", "-P"] {
        let out =
            Command::new("/usr/sbin/postconf").arg("-c").arg(gate.postfix.configuration()).arg(list).output().unwrap();
        let complaints = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && complaints.is_empty(), "postconf {list}: {complaints}");
    }
    let log = gate.mail_log();
    let complaint = log.lines().find(|line| line.contains("warning:") || line.contains("fatal:"));
    assert_eq!(complaint, None);
}

/// `check --postfix` of a daemon, with this gate's Postfix: its exit status and all it says.
fn wiring_check(gate: &Sandbox, daemon: &str) -> (Option<i32>, String) {
    let out = Command::new(binary(daemon).unwrap())
        .args(["check", "--postfix", "--config"])
        .arg(gate.directory().join("octroi.toml"))
        .env("MAIL_CONFIG", gate.postfix.configuration())
        .output()
        .unwrap();
    (out.status.code(), said(&out))
}

#[test]
fn the_daemons_find_the_shipped_wiring_right() {
    let gate = gate(&Options::for_tests());
    for daemon in ["policyd", "contentd", "octroi"] {
        let (status, said) = wiring_check(&gate, daemon);
        assert_eq!(status, Some(0), "{daemon}: {said}");
        let hints = said.lines().filter(|line| line.starts_with("postfix: ") && !line.contains("asked by"));
        assert_eq!(hints.collect::<Vec<_>>(), Vec::<&str>::new(), "{daemon}");
    }
}

#[test]
fn the_daemons_find_a_wrong_wiring_wrong() {
    let mut gate = gate(&Options::for_tests());
    // The daemons have moved, Postfix was not told.
    gate.change_settings("[policyd]\nlisten = ['127.0.0.1:1']\n[contentd]\nlisten = ['127.0.0.1:2']").unwrap();
    for daemon in ["policyd", "contentd", "octroi"] {
        let (status, said) = wiring_check(&gate, daemon);
        assert_eq!(status, Some(78), "{daemon}: {said}");
    }
}

#[test]
fn what_works_badly_is_told_from_what_a_real_postconf_prints() {
    let options = Options::for_tests();
    let ask = format!("check_policy_service inet:127.0.0.1:{}", options.ports.policy);
    let options = options
        .with_postfix("smtpd_relay_restrictions", "")
        .with_postfix("smtpd_recipient_restrictions", &format!("{ask}, reject_unauth_destination"))
        .with_postfix("smtpd_data_restrictions", "")
        .with_postfix("smtpd_client_restrictions", "check_client_access static:DISCARD")
        .with_postfix("smtpd_policy_service_max_idle", "1h")
        .with_postfix("default_process_limit", "3000");
    let mut gate = gate(&options);
    gate.change_settings("[handover]\nhold = '127.0.0.1:1'").unwrap();
    let (status, said) = wiring_check(&gate, "octroi");
    assert_eq!(status, Some(78), "{said}");
    for told in [
        "smtpd_recipient_restrictions: no timeout",
        "smtpd_recipient_restrictions: no default_action",
        "before reject_unauth_destination",
        "not in smtpd_data_restrictions",
        "an action that Postfix does not do with smtpd_proxy_filter",
        "policyd closes first",
        "Postfix can open 3",
        "no service listens on handover.hold",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
}

#[test]
fn a_taken_port_is_one_line_and_leaves_nothing() {
    let options = Options::for_tests();
    let _holder = TcpListener::bind((Ipv4Addr::LOCALHOST, options.ports.reinject)).unwrap();
    let trouble = Sandbox::start(&options).expect_err("the port is taken").to_string();
    assert!(trouble.starts_with(&format!("port {} (reinject) is taken", options.ports.reinject)), "{trouble}");
    assert!(!trouble.contains('\n'));
}

#[test]
fn a_wrong_configuration_is_named_and_leaves_nothing() {
    let options = Options::for_tests().with("[greylist]\ndelay = '5 parsecs'");
    let trouble = Sandbox::start(&options).expect_err("the configuration is wrong").to_string();
    assert!(trouble.contains("octroi.toml:") && trouble.contains("greylist.delay"), "{trouble}");
}

#[test]
fn two_gates_stand_side_by_side_and_are_gone_afterwards() {
    let (one, two) = (gate(&Options::for_tests()), gate(&Options::for_tests()));
    let (directory, ports) = (one.directory().to_owned(), one.ports.clone());
    let daemons = [one.policyd.id(), one.contentd.id()].map(Option::unwrap);
    drop(one);
    assert!(!directory.exists());
    assert_eq!(ports.must_be_free(), Ok(()));
    assert!(daemons.iter().all(|id| !std::path::Path::new(&format!("/proc/{id}")).exists()));
    assert!(two.ports.must_be_free().is_err());
    assert_ne!(two.ports, Ports::default());
}
