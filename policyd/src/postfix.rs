// SPDX-License-Identifier: GPL-3.0-or-later
//! How Postfix is wired to us, from the text of `postconf -nx`, `-Px` and `-Mx`: which restriction lists ask this daemon, with which time
//! limits, and what the configuration needs that no list asks for (postconf(5), master(5), SMTPD_POLICY_README "Advanced policy client
//! configuration", SMTPD_PROXY_README).
//!
//! Pure but for [`wiring_of`], which runs postconf.

mod own;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::address::Address;
use common::lookup::ClientTable;
use common::postconf::{PostconfError, Services, postconf, seconds};

use crate::config::{Effect, GreylistMode, Settings};
use crate::limits::stages;
use crate::rules::OrdersTo;

/// Restriction lists that are asked once per recipient, as long as `smtpd_delay_reject` is on.
const AT_RCPT: [&str; 5] = ["client", "helo", "sender", "relay", "recipient"];
/// What Postfix does not do with mail that goes to a proxy filter.
const NOT_BEFORE_A_FILTER: [&str; 5] = ["HOLD", "REDIRECT", "BCC", "DISCARD", "FILTER"];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wiring {
    /// Lists that ask us: `smtp/inet/smtpd_recipient_restrictions`, or without service for main.cf.
    pub asked_by: Vec<String>,
    /// What works, but not as well as it could; one sentence each.
    pub hints: Vec<String>,
}

/// What our configuration needs of Postfix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wants {
    /// Where we listen.
    pub listen: Vec<Address>,
    /// How long a decision may take.
    pub budget: Duration,
    /// When we close an idle connection.
    pub idle_timeout: Duration,
    /// Connections that we take.
    pub max_connections: usize,
    /// Whether anybody is greylisted.
    pub greylist: bool,
    /// Who carries out orders.
    pub orders: OrdersTo,
    /// Restriction lists without which something configured has no effect (`data`, `end_of_data`), and what.
    pub lists: Vec<(&'static str, String)>,
}

impl Wants {
    /// The needs of these settings.
    pub fn of(settings: &Settings) -> Self {
        Self {
            listen: settings.policyd.listen.clone(),
            budget: settings.policyd.budget.0,
            idle_timeout: settings.policyd.idle_timeout.0,
            max_connections: settings.policyd.max_connections,
            greylist: settings.greylist.mode != GreylistMode::Off,
            orders: settings.orders_to(),
            lists: Vec::new(),
        }
    }
}

/// One `check_policy_service` of a restriction list.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    list: String,
    /// As it is written: Postfix keeps a connection for each different text.
    text: String,
    server: String,
    options: Vec<(String, String)>,
}

impl Call {
    fn option(&self, option: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| name == option).map(|(_, value)| value.as_str())
    }

    /// The list without its service.
    fn stage(&self) -> &str {
        self.list.rsplit('/').next().unwrap_or_default()
    }
}

/// The configuration of a Postfix, looked at with our eyes.
struct Postfix<'a> {
    parameters: Vec<(&'a str, &'a str)>,
    services: Services,
    calls: Vec<Call>,
}

/// Asks the installed Postfix, or the one configured in `folder`; see [`wiring`].
pub fn wiring_of(settings: &Settings, folder: Option<&Path>) -> Result<Wiring, PostconfError> {
    let (main, overrides) = (postconf(folder, &["-nx"])?, postconf(folder, &["-Px"])?);
    let mut wiring = wiring(&main, &overrides, &postconf(folder, &["-Mx"])?, &Wants::of(settings));
    if !wiring.asked_by.is_empty() {
        let basis = settings.key_basis();
        // What does not compile was told when it was read.
        let limits = settings.limit.iter().filter_map(|entry| entry.compile(basis).ok());
        let limits: Vec<_> = limits.map(|(limit, _)| limit).collect();
        wiring.hints.extend(stages::hints(&main, &overrides, &wiring.asked_by, &limits));
        wiring.hints.extend(own_hints(settings, &main, &overrides, &wiring.asked_by));
    }
    Ok(wiring)
}

/// Whether Postfix and we agree who is ours, where a client that calls itself by our name is judged.
fn own_hints(settings: &Settings, main: &str, overrides: &str, asked_by: &[String]) -> Vec<String> {
    let helo = &settings.perimeter.helo;
    if helo.own == Effect::Score(0) {
        return Vec::new();
    }
    let mut names = helo.own_names.clone();
    names.push(common::mail::hostname());
    // A list that cannot be read was told when the configuration was.
    let own = ClientTable::load(&settings.greylist.own_networks).unwrap_or_default();
    own::hints(main, overrides, asked_by, &names, &|ip| own.find(Some(ip), None).is_some())
}

/// Looks for ourselves in the parameters of main.cf (`main`) and of the services in master.cf (`overrides`), and in the services.
pub fn wiring(main: &str, overrides: &str, services: &str, wants: &Wants) -> Wiring {
    let parameters: Vec<(&str, &str)> =
        main.lines().chain(overrides.lines()).filter_map(|line| line.split_once(" =")).collect();
    let parameters: Vec<(&str, &str)> = parameters.into_iter().map(|(name, value)| (name, value.trim())).collect();
    let mut postfix = Postfix { parameters, services: Services::parse(services), calls: Vec::new() };
    let queue = PathBuf::from(postfix.main("queue_directory").unwrap_or("/var/spool/postfix"));
    let calls = postfix.parameters.iter().flat_map(|(name, value)| calls(name, value));
    postfix.calls = calls.filter(|call| wants.listen.iter().any(|ours| is_at(&call.server, ours, &queue))).collect();
    let mut wiring =
        Wiring { asked_by: postfix.calls.iter().map(|call| call.list.clone()).collect(), hints: Vec::new() };
    if wiring.asked_by.is_empty() {
        return wiring;
    }
    let found = [
        postfix.times(wants),
        postfix.actions(),
        postfix.places(),
        postfix.stages(wants),
        postfix.connections(wants),
        postfix.filter(wants),
    ];
    for hint in found.into_iter().flatten() {
        if !wiring.hints.contains(&hint) {
            wiring.hints.push(hint);
        }
    }
    wiring
}

impl Postfix<'_> {
    /// A parameter of main.cf.
    fn main(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// A parameter as a service has it.
    fn of(&self, service: &str, name: &str) -> Option<&str> {
        self.main(&format!("{service}/{name}")).or_else(|| self.main(name))
    }

    /// How long Postfix waits, against how long we take.
    fn times(&self, wants: &Wants) -> Vec<String> {
        let mut hints = Vec::new();
        for call in &self.calls {
            let Some(timeout) = call.option("timeout").or_else(|| self.main("smtpd_policy_service_timeout")) else {
                hints.push(format!(
                    "{}: no timeout, so Postfix waits 100s when policyd hangs; write {{ {}, timeout=5s }}",
                    call.list, call.server
                ));
                continue;
            };
            if seconds(timeout).is_some_and(|timeout| timeout <= wants.budget) {
                hints.push(format!(
                    "{}: timeout={timeout} is not longer than policyd.budget ({:?}): Postfix gives up while policyd still decides",
                    call.list, wants.budget
                ));
            }
        }
        let idle = self.main("smtpd_policy_service_max_idle").and_then(seconds);
        if idle.is_some_and(|idle| idle >= wants.idle_timeout) {
            hints.push(format!(
                "smtpd_policy_service_max_idle is not shorter than policyd.idle_timeout ({:?}): policyd closes first, which costs a second each time",
                wants.idle_timeout
            ));
        }
        hints
    }

    /// What Postfix does without an answer.
    fn actions(&self) -> Vec<String> {
        let mut hints = Vec::new();
        for call in &self.calls {
            match call.option("default_action").or_else(|| self.main("smtpd_policy_service_default_action")) {
                None => hints.push(format!(
                    "{}: no default_action, so mail is refused with 451 while policyd is stopped; default_action=DUNNO lets it pass",
                    call.list
                )),
                Some(action) if ["OK", "PERMIT"].iter().any(|word| action.eq_ignore_ascii_case(word)) => {
                    hints.push(format!("{}: default_action={action} skips what stands after it; write DUNNO", call.list));
                }
                Some(_) => {}
            }
        }
        hints
    }

    /// Whether strangers' mail for strangers is refused before we are asked.
    fn places(&self) -> Vec<String> {
        let guards = ["reject_unauth_destination", "defer_unauth_destination", "reject"];
        let guarded = |text: &str| words(text).any(|word| guards.contains(&word));
        let mut hints = Vec::new();
        for call in self.calls.iter().filter(|call| call.stage() == "smtpd_recipient_restrictions") {
            let service = call.list.strip_suffix("/smtpd_recipient_restrictions").unwrap_or_default();
            // Postfix asks the relay restrictions first; their default refuses.
            let relay = self.of(service, "smtpd_relay_restrictions").is_none_or(guarded);
            let before = self
                .main(&call.list)
                .and_then(|list| list.split_once("check_policy_service"))
                .map(|(before, _)| before);
            if !relay && !before.is_some_and(guarded) {
                hints.push(format!(
                    "{}: policyd is asked before reject_unauth_destination, about mail that is not for here as well",
                    call.list
                ));
            }
        }
        hints
    }

    /// What is configured and never asked.
    fn stages(&self, wants: &Wants) -> Vec<String> {
        let asks = |list: &str| self.calls.iter().any(|call| call.stage() == format!("smtpd_{list}_restrictions"));
        let mut hints = Vec::new();
        if wants.greylist && !AT_RCPT.into_iter().any(asks) {
            hints.push("no list that is asked at RCPT: only bounces can be greylisted".to_owned());
        }
        if wants.greylist && !asks("data") {
            hints.push("not in smtpd_data_restrictions: mail with the null sender is not greylisted".to_owned());
        }
        for (list, what) in wants.lists.iter().filter(|(list, _)| !asks(list)) {
            hints.push(format!("not in smtpd_{list}_restrictions: {what} has no effect"));
        }
        let early = ["client", "helo", "sender"].into_iter().any(asks);
        if early && self.main("smtpd_delay_reject") == Some("no") {
            hints.push("smtpd_delay_reject = no: lists before RCPT ask about clients, not about messages; nothing is greylisted there".to_owned());
        }
        hints
    }

    /// Whether we take as many connections as Postfix makes.
    fn connections(&self, wants: &Wants) -> Vec<String> {
        let usual = self.main("default_process_limit").and_then(|limit| limit.parse().ok()).unwrap_or(100);
        let most = |service: &common::postconf::Service| {
            let mut texts: Vec<&str> = Vec::new();
            for call in &self.calls {
                // A list of its own takes the place of main.cf's.
                let own = call.list.strip_prefix(&format!("{}/", service.path())).is_some();
                let common =
                    !call.list.contains('/') && self.main(&format!("{}/{}", service.path(), call.list)).is_none();
                if (own || common) && !texts.contains(&call.text.as_str()) {
                    texts.push(&call.text);
                }
            }
            texts.len() * service.processes.unwrap_or(usual)
        };
        let needed: usize = self.services.smtpd().map(most).sum();
        if needed <= wants.max_connections {
            return Vec::new();
        }
        vec![format!(
            "Postfix can open {needed} connections (smtpd processes, each with one per different check_policy_service text); policyd.max_connections is {}",
            wants.max_connections
        )]
    }

    /// What a proxy filter changes, and what is missing without one.
    fn filter(&self, wants: &Wants) -> Vec<String> {
        let mut hints = Vec::new();
        for service in self.services.smtpd() {
            let path = service.path();
            let value = |name: &str| self.of(&path, name).unwrap_or_default();
            let lists = |of: &dyn Fn(&str) -> bool| {
                let names =
                    AT_RCPT.iter().chain(&["data", "end_of_data"]).map(|stage| format!("smtpd_{stage}_restrictions"));
                names.into_iter().find(|list| of(value(list)))
            };
            let filtered = !value("smtpd_proxy_filter").is_empty();
            let asks = |text: &str| self.calls.iter().any(|call| text.contains(&call.text));
            if wants.orders == OrdersTo::Postfix && filtered && lists(&asks).is_some() {
                hints.push(format!(
                    "{path}: asks policyd and has smtpd_proxy_filter, with which Postfix does none of its orders and lets the mail go on: policyd.orders must be \"header\""
                ));
            }
            if wants.orders == OrdersTo::Contentd && !filtered && lists(&asks).is_some() {
                hints.push(format!(
                    "{path}: asks policyd and has no smtpd_proxy_filter: orders for contentd are not carried out, and their header stays in the mail"
                ));
            }
            let idle = |text: &str| {
                let fixed =
                    |word: &&str| word.starts_with("static:") || word.starts_with("inline:") || word.contains('=');
                let action = |word: &str| word.split([':', '=']).next_back().unwrap_or_default().to_ascii_uppercase();
                words(text).filter(fixed).any(|word| NOT_BEFORE_A_FILTER.contains(&action(word).as_str()))
            };
            if filtered && let Some(list) = lists(&idle) {
                hints.push(format!("{path}: {list} has an action that Postfix does not do with smtpd_proxy_filter, and lets the mail go on"));
            }
        }
        hints
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c == '{' || c == '}' || c.is_whitespace()).filter(|word| !word.is_empty())
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
            let (list, text) = (list.to_owned(), argument.trim().to_owned());
            found.push(Call { list, text, server: server.to_owned(), options });
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

    const ALL: &str = "smtpd_policy_service_timeout = 5s\nsmtpd_policy_service_default_action = DUNNO\n\
        smtpd_recipient_restrictions = reject_unauth_destination, check_policy_service inet:127.0.0.1:10023\n\
        smtpd_data_restrictions = check_policy_service inet:127.0.0.1:10023\n";
    const SMTPD: &str = "smtp       inet  n       -       y       -       -       smtpd\n";

    fn wants() -> Wants {
        let listen = ["127.0.0.1:10023", "unix:/var/spool/postfix/private/policyd"].map(|text| text.parse().unwrap());
        Wants { listen: listen.to_vec(), ..Wants::of(&Settings::default()) }
    }

    fn hints(main: &str, overrides: &str, wants: &Wants) -> Vec<String> {
        wiring(main, overrides, SMTPD, wants).hints
    }

    #[track_caller]
    fn only_hint(main: &str, overrides: &str, wants: &Wants, told: &str) {
        let hints = hints(main, overrides, wants);
        assert!(!hints.is_empty() && hints.iter().all(|hint| hint.contains(told)), "{hints:#?}");
    }

    #[test]
    fn lists_that_ask_us_are_found() {
        let main = "queue_directory = /var/spool/postfix\n\
            smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination, check_policy_service { inet:localhost:10023, timeout=5s, default_action=DUNNO }\n\
            smtpd_data_restrictions = check_policy_service unix:private/policyd\n\
            smtpd_sender_restrictions = check_policy_service inet:127.0.0.1:9998\n";
        let master = "smtps/inet/smtpd_client_restrictions = check_policy_service inet:127.0.0.1:10023, permit\n";
        let wiring = wiring(main, master, SMTPD, &wants());
        assert_eq!(
            wiring.asked_by,
            ["smtpd_recipient_restrictions", "smtpd_data_restrictions", "smtps/inet/smtpd_client_restrictions"]
        );
        assert_eq!(wiring.hints.len(), 4, "{:?}", wiring.hints);
        assert!(wiring.hints[0].starts_with("smtpd_data_restrictions: no timeout"), "{:?}", wiring.hints);
    }

    #[test]
    fn global_time_limits_and_all_stages_leave_no_hint() {
        assert_eq!(hints(ALL, "", &wants()), Vec::<String>::new());
    }

    #[test]
    fn other_servers_are_not_ours() {
        for server in ["inet:127.0.0.1:10024", "inet:192.0.2.1:10023", "unix:private/other", "inet:10023", ""] {
            let main = format!("smtpd_recipient_restrictions = check_policy_service {server}\n");
            assert_eq!(wiring(&main, "", SMTPD, &wants()), Wiring::default(), "{server}");
        }
        let any = Wants { listen: vec!["0.0.0.0:10023".parse().unwrap()], ..wants() };
        assert_eq!(
            wiring("smtpd_x = check_policy_service inet:192.0.2.1:10023\n", "", SMTPD, &any).asked_by,
            ["smtpd_x"]
        );
    }

    #[test]
    fn a_service_that_is_not_asked_at_rcpt_is_told() {
        let main =
            "smtpd_data_restrictions = check_policy_service { inet:127.0.0.1:10023 timeout=5s default_action=DUNNO }\n";
        only_hint(main, "", &wants(), "no list that is asked at RCPT: only bounces can be greylisted");
    }

    #[test]
    fn times_that_do_not_fit_are_told() {
        only_hint(&ALL.replace("timeout = 5s", "timeout = 1s"), "", &wants(), "gives up while policyd still decides");
        let long = format!("{ALL}smtpd_policy_service_max_idle = 20m\n");
        only_hint(&long, "", &wants(), "policyd closes first");
        only_hint(&ALL.replace("DUNNO", "OK"), "", &wants(), "write DUNNO");
    }

    #[test]
    fn an_open_place_in_the_list_is_told() {
        let swapped = ALL.replace("reject_unauth_destination, check", "check");
        assert_eq!(hints(&swapped, "", &wants()), Vec::<String>::new(), "the relay restrictions refuse by default");
        only_hint(&format!("{swapped}smtpd_relay_restrictions =\n"), "", &wants(), "before reject_unauth_destination");
        assert_eq!(hints(&format!("{ALL}smtpd_relay_restrictions =\n"), "", &wants()), Vec::<String>::new());
    }

    #[test]
    fn what_needs_a_list_that_is_not_there_is_told() {
        let needs = Wants { lists: vec![("end_of_data", "limit \"bytes\"".to_owned())], ..wants() };
        only_hint(ALL, "", &needs, "not in smtpd_end_of_data_restrictions: limit \"bytes\" has no effect");
        let off = Wants { greylist: false, ..wants() };
        let only_rcpt: String =
            ALL.lines().filter(|line| !line.contains("data")).map(|line| format!("{line}\n")).collect();
        assert_eq!(hints(&only_rcpt, "", &off), Vec::<String>::new());
        let early = format!(
            "{ALL}smtpd_delay_reject = no\nsmtpd_helo_restrictions = check_policy_service inet:127.0.0.1:10023\n"
        );
        only_hint(&early, "", &wants(), "smtpd_delay_reject = no");
    }

    #[test]
    fn connections_are_counted_by_service_and_text() {
        let few = Wants { max_connections: 150, ..wants() };
        assert_eq!(hints(ALL, "", &few), Vec::<String>::new());
        let two = ALL.replace(
            "data_restrictions = check_policy_service inet:127.0.0.1:10023",
            "data_restrictions = check_policy_service { inet:127.0.0.1:10023, policy_context=data }",
        );
        only_hint(&two, "", &few, "Postfix can open 200 connections");
        // The service has lists of its own, which do not ask.
        let none = "smtp/inet/smtpd_data_restrictions =\nsmtp/inet/smtpd_recipient_restrictions = reject\n";
        assert_eq!(hints(&two, none, &few), Vec::<String>::new());
    }

    #[test]
    fn orders_need_a_filter_and_a_filter_needs_orders() {
        let orders = Wants { orders: OrdersTo::Contentd, ..wants() };
        only_hint(ALL, "", &orders, "smtp/inet: asks policyd and has no smtpd_proxy_filter");
        let filtered = "smtp/inet/smtpd_proxy_filter = 127.0.0.1:10024\n";
        assert_eq!(hints(ALL, filtered, &orders), Vec::<String>::new());
        let by_postfix = Wants { orders: OrdersTo::Postfix, ..wants() };
        assert_eq!(hints(ALL, "", &by_postfix), Vec::<String>::new());
        only_hint(ALL, filtered, &by_postfix, "policyd.orders must be \"header\"");
        let hold = format!("{ALL}smtpd_client_restrictions = check_client_access static:HOLD\n");
        only_hint(&hold, filtered, &orders, "an action that Postfix does not do with smtpd_proxy_filter");
    }
}
