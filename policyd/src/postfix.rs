// SPDX-License-Identifier: GPL-3.0-or-later
//! How Postfix is wired to us, from the text of `postconf -nx` and `postconf -Px`: which restriction lists ask this daemon, and
//! with which time limits (postconf(5), SMTPD_POLICY_README "Advanced policy client configuration").
//!
//! Pure: running postconf is the command's work.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use common::address::Address;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wiring {
    /// Lists that ask us: `smtp/inet/smtpd_recipient_restrictions`, or without service for main.cf.
    pub asked_by: Vec<String>,
    /// What works, but not as well as it could; one sentence each.
    pub hints: Vec<String>,
}

/// One `check_policy_service` of a restriction list.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    list: String,
    server: String,
    options: Vec<(String, String)>,
}

impl Call {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|(name, _)| name == option)
    }
}

/// Looks for ourselves in the parameters of main.cf and of the services in master.cf.
pub fn wiring(main: &str, master: &str, listen: &[Address]) -> Wiring {
    let parameters: Vec<(&str, &str)> =
        main.lines().chain(master.lines()).filter_map(|line| line.split_once(" = ")).collect();
    let value = |name: &str| parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| value.trim());
    let queue = PathBuf::from(value("queue_directory").unwrap_or("/var/spool/postfix"));
    let calls: Vec<Call> = parameters
        .iter()
        .flat_map(|(name, value)| calls(name, value))
        .filter(|call| listen.iter().any(|address| is_at(&call.server, address, &queue)))
        .collect();
    let mut wiring = Wiring { asked_by: calls.iter().map(|call| call.list.clone()).collect(), hints: Vec::new() };
    if calls.is_empty() {
        return wiring;
    }
    let mut hint = |text: String| {
        if !wiring.hints.contains(&text) {
            wiring.hints.push(text);
        }
    };
    for call in &calls {
        if !call.has("timeout") && value("smtpd_policy_service_timeout").is_none() {
            hint(format!(
                "{}: no timeout, so Postfix waits 100s when policyd hangs; write {{ {}, timeout=5s }}",
                call.list, call.server
            ));
        }
        if !call.has("default_action") && value("smtpd_policy_service_default_action").is_none() {
            hint(format!(
                "{}: no default_action, so mail is refused with 451 while policyd is stopped; default_action=DUNNO lets it pass",
                call.list
            ));
        }
    }
    let asks = |list: &str| calls.iter().any(|call| call.list.ends_with(list));
    let at_rcpt = ["client", "helo", "sender", "relay", "recipient"];
    if !at_rcpt.iter().any(|stage| asks(&format!("smtpd_{stage}_restrictions"))) {
        hint("no list that is asked at RCPT: only bounces can be greylisted".to_owned());
    }
    if !asks("smtpd_data_restrictions") {
        hint("not in smtpd_data_restrictions: mail with the null sender is not greylisted".to_owned());
    }
    wiring
}

/// Every `check_policy_service` in the value of a parameter. The argument is one word, or words in braces.
fn calls(list: &str, value: &str) -> Vec<Call> {
    let mut found = Vec::new();
    let mut rest = value;
    while let Some((_, after)) = rest.split_once("check_policy_service") {
        let after = after.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        let (argument, next) = match after.strip_prefix('{') {
            Some(inner) => inner.split_once('}').unwrap_or((inner, "")),
            None => after.split_at(after.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(after.len())),
        };
        let mut words = argument.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        if let Some(server) = words.next() {
            let option = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            let options = words.filter_map(option).collect();
            found.push(Call { list: list.to_owned(), server: server.to_owned(), options });
        }
        rest = next;
    }
    found
}

/// Whether `server`, as Postfix has it (`inet:host:port`, `unix:path`), is one of ours.
fn is_at(server: &str, address: &Address, queue: &Path) -> bool {
    match (server.strip_prefix("unix:"), address) {
        // A relative path, and with chroot an absolute one too, begins at the queue directory.
        (Some(path), Address::Unix(ours)) => {
            Path::new(path) == ours || queue.join(path.trim_start_matches('/')) == *ours
        }
        (None, Address::Tcp { host, port }) => {
            let server = server.strip_prefix("inet:").unwrap_or(server);
            server.rsplit_once(':').is_some_and(|(asked, number)| {
                number.parse() == Ok(*port) && same_host(asked.trim_matches(['[', ']']), host)
            })
        }
        _ => false,
    }
}

fn same_host(asked: &str, ours: &str) -> bool {
    let any = ours.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    let local = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    any || asked.eq_ignore_ascii_case(ours) || (local(asked) && local(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Vec<Address> {
        vec!["127.0.0.1:10023".parse().unwrap(), "unix:/var/spool/postfix/private/policyd".parse().unwrap()]
    }

    #[test]
    fn lists_that_ask_us_are_found() {
        let main = "queue_directory = /var/spool/postfix\n\
            smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination, check_policy_service { inet:localhost:10023, timeout=5s, default_action=DUNNO }\n\
            smtpd_data_restrictions = check_policy_service unix:private/policyd\n\
            smtpd_sender_restrictions = check_policy_service inet:127.0.0.1:9998\n";
        let master = "smtps/inet/smtpd_client_restrictions = check_policy_service inet:127.0.0.1:10023, permit\n";
        let wiring = wiring(main, master, &here());
        assert_eq!(
            wiring.asked_by,
            ["smtpd_recipient_restrictions", "smtpd_data_restrictions", "smtps/inet/smtpd_client_restrictions"]
        );
        assert_eq!(wiring.hints.len(), 4, "{:?}", wiring.hints);
        assert!(wiring.hints[0].starts_with("smtpd_data_restrictions: no timeout"), "{:?}", wiring.hints);
    }

    #[test]
    fn global_time_limits_and_all_stages_leave_no_hint() {
        let main = "smtpd_policy_service_timeout = 5s\nsmtpd_policy_service_default_action = DUNNO\n\
            smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:10023\n\
            smtpd_data_restrictions = check_policy_service inet:127.0.0.1:10023\n";
        assert_eq!(wiring(main, "", &here()).hints, Vec::<String>::new());
    }

    #[test]
    fn other_servers_are_not_ours() {
        for server in ["inet:127.0.0.1:10024", "inet:192.0.2.1:10023", "unix:private/other", "inet:10023", ""] {
            let main = format!("smtpd_recipient_restrictions = check_policy_service {server}\n");
            assert_eq!(wiring(&main, "", &here()), Wiring::default(), "{server}");
        }
        let any = ["0.0.0.0:10023".parse().unwrap()];
        assert_eq!(wiring("smtpd_x = check_policy_service inet:192.0.2.1:10023\n", "", &any).asked_by, ["smtpd_x"]);
    }

    #[test]
    fn a_service_that_is_not_asked_at_rcpt_is_told() {
        let main =
            "smtpd_data_restrictions = check_policy_service { inet:127.0.0.1:10023 timeout=5s default_action=DUNNO }\n";
        let hints = wiring(main, "", &here()).hints;
        assert_eq!(hints, ["no list that is asked at RCPT: only bounces can be greylisted"]);
    }
}
