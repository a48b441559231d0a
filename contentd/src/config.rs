// SPDX-License-Identifier: GPL-3.0-or-later
//! The configuration of contentd: its own section `[contentd]`, and `Settings`, everything that the daemon reads.
//!
//! Reading finds all mistakes at once; combinations that cannot work are mistakes too. What is not here has no switch.

use std::net::IpAddr;
use std::path::PathBuf;

use common::address::Address;
use common::config::{Mistakes, Source};
use common::dns::DnsSettings;
use common::handover::HandoverSettings;
use common::mail::hostname;
use common::net::SocketOptions;
use common::record::LogSettings;
use common::store::StoreSettings;
use common::units::{Period, Size};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::active::ActiveSettings;
use crate::ambiguity::AmbiguitySettings;
use crate::checks::CheckSettings;
use crate::ledger::LedgerSettings;
use crate::message::edit::HeaderSettings;
use crate::message::settings::MimeSettings;
use crate::poison::PoisonSettings;
use crate::quarantine::QuarantineSettings;
use crate::reinject::Target;
use crate::reinject::idle::Idle;
use crate::scan::AntivirusSettings;
use crate::scan::banned::BannedSettings;
use crate::smtp::protocol;
use crate::spam::settings::SpamSettings;
use crate::spamd::settings::SpamdSettings;
use crate::spool::Place;
use crate::unpack::settings::UnpackSettings;
use crate::verdict::{DestinySettings, Policy};

/// How long before Postfix's own limit we stop waiting for the next hop, so that our answer still arrives.
pub const ANSWER_MARGIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Everything that contentd reads from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `[store]`
    pub store: StoreSettings,
    /// `[dns]`
    pub dns: DnsSettings,
    /// `[log]`
    pub log: LogSettings,
    /// `[contentd]`
    pub contentd: ContentdSettings,
    /// `[antivirus]` and `[antivirus.NAME]`
    pub antivirus: AntivirusSettings,
    /// `[banned]`
    pub banned: BannedSettings,
    /// `[headers]`
    pub headers: HeaderSettings,
    /// `[destiny]`
    pub destiny: DestinySettings,
    /// `[handover]`
    pub handover: HandoverSettings,
    /// `[unpack]`
    pub unpack: UnpackSettings,
    /// `[mime]`
    pub mime: MimeSettings,
    /// `[ambiguity]`
    pub ambiguity: AmbiguitySettings,
    /// `[active]`
    pub active: ActiveSettings,
    /// `[quarantine]`
    pub quarantine: QuarantineSettings,
    /// `[ledger]`
    pub ledger: LedgerSettings,
    /// `[poison]`
    pub poison: PoisonSettings,
    /// `[checks]`
    pub checks: CheckSettings,
    /// `[spam]`
    pub spam: SpamSettings,
    /// `[spamd]`
    pub spamd: SpamdSettings,
}

impl Settings {
    /// Reads all sections. Errors: every mistake in any of them.
    pub fn read(source: &Source) -> Result<Settings, Mistakes> {
        let mut mistakes = Mistakes::new();
        let settings = Settings {
            store: StoreSettings::read(source, &mut mistakes),
            dns: DnsSettings::read(source, &mut mistakes),
            log: source.section("log", &mut mistakes),
            contentd: source.section("contentd", &mut mistakes),
            antivirus: source.section("antivirus", &mut mistakes),
            banned: BannedSettings::read(source, &mut mistakes),
            headers: source.section("headers", &mut mistakes),
            destiny: source.section("destiny", &mut mistakes),
            handover: HandoverSettings::read(source, &mut mistakes),
            unpack: source.section("unpack", &mut mistakes),
            mime: source.section("mime", &mut mistakes),
            ambiguity: source.section("ambiguity", &mut mistakes),
            active: source.section("active", &mut mistakes),
            quarantine: source.section("quarantine", &mut mistakes),
            ledger: source.section("ledger", &mut mistakes),
            poison: source.section("poison", &mut mistakes),
            checks: source.section("checks", &mut mistakes),
            spam: source.section("spam", &mut mistakes),
            spamd: source.section("spamd", &mut mistakes),
        };
        // A section with a mistake was replaced by its defaults; looking at combinations then would only confuse.
        if mistakes.is_empty() {
            settings.check(source, &mut mistakes);
        }
        mistakes.into_result(settings)
    }

    /// What the verdict depends on.
    pub fn policy(&self) -> Policy {
        Policy {
            destiny: self.destiny.clone(),
            on_failure: self.antivirus.on_failure,
            on_failure_of: self
                .antivirus
                .engines
                .keys()
                .map(|name| (name.clone(), self.antivirus.on_failure(name)))
                .collect(),
            ambiguity: self.ambiguity.clone(),
            kill_level: self.spam.kill_level,
            max_size: self.contentd.max_size.0,
        }
    }

    fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        if let Err(message) = self.log.check() {
            mistakes.push(source.mistake("log.level", message));
        }
        self.contentd.check(source, mistakes);
        let taken = [self.contentd.listen.as_slice(), std::slice::from_ref(&self.contentd.reinject)].concat();
        self.spamd.check(&taken, source, mistakes);
        if !self.spamd.listen.is_empty() && self.spam.rules.is_empty() {
            mistakes.push(source.mistake("spamd.listen", "needs spam.rules: without rules there is no answer to give"));
        }
        if self.contentd.listen.contains(&self.handover.hold) || self.handover.hold == self.contentd.reinject {
            let message = "must be an address of its own: the smtpd there puts all it gets into the hold queue";
            mistakes.push(source.mistake("handover.hold", message));
        }
        let sections = [
            ("antivirus", self.antivirus.mistakes()),
            ("banned", owned(self.banned.mistakes())),
            ("headers", owned(self.headers.mistakes())),
            ("unpack", owned(self.unpack.mistakes())),
            ("mime", owned(self.mime.mistakes())),
            ("quarantine", owned(self.quarantine.mistakes())),
            ("ledger", owned(self.ledger.mistakes())),
            ("spam", owned(self.spam.mistakes())),
        ];
        for (section, wrong) in sections {
            for (key, message) in wrong {
                mistakes.push(source.mistake(&format!("{section}.{key}"), message));
            }
        }
    }
}

fn owned(mistakes: Vec<(&'static str, String)>) -> Vec<(String, String)> {
    mistakes.into_iter().map(|(key, message)| (key.to_owned(), message)).collect()
}

/// What becomes of a bare CR or LF inside a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BareNewline {
    /// A bare LF becomes CR LF, a bare CR a blank.
    Normalize,
    /// The message is refused with 550 5.5.2.
    Reject,
}

/// Section `[contentd]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContentdSettings {
    /// Where Postfix's `smtpd_proxy_filter` connects.
    pub listen: Vec<Address>,
    /// Permission bits of UNIX sockets, octal; empty: what the umask gives.
    pub socket_mode: String,
    /// Group of UNIX sockets; empty: that of the process.
    pub socket_group: String,
    /// Address of /health, /ready and /metrics; empty: none.
    pub http: String,
    /// The smtpd behind the filter.
    pub reinject: Address,
    /// Limit for connecting to it and for each of its replies before the message.
    pub reinject_timeout: Period,
    /// How long a connection to it waits for another message; 0: each message has one of its own.
    pub reinject_idle: Period,
    /// Networks whose clients may speak to us. UNIX sockets are always allowed.
    pub allow: Vec<String>,
    /// Our name in banner and EHLO; empty: the name of the host.
    pub hostname: String,
    /// Most sessions at once.
    pub max_sessions: usize,
    /// Most messages at once, from MAIL to the answer.
    pub max_messages: usize,
    /// While we use more memory than this no message may begin; 0: no limit.
    pub max_memory: Size,
    /// Most recipients of one message.
    pub max_recipients: usize,
    /// Largest message.
    pub max_size: Size,
    /// Directory of spool files; empty: `$RUNTIME_DIRECTORY`, else the system's directory for temporary files.
    pub spool_dir: String,
    /// A message is kept in memory up to this size.
    pub spool_memory: Size,
    /// All messages together may take this much.
    pub spool_total: Size,
    /// What becomes of bare CR and LF.
    pub bare_newline: BareNewline,
    /// From the client's final dot to ours.
    pub deadline: Period,
    /// Postfix's `smtpd_proxy_timeout`.
    pub proxy_timeout: Period,
    /// Longest wait for a command while no message has begun.
    pub idle_timeout: Period,
    /// Longest wait for a command between MAIL and DATA.
    pub command_timeout: Period,
    /// Longest wait for the next bytes of a message.
    pub data_timeout: Period,
    /// Longest time for all of a message to come.
    pub data_limit: Period,
    /// Longest wait for the client to take a reply.
    pub reply_timeout: Period,
    /// How long messages in progress may go on after SIGTERM. Shorter than `proxy_timeout`, it can cut off the
    /// answer to a message that the next hop has taken, and the client sends it again.
    pub drain: Period,
}

impl Default for ContentdSettings {
    fn default() -> ContentdSettings {
        ContentdSettings {
            listen: vec![Address::tcp("127.0.0.1", 10024)],
            socket_mode: "0660".into(),
            socket_group: String::new(),
            http: "127.0.0.1:9124".into(),
            reinject: Address::tcp("127.0.0.1", 10025),
            reinject_timeout: Period::seconds(30),
            reinject_idle: Period::seconds(5),
            allow: vec!["127.0.0.1".into(), "::1".into()],
            hostname: String::new(),
            max_sessions: 100,
            max_messages: 100,
            max_memory: Size(1_000_000_000),
            max_recipients: 1100,
            max_size: Size(100_000_000),
            spool_dir: String::new(),
            spool_memory: Size(1_000_000),
            spool_total: Size(2_000_000_000),
            bare_newline: BareNewline::Normalize,
            deadline: Period::seconds(90),
            proxy_timeout: Period::seconds(100),
            idle_timeout: Period::seconds(300),
            command_timeout: Period::seconds(300),
            data_timeout: Period::seconds(300),
            data_limit: Period::seconds(3600),
            reply_timeout: Period::seconds(60),
            drain: Period::seconds(100),
        }
    }
}

impl ContentdSettings {
    /// The networks of `allow`; an address alone is a network of one.
    pub fn networks(&self) -> Vec<IpNet> {
        self.allow.iter().filter_map(|text| network(text)).collect()
    }

    /// Our name in the dialogue.
    pub fn own_name(&self) -> String {
        if self.hostname.is_empty() { hostname() } else { self.hostname.clone() }
    }

    /// Mode and group of UNIX sockets.
    pub fn socket_options(&self) -> SocketOptions {
        SocketOptions {
            mode: u32::from_str_radix(&self.socket_mode, 8).ok(),
            group: (!self.socket_group.is_empty()).then(|| self.socket_group.clone()),
        }
    }

    /// Where and how messages are kept.
    pub fn place(&self) -> Place {
        let dir = match (self.spool_dir.as_str(), std::env::var_os("RUNTIME_DIRECTORY")) {
            ("", Some(runtime)) => PathBuf::from(runtime),
            ("", None) => std::env::temp_dir(),
            (dir, _) => PathBuf::from(dir),
        };
        Place { dir, memory: usize::try_from(self.spool_memory.0).unwrap_or(usize::MAX) }
    }

    /// The next hop.
    pub fn target(&self) -> Target {
        Target {
            address: self.reinject.clone(),
            hostname: self.own_name(),
            timeout: self.reinject_timeout.0,
            idle: Idle::new(self.reinject_idle.0),
        }
    }

    /// The smtpd that puts what it gets into the hold queue.
    pub fn target_on_hold(&self, hold: &Address) -> Target {
        // What waits is connected to one next hop.
        Target { address: hold.clone(), idle: Idle::new(self.reinject_idle.0), ..self.target() }
    }

    /// The limits of the dialogue.
    pub fn dialogue(&self) -> protocol::Limits {
        protocol::Limits { hostname: self.own_name(), max_size: self.max_size.0, max_recipients: self.max_recipients }
    }

    /// Looks for values and combinations that cannot work.
    fn check(&self, source: &Source, mistakes: &mut Mistakes) {
        let mut wrong = |key: &str, found: bool, message: &str| {
            if found {
                mistakes.push(source.mistake(&format!("contentd.{key}"), message));
            }
        };
        wrong("listen", self.listen.is_empty(), "needs at least one address");
        let open = self.listen.iter().any(|address| !address.is_loopback());
        let explicit = source.has_section("contentd.allow");
        wrong("listen", open && !explicit, "an address that is not loopback needs an explicit contentd.allow");
        for text in &self.allow {
            wrong("allow", network(text).is_none(), &format!("{text:?} is not an IP address or network"));
        }
        wrong(
            "listen",
            self.listen.contains(&self.reinject),
            "is the address of contentd.reinject: mail would go round in circles",
        );
        let no_dir = !self.spool_dir.is_empty() && !std::path::Path::new(&self.spool_dir).is_dir();
        wrong("spool_dir", no_dir, "is not a directory");
        let mode =
            self.socket_mode.is_empty() || u32::from_str_radix(&self.socket_mode, 8).is_ok_and(|mode| mode <= 0o777);
        wrong("socket_mode", !mode, "is not an octal mode such as \"0660\"");
        let http = self.http.is_empty() || self.http.parse::<std::net::SocketAddr>().is_ok();
        wrong("http", !http, "is not an IP address with port");
        let name = self.hostname.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte));
        wrong("hostname", !name || self.hostname.len() > 255, "is not a host name");
        wrong("max_sessions", self.max_sessions == 0, "must be at least 1");
        wrong("max_recipients", self.max_recipients == 0, "must be at least 1");
        wrong("max_size", self.max_size.0 == 0, "must not be 0");
        wrong(
            "spool_total",
            self.spool_total < self.max_size,
            "is smaller than contentd.max_size: the largest message would never fit",
        );
        wrong("deadline", self.deadline.0.is_zero(), "must not be 0");
        let late = self.deadline.0 + ANSWER_MARGIN >= self.proxy_timeout.0;
        wrong(
            "deadline",
            late,
            "must be at least 2 s below contentd.proxy_timeout, Postfix's smtpd_proxy_timeout: later, the client has been told to try again",
        );
        wrong("reinject_timeout", self.reinject_timeout >= self.proxy_timeout, "must be below contentd.proxy_timeout");
        wrong("reinject_timeout", self.reinject_timeout.0.is_zero(), "must not be 0");
        wrong("reinject_idle", self.reinject_idle > Period::seconds(100), "must be at most 100s");
        let limits = [
            ("idle_timeout", self.idle_timeout),
            ("command_timeout", self.command_timeout),
            ("data_timeout", self.data_timeout),
            ("data_limit", self.data_limit),
            ("reply_timeout", self.reply_timeout),
        ];
        for (key, limit) in limits {
            wrong(key, limit.0.is_zero(), "must not be 0");
        }
        wrong("max_messages", self.max_messages == 0, "must be at least 1");
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let source = Source::from_text("octroi.toml", text).map_err(|mistakes| mistakes.to_string())?;
        Settings::read(&source).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn the_defaults_are_good() {
        let settings = read("").unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.contentd.networks().len(), 2);
        assert_eq!(settings.contentd.socket_options().mode, Some(0o660));
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        for (lines, told) in [
            ("listen = []", "octroi.toml:2: contentd.listen: needs"),
            ("listen = [\"0.0.0.0:10024\"]", "octroi.toml:2: contentd.listen: an address that is not loopback"),
            ("allow = [\"localhost\"]", "octroi.toml:2: contentd.allow: \"localhost\" is not"),
            ("listen = [\"127.0.0.1:10025\"]", "octroi.toml:2: contentd.listen: is the address of contentd.reinject"),
            ("socket_mode = \"0999\"", "octroi.toml:2: contentd.socket_mode: "),
            ("http = \"localhost\"", "octroi.toml:2: contentd.http: "),
            ("hostname = \"a b\"", "octroi.toml:2: contentd.hostname: "),
            ("max_size = \"0B\"", "octroi.toml:2: contentd.max_size: "),
            ("max_size = 5", "octroi.toml:2: contentd.max_size: "),
            ("spool_total = \"1MB\"", "octroi.toml:2: contentd.spool_total: "),
            ("deadline = \"98s\"", "octroi.toml:2: contentd.deadline: must be at least"),
            ("proxy_timeout = \"80s\"", "octroi.toml:1: contentd.deadline: must be at least"),
            ("reinject_timeout = \"100s\"", "octroi.toml:2: contentd.reinject_timeout: "),
            ("bare_newline = \"keep\"", "octroi.toml:2: contentd.bare_newline: "),
            ("spool_dir = \"/dev/null/spool\"", "octroi.toml:2: contentd.spool_dir: "),
            ("max_sessions = 0", "octroi.toml:2: contentd.max_sessions: "),
            ("max_messages = 0", "octroi.toml:2: contentd.max_messages: "),
            ("reply_timeout = \"0s\"", "octroi.toml:2: contentd.reply_timeout: "),
            ("colour = 1", "octroi.toml:2: contentd.colour: "),
            ("max_size = \"1MB\"\n[log]\nlevel = \"loud\"", "octroi.toml:4: log.level: "),
            ("[banned]\nnames = [\"(\"]", "octroi.toml:3: banned.names: "),
            ("[mime]\nmax_parts = 0", "octroi.toml:3: mime.max_parts: "),
            ("[ambiguity]\nnames_differ = \"maybe\"", "octroi.toml:3: ambiguity.names_differ: \"maybe\" is not"),
            ("[active]\ndde = \"reject\"", "octroi.toml:3: active.dde: \"reject\" is not"),
            ("[quarantine]\ndirectory = \"x\"", "octroi.toml:3: quarantine.directory: "),
            ("[quarantine]\nkeep = \"0s\"", "octroi.toml:3: quarantine.keep: "),
            ("[ledger]\nkeep = \"0s\"", "octroi.toml:3: ledger.keep: "),
            ("[poison]\naction = \"pass\"", "octroi.toml:3: poison.action: "),
            ("[spam]\nrules = [\"/no/such/folder\"]", "octroi.toml:3: spam.rules: /no/such/folder: No such file"),
            ("[destiny]\nvirus = \"bounce\"", "octroi.toml:3: destiny.virus: "),
        ] {
            let mistakes = read(&format!("[contentd]\n{lines}\n")).unwrap_err();
            assert!(mistakes.starts_with(told), "{lines}: {mistakes}");
        }
    }

    #[test]
    fn an_open_address_with_its_networks_is_fine() {
        let settings = read("[contentd]\nlisten = [\"0.0.0.0:10024\"]\nallow = [\"192.0.2.0/24\", \"::1\"]\n").unwrap();
        assert_eq!(settings.contentd.networks().len(), 2);
    }
}
