// SPDX-License-Identifier: GPL-3.0-or-later
//! The configuration of policyd-rate-limit (YAML; its releases 1.0 to 1.2) as `[[limit]]` entries. There one list of windows holds for every id, which
//! is the login, else the sender, else the address of the client, as far as each is switched on; `limits_by_id` has other windows for some.
//!
//! Its counters are not carried over: they are full again after the longest window.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use common::config::{Mistakes, Source};
use policyd::config::Settings;
use serde_yaml_ng::{Mapping, Value};

use super::import::{one_line, reply, toml_text};

/// Most ids with limits of their own: each is a `[[limit]]`.
const MOST_IDS: usize = 100;
/// Settings of its process, which have nothing to do with limits.
const OF_ITS_PROCESS: [&str; 7] =
    ["debug", "user", "group", "pidfile", "socket_permission", "delay_to_close", "config_file"];
/// Settings of its database.
const OF_ITS_DATABASE: [&str; 4] = ["backend", "sqlite_config", "mysql_config", "pgsql_config"];
/// Settings of its report, beside `report` itself.
const OF_ITS_REPORT: [&str; 8] = [
    "report_from",
    "report_to",
    "report_subject",
    "report_limits",
    "report_only_if_needed",
    "smtp_server",
    "smtp_starttls",
    "smtp_credentials",
];

/// Limits as TOML, how many there are, and how many notes on what is not carried over.
pub(super) struct Converted {
    pub(super) text: String,
    pub(super) limits: usize,
    pub(super) notes: usize,
}

/// Reads a configuration. The error says why it is none.
pub(super) fn converted(text: &str) -> Result<Converted, String> {
    let old: Mapping = match serde_yaml_ng::from_str(text) {
        Ok(Value::Mapping(old)) => old,
        Ok(Value::Null) => Mapping::new(),
        Ok(_) => return Err("is no configuration of policyd-rate-limit: its top level is no mapping".to_owned()),
        Err(error) => return Err(format!("is no YAML (the older .conf in Python cannot be read): {error}")),
    };
    let mut reader = Reader { old, notes: Vec::new() };
    let limits = reader.limits();
    reader.told_elsewhere();
    let (mut out, mut count) = (String::new(), 0);
    for limit in limits {
        match checked(&limit.to_toml()) {
            Ok(text) => {
                count += 1;
                out.push_str(&text);
                out.push('\n');
            }
            Err(why) => reader.notes.push(format!("limit {}: {why}", limit.name)),
        }
    }
    let notes = reader.notes.len();
    let comments = reader.notes.iter().fold(String::new(), |mut text, note| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# not carried over: {}", one_line(note));
        text
    });
    let gap = if comments.is_empty() { "" } else { "\n" };
    Ok(Converted { text: format!("{comments}{gap}{out}"), limits: count, notes })
}

/// A limit that our daemon takes, or why it does not.
fn checked(text: &str) -> Result<String, String> {
    let read = Source::from_text("", text).and_then(|source| Settings::read(&source));
    read.map(|_| text.to_owned())
        .map_err(|mistakes: Mistakes| mistakes.iter().map(|one| one.message.clone()).collect::<Vec<_>>().join("; "))
}

/// One limit of ours.
#[derive(Debug, Clone, Default)]
struct Limit {
    name: String,
    key: String,
    unit: &'static str,
    stage: &'static str,
    rates: Vec<String>,
    action: String,
    only: Vec<String>,
    except: Vec<String>,
}

impl Limit {
    fn to_toml(&self) -> String {
        let list = |texts: &[String]| {
            let texts: Vec<String> = texts.iter().map(|text| toml_text(text)).collect();
            format!("[{}]", texts.join(", "))
        };
        let mut text = format!(
            "[[limit]]\nname = {}\nkey = [{}]\nunit = '{}'\nstage = '{}'\nrate = {}\naction = {}\n",
            toml_text(&self.name),
            toml_text(&self.key),
            self.unit,
            self.stage,
            list(&self.rates),
            toml_text(&self.action)
        );
        for (option, who) in [("only", &self.only), ("except", &self.except)] {
            if !who.is_empty() {
                let _ = writeln!(text, "{option} = {}", list(who));
            }
        }
        text
    }
}

/// Which ids are limited.
struct Ids {
    sasl: bool,
    sender: bool,
    /// Networks of the clients that are limited by address; empty: none.
    networks: Vec<String>,
}

impl Ids {
    fn everywhere(&self) -> bool {
        self.networks.iter().any(|network| network == "0.0.0.0/0")
            && self.networks.iter().any(|network| network == "::/0")
    }
}

struct Reader {
    old: Mapping,
    notes: Vec<String>,
}

impl Reader {
    fn take(&mut self, key: &str) -> Option<Value> {
        self.old.remove(key).filter(|value| !value.is_null())
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(Value::Bool(flag)) => flag,
            Some(other) => {
                self.note(format!("{key}: {} is neither true nor false", shown(&other)));
                default
            }
        }
    }

    /// All limits: those for everybody, then those of single ids.
    fn limits(&mut self) -> Vec<Limit> {
        let ids = self.ids();
        let (unit, stage) = self.unit();
        let action = self.action();
        let usual = match self.take("limits") {
            Some(list) => self.rates("limits", &list),
            None => vec!["10/1m".to_owned(), "150/1d".to_owned()],
        };
        let whole = Limit { unit, stage, action, rates: usual, ..Limit::default() };
        let mut kinds = kinds(&ids, &whole);
        if kinds.is_empty() {
            self.note("limits: neither logins nor senders nor addresses are limited");
        }
        if ids.sender && !ids.networks.is_empty() && !ids.everywhere() {
            self.note("limit_by_ip beside limit_by_sender: there only the null sender was limited by address");
        }
        let singles = self.singles(&ids, &mut kinds);
        kinds.retain(|limit| !limit.rates.is_empty());
        kinds.extend(singles);
        kinds
    }

    fn ids(&mut self) -> Ids {
        let (sasl, sender) = (self.flag("limit_by_sasl", true), self.flag("limit_by_sender", false));
        let by_ip = self.flag("limit_by_ip", false);
        // The misspelt name is that of its first releases.
        let old_name = self.take("limited_netword");
        let written = self.take("limited_networks").or(old_name);
        let networks: Vec<String> = match &written {
            Some(Value::Sequence(list)) => list.iter().map(network).collect(),
            _ => Vec::new(),
        };
        if by_ip && networks.is_empty() {
            self.note("limit_by_ip: limited_networks is empty, so no address was limited");
        }
        Ids { sasl, sender, networks: if by_ip { networks } else { Vec::new() } }
    }

    fn unit(&mut self) -> (&'static str, &'static str) {
        match self.take("count_mode").as_ref().map(shown).as_deref() {
            // Release 1.0 knew nothing else.
            None | Some("0") => ("recipients", "rcpt"),
            Some("1") => ("recipients", "data"),
            Some("2") => ("messages", "data"),
            Some(other) => {
                self.note(format!("count_mode {other}: recipients are counted"));
                ("recipients", "rcpt")
            }
        }
    }

    /// What is answered above a limit.
    fn action(&mut self) -> String {
        let written = self.take("fail_action").as_ref().map(shown);
        let written = written.unwrap_or_else(|| "defer_if_permit Rate limit reach, retry later".to_owned());
        // Braces are ours.
        let plain = written.replace('{', "(").replace('}', ")");
        let (verb, text) = plain.trim().split_once(' ').unwrap_or((plain.trim(), ""));
        match verb.to_ascii_lowercase().as_str() {
            "dunno" => "dunno".to_owned(),
            verb @ ("defer" | "defer_if_permit") => format!("{verb} {}", reply("4.7.1", text)),
            "reject" => format!("reject {}", reply("5.7.1", text)),
            code if code.len() == 3 && code.starts_with('4') => format!("defer {}", reply("4.7.1", text)),
            code if code.len() == 3 && code.starts_with('5') => format!("reject {}", reply("5.7.1", text)),
            _ => {
                self.note(format!("fail_action {written:?}: the mail is deferred"));
                "defer 4.7.1 Rate limit reached, try again in {left}".to_owned()
            }
        }
    }

    /// Windows: `[[number, seconds], ...]`.
    fn rates(&mut self, what: &str, list: &Value) -> Vec<String> {
        let Value::Sequence(list) = list else {
            self.note(format!("{what}: {} is no list of [number, seconds]", shown(list)));
            return Vec::new();
        };
        let mut windows: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in list {
            let pair = entry.as_sequence().map(Vec::as_slice);
            let numbers = match pair {
                Some([number, seconds]) => number.as_u64().zip(seconds.as_u64()),
                _ => None,
            };
            match numbers {
                Some((number, seconds)) if seconds > 0 => {
                    // The lower of two for the same time is what held.
                    windows.entry(seconds).and_modify(|known| *known = number.min(*known)).or_insert(number);
                }
                _ => self.note(format!("{what}: {} is not [number, seconds]", shown(entry))),
            }
        }
        windows.into_iter().map(|(seconds, number)| format!("{number}/{}", period(seconds))).collect()
    }

    /// The limits of single ids; who has one is taken out of the others.
    fn singles(&mut self, ids: &Ids, kinds: &mut [Limit]) -> Vec<Limit> {
        let by_id = match self.take("limits_by_id") {
            Some(Value::Mapping(by_id)) => by_id,
            None => return Vec::new(),
            Some(other) => {
                self.note(format!("limits_by_id: {} is no mapping", shown(&other)));
                return Vec::new();
            }
        };
        let (mut singles, mut left_out) = (Vec::new(), 0u64);
        for (id, list) in by_id {
            let id = shown(&id);
            let rates = self.rates(&format!("limits_by_id {id}"), &list);
            let Some((who, kind)) = whose(&id, ids).and_then(|who| Some((who, kinds.first()?.clone()))) else {
                self.note(format!("limits_by_id {id}: nothing is limited by what this is"));
                continue;
            };
            if !rates.is_empty() && singles.len() >= MOST_IDS {
                left_out += 1;
                continue;
            }
            for limit in kinds.iter_mut() {
                limit.except.extend(who.iter().cloned());
            }
            // An empty list: no limit.
            if !rates.is_empty() {
                let key = if id.parse::<IpAddr>().is_ok() { "client_address".to_owned() } else { kind.key.clone() };
                let name = format!("id-{}", singles.len() + 1);
                singles.push(Limit { name, key, rates, only: who, except: Vec::new(), ..kind });
            }
        }
        if left_out > 0 {
            self.note(format!(
                "limits_by_id: {left_out} more ids than the first {MOST_IDS}; octroi limit set gives each its own in the store"
            ));
        }
        singles
    }

    /// What has another place here or none.
    fn told_elsewhere(&mut self) {
        match self.take("success_action").as_ref().map(shown).map(|action| action.to_ascii_lowercase()) {
            None => {}
            Some(action) if action == "dunno" => {}
            Some(action) => self.note(format!("success_action {action:?}: what is within its limits goes on (DUNNO)")),
        }
        if let Some(action) = self.take("db_error_action").as_ref().map(shown) {
            self.note(format!(
                "db_error_action {action:?}: policyd.on_store_error holds for everything; \"local\", its default, goes on by memory"
            ));
        }
        if self.take("sql_limits_by_id").is_some_and(|query| !shown(&query).is_empty()) {
            self.note("sql_limits_by_id: octroi limit set gives an id its own limit in the store");
        }
        if let Some(socket) = self.take("SOCKET") {
            self.note(format!("SOCKET {}: policyd.listen says where we are asked", shown(&socket)));
        }
        let report = self.flag("report", false);
        let named: Vec<&str> = OF_ITS_REPORT.into_iter().filter(|key| self.take(key).is_some()).collect();
        if report {
            self.note(format!(
                "report, {}: warn_at and block_at of a limit with [notify] tell at once, by mail or webhook",
                named.join(", ")
            ));
        }
        let database: Vec<&str> = OF_ITS_DATABASE.into_iter().filter(|key| self.take(key).is_some()).collect();
        if !database.is_empty() {
            self.note(format!("{}: what it has counted; [store] is ours", database.join(", ")));
        }
        let process: Vec<&str> = OF_ITS_PROCESS.into_iter().filter(|key| self.take(key).is_some()).collect();
        if !process.is_empty() {
            self.note(format!("{}: of its process", process.join(", ")));
        }
        for (key, value) in std::mem::take(&mut self.old) {
            self.note(format!("{}: {} is not known", shown(&key), shown(&value)));
        }
    }
}

/// The limits for everybody: one, where the first id that there is counts; a second one where addresses count in some networks only.
fn kinds(ids: &Ids, whole: &Limit) -> Vec<Limit> {
    let mut terms = Vec::new();
    terms.extend(ids.sasl.then_some("sasl_username"));
    terms.extend(ids.sender.then_some("sender"));
    let mut limits = Vec::new();
    if ids.everywhere() {
        terms.push("client_address");
    }
    if !terms.is_empty() {
        limits.push(Limit { name: "account".to_owned(), key: terms.join("|"), ..whole.clone() });
    }
    if !ids.networks.is_empty() && !ids.everywhere() && !ids.sender {
        let except = if ids.sasl { vec!["authenticated".to_owned()] } else { Vec::new() };
        let (name, key) = ("client".to_owned(), "client_address".to_owned());
        limits.push(Limit { name, key, only: ids.networks.clone(), except, ..whole.clone() });
    }
    limits
}

/// Whom an id means, as `only` and `except` name it; none when nothing is limited by it.
fn whose(id: &str, ids: &Ids) -> Option<Vec<String>> {
    if let Ok(address) = id.parse::<IpAddr>() {
        return (!ids.networks.is_empty()).then(|| vec![address.to_string()]);
    }
    let mut who = Vec::new();
    if ids.sasl {
        who.push(format!("sasl_username={id}"));
    }
    if ids.sender && id.contains('@') {
        who.push(format!("sender={id}"));
    }
    (!who.is_empty() && !id.is_empty()).then_some(who)
}

/// A network without bits beyond its prefix.
fn network(value: &Value) -> String {
    let text = shown(value);
    text.parse::<ipnet::IpNet>().map_or(text, |network| network.trunc().to_string())
}

/// Seconds in the largest unit that fits.
fn period(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let fits = units.into_iter().find(|(length, _)| seconds.is_multiple_of(*length));
    fits.map_or_else(|| format!("{seconds}s"), |(length, unit)| format!("{}{unit}", seconds / length))
}

/// A value in a few words.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null => String::new(),
        Value::Sequence(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Tagged(tagged) => shown(&tagged.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What policyd would have of it.
    fn read(text: &str) -> (Settings, Converted) {
        let converted = converted(text).unwrap();
        let source =
            Source::from_text("f", &converted.text).unwrap_or_else(|told| panic!("{told}\n{}", converted.text));
        let settings = Settings::read(&source).unwrap_or_else(|told| panic!("{told}\n{}", converted.text));
        assert_eq!(settings.limit.len(), converted.limits);
        (settings, converted)
    }

    #[test]
    fn its_defaults_become_one_limit() {
        let (settings, converted) = read("");
        let limit = &settings.limit[0];
        assert_eq!((converted.limits, converted.notes), (1, 0), "{}", converted.text);
        assert_eq!((limit.name.as_str(), limit.key.as_slice()), ("account", &["sasl_username".to_owned()][..]));
        assert_eq!(limit.rate, ["10/1m", "150/1d"]);
        assert_eq!(limit.action, "defer_if_permit 4.7.1 Rate limit reach, retry later");
    }

    const FULL: &str = r#"
debug: False
user: "limiter"
pgsql_config: { database: "counts", password: "secret-of-theirs" }
backend: 2
SOCKET: ["127.0.0.1", 8552]
socket_permission: 0666
count_mode: 1
limits:
    - [20, 90]
    - [500, 3600]
    - [400, 3600]
    - [0.5, x]
limits_by_id:
    free@example.org: []
    "newsletter": [[5000, 86400], [100, 60]]
    192.0.2.9:
        - [1000, 604800]
    2001:db8::9: []
limit_by_ip: True
limited_networks: ["192.0.2.1/24", "2001:db8::/32"]
success_action: "dunno"
fail_action: "reject 5.7.1 {Too} much"
db_error_action: "dunno"
report: True
report_to: [a@example.org]
surprise: 5
"#;

    #[test]
    fn ids_networks_and_windows_are_carried_over() {
        let (settings, converted) = read(FULL);
        let [account, client, newsletter, address] = settings.limit.as_slice() else { panic!("{}", converted.text) };
        assert_eq!(account.key, ["sasl_username"]);
        assert_eq!(account.rate, ["20/90s", "400/1h"]);
        assert_eq!(account.except[..2], ["sasl_username=free@example.org", "sasl_username=newsletter"]);
        assert_eq!(account.action, "reject 5.7.1 (Too) much");
        assert_eq!(account.stage, Some(policyd::limits::unit::Stage::Data));
        assert_eq!(
            (client.key.as_slice(), client.only.as_slice()),
            (&["client_address".to_owned()][..], &["192.0.2.0/24".to_owned(), "2001:db8::/32".to_owned()][..])
        );
        assert!(client.except.contains(&"authenticated".to_owned()) && client.except.contains(&"192.0.2.9".to_owned()));
        assert_eq!(
            (newsletter.only.as_slice(), newsletter.rate.len()),
            (&["sasl_username=newsletter".to_owned()][..], 2)
        );
        assert_eq!((address.key[0].as_str(), address.rate[0].as_str()), ("client_address", "1000/7d"));
        for told in
            ["[0.5, x] is not", "db_error_action", "SOCKET [127.0.0.1, 8552]", "report, report_to:", "surprise: 5"]
        {
            assert!(converted.text.contains(told), "{told} missing in\n{}", converted.text);
        }
        assert!(converted.text.contains("debug, user, socket_permission: of its process"), "{}", converted.text);
        assert!(!converted.text.contains("secret-of-theirs"), "passwords are not printed");
    }

    #[test]
    fn one_key_where_every_address_counts() {
        let (settings, _) =
            read("limit_by_sender: true\nlimit_by_ip: true\nlimited_networks: ['0.0.0.0/0', '::/0']\ncount_mode: 2\n");
        assert_eq!(settings.limit[0].key, ["sasl_username|sender|client_address"]);
        assert_eq!((settings.limit.len(), settings.limit[0].unit.word()), (1, "messages"));
        let (settings, converted) = read("limit_by_sasl: false\n");
        assert!(settings.limit.is_empty() && converted.text.contains("neither logins"), "{}", converted.text);
    }

    #[test]
    fn what_is_something_else_is_refused() {
        assert!(converted("- a\n- b\n").is_err_and(|told| told.contains("no mapping")));
        assert!(converted("limits: [1\n").is_err_and(|told| told.contains("no YAML")));
        let (_, wrong) = read("limits: [[0, 60]]\n");
        assert_eq!((wrong.limits, wrong.notes), (0, 1), "{}", wrong.text);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(limits|limits_by_id|limit_by_ip|fail_action|[:\\[\\]{}&*!| ,\n\"'-]|[0-9a-z]|\\PC){0,80}") {
            let _ = converted(&text).map(|converted| converted.text.len());
        }
    }
}
