// SPDX-License-Identifier: GPL-3.0-or-later
//! The options of one engine, `[antivirus.NAME]`, and what each kind of engine makes of them. What is missing is a mistake
//! here, and so is an option of another kind.

use std::path::{Path, PathBuf};

use common::address::Address;
use common::units::{Period, Size};
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::line::{FPROT, SOPHIE, Words};
use crate::verdict::OnFailure;

/// The protocol that an engine speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The ClamAV daemon.
    Clamd,
    /// Sophos' savdid, SSSP/1.0.
    Sssp,
    /// A daemon that gets the path of a file and answers with a line: Sophie, Trophie, fpscand.
    Line,
    /// An ICAP server (RFC 3507).
    Icap,
    /// A program.
    Command,
}

/// Whether an engine is always asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Asked for every message.
    Primary,
    /// Asked only when no primary engine has answered.
    Backup,
}

/// How clamd gets its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// By descriptor over a UNIX socket as long as clamd can read what it is given, else as a stream.
    Auto,
    /// As a stream (INSTREAM).
    Stream,
}

/// Known daemons of the kind `line`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Sophie (Sophos).
    Sophie,
    /// Trophie (Trend Micro).
    Trophie,
    /// F-Prot's fpscand.
    Fprot,
}

/// What an ICAP server is made to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// An answer that comes from a web server.
    Respmod,
    /// Something that is sent to one.
    Reqmod,
}

/// Section `[antivirus.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section [antivirus.NAME]")]
pub struct EngineSettings {
    /// The protocol; may be left out in `[antivirus.clamd]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Whether it is always asked.
    pub group: Group,
    /// What it means when it gives no answer; when absent, `antivirus.on_failure`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Where it listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Longest wait for a connection.
    pub connect_timeout: Period,
    /// Longest time in which it takes no data.
    pub send_timeout: Period,
    /// Longest wait for an answer once all is sent, and longest run of a program.
    pub scan_timeout: Period,
    /// Most messages at once; more wait. clamd's `MaxThreads` is 10 unless changed.
    pub max_connections: usize,
    /// An unused connection is given up after this time; below clamd's `IdleTimeout` of 30 s.
    pub idle_timeout: Period,
    /// Larger samples are not sent, and the message is unchecked. When absent: for clamd what its clamd.conf allows, or 25 MB
    /// when that cannot be read; 100 MB for all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Size>,
    /// How often a sample is given again over a new connection after one broke.
    pub retries: u32,
    /// After so many failures in a row it is asked no more for a while.
    pub failures: u32,
    /// How long; doubles while it stays away.
    pub pause: Period,
    /// clamd: how it gets its data; `auto` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// clamd: its configuration file, for its limits; `/etc/clamav/clamd.conf` when absent. Believed only when it names the same socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clamd_conf: Option<PathBuf>,
    /// line: request and answers of a known daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// line: what is sent; `{}` stands for the path of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// line: pattern of the answer when nothing was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean: Option<String>,
    /// line: pattern of the answer when something was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infected: Option<String>,
    /// line, command: pattern in the answer or output, with the name of the virus as its first group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virus_name: Option<String>,
    /// icap: the service, the path in its URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// icap: RESPMOD when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// command: program and arguments; `{}` stands for the folder with the files. No shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// command: exit codes when nothing was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_codes: Option<Vec<i32>>,
    /// command: exit codes when something was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infected_codes: Option<Vec<i32>>,
    /// command: exit codes when not everything could be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unchecked_codes: Option<Vec<i32>>,
    /// command: memory that the program may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<Size>,
}

impl Default for EngineSettings {
    fn default() -> EngineSettings {
        EngineSettings {
            kind: None,
            group: Group::Primary,
            on_failure: None,
            address: None,
            connect_timeout: Period::seconds(5),
            send_timeout: Period::seconds(30),
            scan_timeout: Period::seconds(60),
            max_connections: 10,
            idle_timeout: Period::seconds(20),
            max_size: None,
            retries: 1,
            failures: 3,
            pause: Period::seconds(10),
            transfer: None,
            clamd_conf: None,
            preset: None,
            request: None,
            clean: None,
            infected: None,
            virus_name: None,
            service: None,
            method: None,
            command: None,
            clean_codes: None,
            infected_codes: None,
            unchecked_codes: None,
            max_memory: None,
        }
    }
}

impl EngineSettings {
    /// Options that have no default, or one that depends on the kind.
    pub const OPTIONAL: [&'static str; 18] = [
        "kind",
        "on_failure",
        "address",
        "max_size",
        "transfer",
        "clamd_conf",
        "preset",
        "request",
        "clean",
        "infected",
        "virus_name",
        "service",
        "method",
        "command",
        "clean_codes",
        "infected_codes",
        "unchecked_codes",
        "max_memory",
    ];

    /// The protocol; that of an engine named clamd is known.
    pub fn kind_of(&self, name: &str) -> Option<Kind> {
        self.kind.or_else(|| (name == "clamd").then_some(Kind::Clamd))
    }

    /// Where clamd listens.
    pub(super) fn clamd_address(&self) -> Address {
        self.address.clone().unwrap_or_else(|| Address::Unix("/run/clamav/clamd.ctl".into()))
    }

    /// clamd's configuration file.
    pub(super) fn clamd_conf_path(&self) -> &Path {
        self.clamd_conf.as_deref().unwrap_or(Path::new("/etc/clamav/clamd.conf"))
    }

    /// The largest sample for an engine that does not tell its own limits.
    pub(super) fn size_limit(&self) -> Size {
        self.max_size.unwrap_or(Size(100_000_000))
    }

    /// Which patterns and which request a daemon of the kind `line` goes by: those of the preset, unless given.
    pub(super) fn words(&self) -> Words<&str> {
        let preset = match self.preset {
            Some(Preset::Sophie | Preset::Trophie) => SOPHIE,
            Some(Preset::Fprot) => FPROT,
            None => Words::default(),
        };
        Words {
            request: self.request.as_deref().unwrap_or(preset.request),
            clean: self.clean.as_deref().unwrap_or(preset.clean),
            infected: self.infected.as_deref().unwrap_or(preset.infected),
            virus_name: self.virus_name.as_deref().unwrap_or(preset.virus_name),
        }
    }

    /// What is wrong with the section of the engine with this name: the key within it and a message.
    pub fn mistakes(&self, name: &str) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let mut add = |key, found: bool, message: &str| {
            if found {
                wrong.push((key, message.to_owned()));
            }
        };
        let periods = [
            ("connect_timeout", self.connect_timeout),
            ("send_timeout", self.send_timeout),
            ("scan_timeout", self.scan_timeout),
            ("pause", self.pause),
        ];
        for (key, period) in periods {
            add(key, period.0.is_zero(), "must be longer than nothing");
        }
        let connections = 1..=Semaphore::MAX_PERMITS;
        add("max_connections", !connections.contains(&self.max_connections), "must be at least 1");
        add("failures", self.failures == 0, "must be at least 1");
        add("retries", self.retries > 10, "must be at most 10");
        let Some(kind) = self.kind_of(name) else {
            add("kind", true, "is missing: clamd, sssp, line, icap or command");
            return wrong;
        };
        self.foreign(kind, &mut add);
        match kind {
            Kind::Clamd => {}
            Kind::Sssp | Kind::Line | Kind::Icap => add("address", self.address.is_none(), "is missing"),
            Kind::Command => self.check_command(&mut add),
        }
        if kind == Kind::Line {
            self.check_line(&mut add);
        }
        if kind == Kind::Icap {
            let path = |service: &str| service.bytes().all(|byte| byte.is_ascii_graphic()) && !service.is_empty();
            let good = self.service.as_deref().is_some_and(path);
            add("service", !good, "must be the path of the service, such as \"avscan\"");
        }
        check_pattern("virus_name", self.virus_name.as_deref(), true, &mut add);
        wrong
    }

    /// Options of other kinds.
    fn foreign(&self, kind: Kind, add: &mut impl FnMut(&'static str, bool, &str)) {
        use Kind::{Clamd, Command, Icap, Line};
        for (key, given, kinds) in [
            ("address", self.address.is_some(), &[Clamd, Kind::Sssp, Line, Icap][..]),
            ("transfer", self.transfer.is_some(), &[Clamd]),
            ("clamd_conf", self.clamd_conf.is_some(), &[Clamd]),
            ("preset", self.preset.is_some(), &[Line]),
            ("request", self.request.is_some(), &[Line]),
            ("clean", self.clean.is_some(), &[Line]),
            ("infected", self.infected.is_some(), &[Line]),
            ("virus_name", self.virus_name.is_some(), &[Line, Command]),
            ("service", self.service.is_some(), &[Icap]),
            ("method", self.method.is_some(), &[Icap]),
            ("command", self.command.is_some(), &[Command]),
            ("clean_codes", self.clean_codes.is_some(), &[Command]),
            ("infected_codes", self.infected_codes.is_some(), &[Command]),
            ("unchecked_codes", self.unchecked_codes.is_some(), &[Command]),
            ("max_memory", self.max_memory.is_some(), &[Command]),
        ] {
            add(key, given && !kinds.contains(&kind), "is no option of this kind of engine");
        }
    }

    fn check_line(&self, add: &mut impl FnMut(&'static str, bool, &str)) {
        let words = self.words();
        let needs = "is missing: give it, or a preset";
        add("request", words.request.is_empty(), needs);
        add(
            "request",
            !words.request.is_empty() && !words.request.contains("{}"),
            "has no {} for the path of the file",
        );
        add("clean", words.clean.is_empty(), needs);
        add("infected", words.infected.is_empty(), needs);
        check_pattern("clean", self.clean.as_deref(), false, add);
        check_pattern("infected", self.infected.as_deref(), false, add);
    }

    fn check_command(&self, add: &mut impl FnMut(&'static str, bool, &str)) {
        let argv = self.command.as_deref().unwrap_or_default();
        let absolute = argv.first().is_some_and(|program| program.starts_with('/'));
        add("command", !absolute, "must begin with the absolute path of a program");
        let folder = argv.iter().skip(1).any(|argument| argument.contains("{}"));
        add("command", absolute && !folder, "has no argument with {} for the folder of the files");
        add("command", argv.iter().any(|argument| argument.contains('\0')), "must not hold a NUL");
        let lists = [&self.clean_codes, &self.infected_codes, &self.unchecked_codes];
        let mut codes: Vec<i32> = lists.into_iter().flatten().flatten().copied().collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        add("infected_codes", codes.len() < count, "a code stands in two lists");
    }
}

fn check_pattern(
    key: &'static str,
    pattern: Option<&str>,
    group: bool,
    add: &mut impl FnMut(&'static str, bool, &str),
) {
    let Some(pattern) = pattern else { return };
    match Regex::new(pattern) {
        Ok(regex) => add(key, group && regex.captures_len() < 2, "needs a group around the name"),
        Err(error) => add(key, true, error.to_string().lines().last().unwrap_or_default().trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind) -> EngineSettings {
        EngineSettings { kind: Some(kind), ..EngineSettings::default() }
    }

    fn keys(settings: &EngineSettings) -> Vec<&'static str> {
        settings.mistakes("x").into_iter().map(|(key, _)| key).collect()
    }

    fn argv(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn what_an_engine_needs() {
        assert_eq!(EngineSettings::default().mistakes("clamd"), []);
        assert_eq!(keys(&EngineSettings::default()), ["kind"]);
        assert_eq!(keys(&of(Kind::Clamd)), [""; 0]);
        assert_eq!(keys(&of(Kind::Sssp)), ["address"]);
        assert_eq!(keys(&of(Kind::Line)), ["address", "request", "clean", "infected"]);
        assert_eq!(keys(&of(Kind::Icap)), ["address", "service"]);
        assert_eq!(keys(&of(Kind::Command)), ["command"]);
        let address = Some(Address::tcp("127.0.0.1", 1));
        let line = EngineSettings { address: address.clone(), preset: Some(Preset::Fprot), ..of(Kind::Line) };
        assert_eq!(keys(&line), [""; 0]);
        assert_eq!(keys(&EngineSettings { request: Some("x".into()), ..line.clone() }), ["request"]);
        assert_eq!(keys(&EngineSettings { clean: Some("(".into()), ..line.clone() }), ["clean"]);
        assert_eq!(keys(&EngineSettings { virus_name: Some("x".into()), ..line }), ["virus_name"]);
        assert_eq!(keys(&EngineSettings { service: Some("avscan".into()), address, ..of(Kind::Icap) }), [""; 0]);
        let command = EngineSettings { command: argv(&["/usr/bin/clamscan", "-r", "{}"]), ..of(Kind::Command) };
        assert_eq!(keys(&command), [""; 0]);
        assert_eq!(keys(&EngineSettings { command: argv(&["clamscan", "{}"]), ..of(Kind::Command) }), ["command"]);
        assert_eq!(keys(&EngineSettings { command: argv(&["/bin/x"]), ..of(Kind::Command) }), ["command"]);
        let codes = Some(vec![1]);
        let twice = EngineSettings { clean_codes: codes.clone(), infected_codes: codes, ..command };
        assert_eq!(keys(&twice), ["infected_codes"]);
    }

    #[test]
    fn options_of_other_kinds_and_impossible_values() {
        let foreign = EngineSettings { method: Some(Method::Reqmod), preset: Some(Preset::Sophie), ..of(Kind::Clamd) };
        assert_eq!(keys(&foreign), ["preset", "method"]);
        let zero = Period(std::time::Duration::ZERO);
        let wrong =
            EngineSettings { max_connections: 0, scan_timeout: zero, failures: 0, retries: 99, ..of(Kind::Clamd) };
        assert_eq!(keys(&wrong), ["scan_timeout", "max_connections", "failures", "retries"]);
    }
}
