// SPDX-License-Identifier: GPL-3.0-or-later
//! `contentd check --postfix`: does Postfix's configuration fit ours? It reads what postconf(1) prints and
//! changes nothing.
//!
//! Only what loses mail, loops or opens a hole is reported. Postfix SMTPD_PROXY_README; master(5), postconf(5).

use std::path::Path;
use std::time::Duration;

use common::address::Address;
use common::handover::HandoverSettings;
use common::postconf::{PostconfError, postconf, seconds};

use crate::config::{ContentdSettings, Settings};

/// One service of master.cf: its name, and its `-o` settings.
#[derive(Debug, Default, PartialEq, Eq)]
struct Service {
    name: String,
    options: Vec<(String, String)>,
}

/// Asks the installed Postfix, or the one configured in `folder`. One line per problem.
pub fn check(settings: &Settings, folder: Option<&Path>) -> Result<Vec<String>, PostconfError> {
    let main = postconf(folder, &["-x"])?;
    let master = postconf(folder, &["-Mx"])?;
    Ok(problems(&settings.contentd, &settings.handover, &main, &master))
}

fn problems(contentd: &ContentdSettings, handover: &HandoverSettings, main: &str, master: &str) -> Vec<String> {
    let main: Vec<(&str, &str)> =
        main.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.trim(), v.trim())).collect();
    let services = services(master);
    let mut problems = front(contentd, &main, &services);
    problems.extend(back(contentd, &main, &services));
    if handover.is_on() {
        problems.extend(hold(handover, &main, &services));
    }
    problems
}

/// A service's own setting, else that of main.cf.
fn value<'a>(main: &[(&'a str, &'a str)], service: &'a Service, name: &str) -> Option<&'a str> {
    let own = service.options.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    own.or_else(|| main.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
}

/// The services before the filter.
fn front(contentd: &ContentdSettings, main: &[(&str, &str)], services: &[Service]) -> Vec<String> {
    let mut problems = Vec::new();
    let filtered = |service: &&Service| {
        let filter = value(main, service, "smtpd_proxy_filter").unwrap_or_default();
        contentd.listen.iter().any(|address| is_filter(filter, address))
    };
    let fronts: Vec<&Service> = services.iter().filter(filtered).collect();
    if fronts.is_empty() {
        problems.push(format!(
            "postfix master.cf: no smtpd has smtpd_proxy_filter={}: no mail is filtered",
            spell(&contentd.listen)
        ));
    }
    for service in fronts {
        let name = &service.name;
        problems.extend(smuggling(main, service));
        let timeout = value(main, service, "smtpd_proxy_timeout").and_then(seconds).unwrap_or(Duration::from_secs(100));
        if timeout < contentd.proxy_timeout.0 {
            problems.push(format!(
                "postfix {name}: smtpd_proxy_timeout is {}s, contentd.proxy_timeout {}: Postfix gives up first and mail may come twice",
                timeout.as_secs(),
                contentd.proxy_timeout
            ));
        }
        let limit = value(main, service, "message_size_limit").and_then(|text| text.parse::<u64>().ok());
        if limit.is_some_and(|limit| limit == 0 || limit > contentd.max_size.0) {
            problems.push(format!(
                "postfix {name}: message_size_limit is {}, contentd.max_size {}: larger mail is taken in only to be refused",
                limit.unwrap_or_default(),
                contentd.max_size
            ));
        }
    }
    problems
}

/// What lets a second message in behind a false end of the first. Only of what this Postfix knows.
fn smuggling(main: &[(&str, &str)], service: &Service) -> Vec<String> {
    let name = &service.name;
    let is = |key: &str, wrong: &[&str]| {
        main.iter().any(|(known, _)| *known == key)
            && wrong.contains(&value(main, service, key).unwrap_or_default().to_ascii_lowercase().as_str())
    };
    let mut problems = Vec::new();
    if is("smtpd_forbid_bare_newline", &["no", ""]) {
        problems.push(format!(
            "postfix {name}: needs smtpd_forbid_bare_newline = normalize, else a false end of data lets a second message in"
        ));
    }
    if is("smtpd_forbid_unauth_pipelining", &["no", ""]) {
        problems.push(format!(
            "postfix {name}: needs smtpd_forbid_unauth_pipelining = yes, else it talks to clients that do not listen"
        ));
    }
    problems
}

/// The service behind the filter.
fn back(contentd: &ContentdSettings, main: &[(&str, &str)], services: &[Service]) -> Vec<String> {
    let Some(service) = services.iter().find(|service| is_service(&service.name, &contentd.reinject)) else {
        return vec![format!("postfix master.cf: no service listens on contentd.reinject, {}", contentd.reinject)];
    };
    let name = &service.name;
    let mut problems = Vec::new();
    let empty = |key: &str| value(main, service, key).unwrap_or_default().is_empty();
    if !empty("smtpd_proxy_filter") || !empty("content_filter") {
        problems.push(format!(
            "postfix {name}: needs `-o smtpd_proxy_filter=` and `-o content_filter=`, else mail goes round in circles"
        ));
    }
    if empty("smtpd_authorized_xforward_hosts") {
        problems.push(format!("postfix {name}: needs `-o smtpd_authorized_xforward_hosts=127.0.0.0/8`, else every client is called localhost"));
    }
    // Where this Postfix knows the parameter at all, its default spares $mynetworks, and that is where we come from.
    let exclusions = "smtpd_forbid_bare_newline_exclusions";
    if main.iter().any(|(key, _)| *key == exclusions) && !empty(exclusions) {
        problems.push(format!(
            "postfix {name}: needs `-o {exclusions}=`, else smuggled mail is not stopped behind the filter"
        ));
    }
    problems
}

/// The service whose messages are to be held.
fn hold(handover: &HandoverSettings, main: &[(&str, &str)], services: &[Service]) -> Vec<String> {
    let Some(service) = services.iter().find(|service| is_service(&service.name, &handover.hold)) else {
        return vec![format!(
            "postfix master.cf: no service listens on handover.hold, {}: messages that are to be held come again and again",
            handover.hold
        )];
    };
    let name = &service.name;
    let mut problems = Vec::new();
    if !value(main, service, "smtpd_data_restrictions").unwrap_or_default().to_ascii_uppercase().contains("STATIC:HOLD")
    {
        problems.push(format!(
            "postfix {name}: needs `-o smtpd_data_restrictions=check_client_access,static:HOLD`, else messages are delivered that are to be held"
        ));
    }
    if !value(main, service, "smtpd_proxy_filter").unwrap_or_default().is_empty() {
        problems.push(format!("postfix {name}: needs `-o smtpd_proxy_filter=`: behind a filter HOLD is not done"));
    }
    problems
}

fn services(master: &str) -> Vec<Service> {
    let mut services = Vec::new();
    for line in master.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let smtpd = words.get(7).is_some_and(|program| *program == "smtpd");
        let (true, Some(name)) = (smtpd, words.first()) else { continue };
        let options = words[8..].windows(2).filter(|pair| pair[0] == "-o").filter_map(|pair| pair[1].split_once('='));
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        services.push(Service { name: (*name).to_owned(), options });
    }
    services
}

/// Postfix writes a filter as `host:port`, `inet:host:port`, `port` or `unix:path`.
fn is_filter(filter: &str, address: &Address) -> bool {
    let filter = filter.strip_prefix("inet:").unwrap_or(filter);
    match address {
        Address::Tcp { port, .. } => {
            filter == address.to_string()
                || filter.rsplit(':').next() == Some(&port.to_string()) && !filter.starts_with("unix:")
        }
        Address::Unix(path) => {
            filter.strip_prefix("unix:").is_some_and(|name| path.ends_with(name.trim_start_matches('/')))
        }
    }
}

/// master.cf names a service `host:port`, `port`, or by path under the queue folder.
fn is_service(name: &str, address: &Address) -> bool {
    match address {
        Address::Tcp { port, .. } => name.rsplit(':').next() == Some(&port.to_string()),
        Address::Unix(path) => path.ends_with(name),
    }
}

fn spell(addresses: &[Address]) -> String {
    addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "message_size_limit = 10240000\nsmtpd_proxy_timeout = 100s\nsmtpd_proxy_filter = \nsmtpd_authorized_xforward_hosts = \nsmtpd_forbid_bare_newline_exclusions = $mynetworks\nsmtpd_forbid_bare_newline = normalize\nsmtpd_forbid_unauth_pipelining = yes\n";
    const MASTER: &str = "smtp inet n - y - 20 smtpd -o smtpd_proxy_filter=127.0.0.1:10024\n\
        pickup unix n - y 60 1 pickup\n\
        127.0.0.1:10025 inet n - y - - smtpd -o smtpd_proxy_filter= -o smtpd_authorized_xforward_hosts=127.0.0.0/8 -o smtpd_forbid_bare_newline_exclusions=\n";

    fn found(main: &str, master: &str) -> Vec<String> {
        problems(&ContentdSettings::default(), &HandoverSettings::default(), main, master)
    }

    #[test]
    fn a_good_postfix_has_no_problems() {
        assert_eq!(found(MAIN, MASTER), Vec::<String>::new());
    }

    #[test]
    fn each_problem_is_named() {
        for (main, master, word) in [
            (MAIN.to_owned(), MASTER.replace("10024", "10099"), "no mail is filtered"),
            (MAIN.replace("100s", "1m"), MASTER.to_owned(), "smtpd_proxy_timeout"),
            (MAIN.replace("10240000", "0"), MASTER.to_owned(), "message_size_limit"),
            (MAIN.to_owned(), MASTER.replace("10025", "10026"), "contentd.reinject"),
            (
                MAIN.replace("smtpd_proxy_filter = ", "smtpd_proxy_filter = 127.0.0.1:10024"),
                MASTER.replace("-o smtpd_proxy_filter= ", ""),
                "circles",
            ),
            (MAIN.to_owned(), MASTER.replace("-o smtpd_authorized_xforward_hosts=127.0.0.0/8 ", ""), "xforward"),
            (MAIN.to_owned(), MASTER.replace(" -o smtpd_forbid_bare_newline_exclusions=", ""), "smuggled"),
            (MAIN.replace("= normalize", "= no"), MASTER.to_owned(), "false end of data"),
            (MAIN.replace("pipelining = yes", "pipelining = no"), MASTER.to_owned(), "do not listen"),
        ] {
            let found = found(&main, &master);
            assert!(found.iter().any(|line| line.contains(word)), "{word}: {found:?}");
        }
    }

    #[test]
    fn the_door_of_the_hold_queue_is_looked_at_when_orders_are_given() {
        let handover = HandoverSettings { secret_file: Some("/x".into()), ..HandoverSettings::default() };
        let found = |master: &str| problems(&ContentdSettings::default(), &handover, MAIN, master);
        assert!(found(MASTER)[0].contains("handover.hold"), "{:?}", found(MASTER));
        let door = "127.0.0.1:10026 inet n - y - - smtpd -o smtpd_proxy_filter= -o smtpd_data_restrictions=check_client_access,static:HOLD\n";
        assert_eq!(found(&format!("{MASTER}{door}")), Vec::<String>::new());
        let open = door.replace("static:HOLD", "static:OK");
        assert!(found(&format!("{MASTER}{open}"))[0].contains("delivered that are to be held"));
        let main = MAIN.replace("smtpd_proxy_filter = ", "smtpd_proxy_filter = 127.0.0.1:10024");
        let circle = door.replace("-o smtpd_proxy_filter= ", "");
        let found = problems(&ContentdSettings::default(), &handover, &main, &format!("{MASTER}{circle}"));
        assert!(found.iter().any(|line| line.contains("HOLD is not done")), "{found:?}");
    }
}
