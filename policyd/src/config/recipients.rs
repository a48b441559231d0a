// SPDX-License-Identifier: GPL-3.0-or-later
//! Section `[recipients]`, and the lists `[[directory]]` (who knows recipients) and `[[protected]]` (to whom only insiders may write).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use common::address::Address;
use common::config::{Listed, Mistakes};
use common::units::Period;
use serde::{Deserialize, Serialize};

use crate::recipients::ldap::filter::Filter;
use crate::template::reply_mistake_of;

/// What is answered for a recipient that was never seen, while nobody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnavailable {
    /// The mail goes on.
    Dunno,
    /// The client is told to come again.
    Defer,
}

/// Section `[recipients]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecipientsSettings {
    /// Domains whose recipients are looked up: list files or entries. None: no recipient is.
    pub domains: Vec<String>,
    /// Domains whose mailboxes are those of another.
    pub alias_domains: BTreeMap<String, String>,
    /// Characters between mailbox and extension.
    pub delimiters: String,
    /// Local parts that are never refused.
    pub role_accounts: Vec<String>,
    /// How long a known recipient is remembered.
    pub keep_known: Period,
    /// After how long a known recipient is asked for again, behind the back of the request.
    pub refresh_known: Period,
    /// How long an unknown recipient is remembered.
    pub keep_unknown: Period,
    /// How many recipients of each kind are remembered.
    pub remember: usize,
    /// How long a request waits for directories.
    pub wait: Period,
    /// What is answered for a recipient that was never seen, while nobody can tell.
    pub on_unavailable: OnUnavailable,
    /// Reply text for an unknown recipient: an enhanced status code and words.
    pub text: String,
    /// File for what is known, when the store is not a file of this host; empty for `policyd.recipients` in the state folder.
    pub file: PathBuf,
}

impl Default for RecipientsSettings {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            alias_domains: BTreeMap::new(),
            delimiters: "+".to_owned(),
            role_accounts: ["postmaster", "abuse"].map(str::to_owned).to_vec(),
            keep_known: Period::seconds(7 * 86_400),
            refresh_known: Period::seconds(86_400),
            keep_unknown: Period::seconds(600),
            remember: 200_000,
            wait: Period(Duration::from_millis(800)),
            on_unavailable: OnUnavailable::Dunno,
            text: "5.1.1 There is no such mailbox here".to_owned(),
            file: PathBuf::new(),
        }
    }
}

impl RecipientsSettings {
    fn looks_up(&self) -> bool {
        !self.domains.is_empty()
    }

    /// Where what is known is kept on disk.
    pub fn file_path(&self) -> PathBuf {
        match self.file.as_os_str().is_empty() {
            true => common::store::state_folder().join("policyd.recipients"),
            false => self.file.clone(),
        }
    }

    pub(super) fn check(&self, source: &common::config::Source, all: &super::Settings, mistakes: &mut Mistakes) {
        let budget = all.policyd.budget;
        // What is listed here is checked here; files are read later.
        let (_, entries) = crate::recipients::list::sorted(&self.domains);
        for mistake in common::lookup::AddressTable::from_entries("", entries.into_iter()).1.iter() {
            mistakes.push(source.mistake("recipients.domains", &mistake.message));
        }
        if !self.domains.is_empty() && all.directories.is_empty() && mistakes.is_empty() {
            mistakes.push(source.mistake("recipients.domains", "needs a [[directory]] that knows their recipients"));
        }
        if let (true, Some(directory)) = (self.domains.is_empty(), all.directories.first()) {
            let message = "is asked about no domain: name those we answer for in recipients.domains";
            let (origin, key) = (directory.origin.clone(), "directory".to_owned());
            mistakes.push(common::config::Mistake { origin, key, message: message.to_owned() });
        }
        let mut wrong =
            |key: &str, message: String| mistakes.push(source.mistake(&format!("recipients.{key}"), message));
        if let Some(message) = reply_mistake_of(&self.text, '5') {
            wrong("text", message);
        }
        if self.wait.0.is_zero() || self.wait.0 > Duration::from_secs(1) || self.looks_up() && self.wait.0 >= budget.0 {
            let message =
                format!("{} must be longer than 0s, at most 1s, and shorter than policyd.budget ({budget})", self.wait);
            wrong("wait", message);
        }
        if self.refresh_known.0 < Duration::from_secs(1) || self.refresh_known.0 >= self.keep_known.0 {
            let message =
                format!("{} must be at least 1s and shorter than keep_known ({})", self.refresh_known, self.keep_known);
            wrong("refresh_known", message);
        }
        if self.keep_unknown.0 < Duration::from_secs(1) {
            wrong("keep_unknown", "must be at least 1s".to_owned());
        }
        if !(1000..=5_000_000).contains(&self.remember) {
            wrong("remember", format!("{} is not between 1000 and 5000000", self.remember));
        }
        if let Some(account) = self.role_accounts.iter().find(|account| account.is_empty() || account.contains('@')) {
            wrong("role_accounts", format!("{account:?} is not the local part of an address"));
        }
        if let Some(letter) = self.delimiters.chars().find(|c| c.is_alphanumeric() || *c == '@' || c.is_whitespace()) {
            wrong("delimiters", format!("{letter:?} cannot stand between mailbox and extension"));
        }
        let odd = |name: &String| name.is_empty() || name.contains(['@', '/', ' ']);
        if let Some(name) = self.alias_domains.iter().flat_map(|(alias, real)| [alias, real]).find(|name| odd(name)) {
            wrong("alias_domains", format!("{name:?} is not a domain name"));
        }
    }
}

/// A text that must not be printed.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How far below the base LDAP searches look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LdapScope {
    /// The entry itself.
    Base,
    /// The entries right below.
    One,
    /// All below.
    Sub,
}

/// A directory that is asked in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlSettings {
    /// `postgres://…` or `sqlite:…`.
    pub url: Secret,
    /// A question with the address as `$1`; any row means that it is known.
    pub query: String,
    /// All addresses, in the first column; empty when they are not pulled.
    pub pull_query: String,
}

/// A directory that is asked over LDAP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapSettings {
    /// `ldap://host`, `ldaps://host`, `ldapi://%2fpath`; the first that answers is asked.
    pub servers: Vec<String>,
    /// Whether `ldap:` connections are encrypted by StartTLS.
    pub starttls: bool,
    /// Certificates of the authorities that servers are checked against; none for those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Who we are; empty for nobody.
    pub bind_dn: String,
    /// The password.
    pub password: Secret,
    /// A file that holds it.
    pub password_file: Option<PathBuf>,
    /// Where the search begins.
    pub base: String,
    /// How far it goes.
    pub scope: LdapScope,
    /// What is searched for one address.
    pub filter: String,
    /// What is searched for all.
    pub pull_filter: String,
    /// Attributes with addresses, for all.
    pub attributes: Vec<String>,
}

/// The inner mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallaheadSettings {
    /// The first that answers is asked.
    pub hosts: Vec<Address>,
    /// Our name in EHLO; empty for the name of this host.
    pub helo: String,
    /// How often a server is tried with an address that cannot exist; zero: never.
    pub accept_all_check: Period,
}

/// Where a directory gets its answers from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// List files.
    File(Vec<PathBuf>),
    /// A database.
    Sql(SqlSettings),
    /// An LDAP server.
    Ldap(LdapSettings),
    /// The inner mail server.
    Callahead(CallaheadSettings),
}

/// One `[[directory]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectorySettings {
    /// `file:line`, for mistakes that show later.
    pub origin: String,
    /// Its name, in log and metrics.
    pub name: String,
    /// The domains it knows about; none: all of `recipients.domains`.
    pub domains: Vec<String>,
    /// Time for one question.
    pub timeout: Period,
    /// Questions at once.
    pub max_connections: usize,
    /// How often a full copy is taken; zero: never.
    pub pull: Period,
    /// A copy that is smaller by more than so many percent is not taken.
    pub max_shrink: u8,
    /// Who is asked.
    pub source: Source,
}

impl DirectorySettings {
    /// True when nothing but its place in the file differs.
    pub fn like(&self, other: &Self) -> bool {
        let placeless = |settings: &Self| Self { origin: String::new(), ..settings.clone() };
        placeless(self) == placeless(other)
    }
}

/// The kinds of directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// List files.
    File,
    /// A database.
    Sql,
    /// An LDAP server.
    Ldap,
    /// The inner mail server.
    Callahead,
}

impl Kind {
    const ALL: [Self; 4] = [Self::File, Self::Sql, Self::Ldap, Self::Callahead];

    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Sql => "sql",
            Self::Ldap => "ldap",
            Self::Callahead => "callahead",
        }
    }

    /// The options that only this kind has.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::File => &["files"],
            Self::Sql => &["url", "url_file", "query", "pull_query"],
            Self::Ldap => &[
                "servers",
                "starttls",
                "ca_file",
                "bind_dn",
                "password",
                "password_file",
                "base",
                "scope",
                "filter",
                "pull_filter",
                "attributes",
            ],
            Self::Callahead => &["hosts", "helo", "accept_all_check"],
        }
    }
}

/// `[[directory]]` as written; which options belong to its type is checked afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryTable {
    name: String,
    /// Optional, so that a wrong one is told once and not as missing too.
    #[serde(rename = "type")]
    kind: Option<Kind>,
    domains: Option<Vec<String>>,
    timeout: Option<Period>,
    max_connections: Option<usize>,
    pull: Option<Period>,
    max_shrink: Option<u8>,
    files: Option<Vec<PathBuf>>,
    url: Option<Secret>,
    url_file: Option<PathBuf>,
    query: Option<String>,
    pull_query: Option<String>,
    servers: Option<Vec<String>>,
    starttls: Option<bool>,
    ca_file: Option<PathBuf>,
    bind_dn: Option<String>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    base: Option<String>,
    scope: Option<LdapScope>,
    filter: Option<String>,
    pull_filter: Option<String>,
    attributes: Option<Vec<String>>,
    hosts: Option<Vec<Address>>,
    helo: Option<String>,
    accept_all_check: Option<Period>,
}

impl DirectoryTable {
    /// The names of all options, whatever the type.
    pub fn options() -> Vec<String> {
        let every = ["name", "type", "domains", "timeout", "max_connections", "pull", "max_shrink"];
        every.iter().chain(Kind::ALL.iter().flat_map(|kind| kind.options())).map(|name| (*name).to_owned()).collect()
    }

    /// The options of one kind that are given.
    fn given(&self, kind: Kind) -> Vec<&'static str> {
        let given: &[bool] = match kind {
            Kind::File => &[self.files.is_some()],
            Kind::Sql => {
                &[self.url.is_some(), self.url_file.is_some(), self.query.is_some(), self.pull_query.is_some()]
            }
            Kind::Ldap => &[
                self.servers.is_some(),
                self.starttls.is_some(),
                self.ca_file.is_some(),
                self.bind_dn.is_some(),
                self.password.is_some(),
                self.password_file.is_some(),
                self.base.is_some(),
                self.scope.is_some(),
                self.filter.is_some(),
                self.pull_filter.is_some(),
                self.attributes.is_some(),
            ],
            Kind::Callahead => &[self.hosts.is_some(), self.helo.is_some(), self.accept_all_check.is_some()],
        };
        kind.options().iter().zip(given).filter_map(|(option, given)| given.then_some(*option)).collect()
    }
}

/// Takes all `[[directory]]` and says what is wrong with them.
pub(super) fn directories(listed: Vec<Listed<DirectoryTable>>, mistakes: &mut Mistakes) -> Vec<DirectorySettings> {
    let mut names = BTreeSet::new();
    let mut directories = Vec::new();
    for table in &listed {
        let name = &table.value.name;
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 40 || !name.chars().all(good) {
            mistakes.push(table.mistake("name", "must be of a-z, 0-9, - and _, at most 40"));
        }
        if !names.insert(name.as_str()) {
            mistakes.push(table.mistake("name", format!("there is another directory named {name:?}")));
        }
        directories.extend(directory(table, mistakes));
    }
    directories
}

fn directory(table: &Listed<DirectoryTable>, mistakes: &mut Mistakes) -> Option<DirectorySettings> {
    let (value, before) = (&table.value, mistakes.iter().count());
    let Some(kind) = value.kind else {
        mistakes.push(table.mistake("type", "is missing: file, sql, ldap or callahead"));
        return None;
    };
    let mut wrong = |key: &str, message: String| mistakes.push(table.mistake(key, message));
    for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
        for option in value.given(other) {
            let message = format!("is an option of type = {:?}, this one is of type {:?}", other.word(), kind.word());
            wrong(option, message);
        }
    }
    let timeout = value.timeout.unwrap_or(Period(Duration::from_millis(500)));
    if timeout.0.is_zero() || timeout.0 > Duration::from_secs(10) {
        wrong("timeout", format!("{timeout} must be longer than 0s and at most 10s"));
    }
    let max_connections = value.max_connections.unwrap_or(4);
    if !(1..=64).contains(&max_connections) {
        wrong("max_connections", format!("{max_connections} is not between 1 and 64"));
    }
    let max_shrink = value.max_shrink.unwrap_or(20);
    if max_shrink > 100 {
        wrong("max_shrink", format!("{max_shrink} is not a percentage"));
    }
    let pull = value.pull.unwrap_or(Period::seconds(0));
    if !pull.0.is_zero() && pull.0 < Duration::from_secs(1) {
        wrong("pull", "must be at least 1s, or 0s for never".to_owned());
    }
    if !pull.0.is_zero() && matches!(kind, Kind::File | Kind::Callahead) {
        wrong("pull", format!("type = {:?} gives no full copy; sql and ldap do", kind.word()));
    }
    let source = match kind {
        Kind::File => file(value, &mut wrong),
        Kind::Sql => sql(value, !pull.0.is_zero(), &mut wrong),
        Kind::Ldap => ldap(value, &mut wrong),
        Kind::Callahead => callahead(value, &mut wrong),
    };
    let settings = DirectorySettings {
        origin: table.origin(),
        name: value.name.clone(),
        domains: value.domains.clone().unwrap_or_default(),
        timeout,
        max_connections,
        pull,
        max_shrink,
        source,
    };
    (mistakes.iter().count() == before).then_some(settings)
}

fn file(table: &DirectoryTable, wrong: &mut impl FnMut(&str, String)) -> Source {
    let files = table.files.clone().unwrap_or_default();
    if files.is_empty() {
        wrong("files", "needs at least one list file".to_owned());
    }
    Source::File(files)
}

fn sql(table: &DirectoryTable, pulled: bool, wrong: &mut impl FnMut(&str, String)) -> Source {
    let url = match (&table.url, &table.url_file) {
        (Some(url), None) => url.clone(),
        (None, Some(path)) => match std::fs::read_to_string(path) {
            Ok(text) => Secret(text.trim().to_owned()),
            Err(error) => {
                wrong("url_file", format!("cannot read {}: {error}", path.display()));
                Secret::default()
            }
        },
        (Some(_), Some(_)) => {
            wrong("url_file", "give url or url_file, not both".to_owned());
            Secret::default()
        }
        (None, None) => {
            wrong("url", "is missing; write postgres://user@host/database or sqlite:/path".to_owned());
            Secret::default()
        }
    };
    let query = table.query.clone().unwrap_or_default();
    if !query.contains("$1") {
        wrong("query", "needs $1, where the address comes in".to_owned());
    }
    let pull_query = table.pull_query.clone().unwrap_or_default();
    if pulled && pull_query.trim().is_empty() {
        wrong("pull_query", "is needed for pull: all addresses, in the first column".to_owned());
    }
    Source::Sql(SqlSettings { url, query, pull_query })
}

fn ldap(table: &DirectoryTable, wrong: &mut impl FnMut(&str, String)) -> Source {
    let servers = table.servers.clone().unwrap_or_default();
    let starttls = table.starttls.unwrap_or(false);
    if servers.is_empty() {
        wrong("servers", "needs at least one server, such as \"ldap://ldap.example.org\"".to_owned());
    }
    for server in &servers {
        let host = ["ldap://", "ldaps://", "ldapi://"].iter().find_map(|scheme| server.strip_prefix(scheme));
        if host.is_none_or(|host| host.is_empty() || host.contains(['/', ' ', '?'])) {
            let message =
                format!("{server:?} must be ldap://host, ldaps://host or ldapi://%2fpath, perhaps with a port");
            wrong("servers", message);
        }
    }
    if starttls && !servers.iter().any(|server| server.starts_with("ldap:")) {
        wrong("starttls", "is for ldap:// servers, and there is none".to_owned());
    }
    let bind_dn = table.bind_dn.clone().unwrap_or_default();
    match (&table.password, &table.password_file) {
        (Some(_), Some(_)) => wrong("password_file", "give password or password_file, not both".to_owned()),
        (None, None) if !bind_dn.is_empty() => wrong("password", "is missing for bind_dn".to_owned()),
        (Some(_), _) | (_, Some(_)) if bind_dn.is_empty() => wrong("bind_dn", "is missing for the password".to_owned()),
        _ => {}
    }
    let base = table.base.clone().unwrap_or_default();
    if base.is_empty() {
        wrong("base", "is missing: where the search begins, such as \"ou=people,dc=example,dc=org\"".to_owned());
    }
    let filter = table.filter.clone().unwrap_or_else(|| "(mail=%s)".to_owned());
    match Filter::new(&filter) {
        Ok(filter) if !filter.has_gap() => wrong("filter", "needs %s, %u or %d, where the address comes in".to_owned()),
        Ok(_) => {}
        Err(message) => wrong("filter", message),
    }
    let pull_filter = table.pull_filter.clone().unwrap_or_else(|| "(mail=*)".to_owned());
    match Filter::new(&pull_filter) {
        Ok(filter) if filter.has_gap() => {
            wrong("pull_filter", "is for all addresses and has no %s, %u or %d".to_owned())
        }
        Ok(_) => {}
        Err(message) => wrong("pull_filter", message),
    }
    let attributes = table.attributes.clone().unwrap_or_else(|| vec!["mail".to_owned()]);
    if attributes.is_empty() {
        wrong("attributes", "needs at least one attribute that holds addresses".to_owned());
    }
    Source::Ldap(LdapSettings {
        servers,
        starttls,
        ca_file: table.ca_file.clone(),
        bind_dn,
        password: table.password.clone().unwrap_or_default(),
        password_file: table.password_file.clone(),
        base,
        scope: table.scope.unwrap_or(LdapScope::Sub),
        filter,
        pull_filter,
        attributes,
    })
}

fn callahead(table: &DirectoryTable, wrong: &mut impl FnMut(&str, String)) -> Source {
    let hosts = table.hosts.clone().unwrap_or_default();
    if hosts.is_empty() {
        wrong("hosts", "needs at least one server, such as \"mail.inside.example:25\"".to_owned());
    }
    let helo = table.helo.clone().unwrap_or_default();
    if helo.contains(|c: char| !c.is_ascii_graphic()) {
        wrong("helo", format!("{helo:?} is not a host name"));
    }
    let accept_all_check = table.accept_all_check.unwrap_or(Period::seconds(3600));
    Source::Callahead(CallaheadSettings { hosts, helo, accept_all_check })
}

/// One `[[protected]]`: recipients to whom only insiders may write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtectedSettings {
    /// List files or entries.
    pub recipients: Vec<String>,
    /// Who of the insiders may write: list files or entries, addresses or domains. None: all of them.
    #[serde(default)]
    pub senders: Vec<String>,
    /// Whether who has logged in is an insider.
    #[serde(default = "yes")]
    pub authenticated: bool,
    /// Clients that are insiders: list files or entries. Those of `greylist.own_networks` are in any case.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Reply text for everybody else.
    #[serde(default = "protected_text")]
    pub text: String,
}

fn yes() -> bool {
    true
}

fn protected_text() -> String {
    "5.7.2 Only members of our organisation may write to this address".to_owned()
}

impl Default for ProtectedSettings {
    fn default() -> Self {
        let (recipients, senders, networks) = (Vec::new(), Vec::new(), Vec::new());
        Self { recipients, senders, authenticated: true, networks, text: protected_text() }
    }
}

/// Takes all `[[protected]]`, with the place of each, and says what is wrong with them.
pub(super) fn protected(
    listed: Vec<Listed<ProtectedSettings>>,
    mistakes: &mut Mistakes,
) -> Vec<(String, ProtectedSettings)> {
    for table in &listed {
        if table.value.recipients.is_empty() {
            mistakes.push(table.mistake("recipients", "needs at least one address, domain or list file"));
        }
        if let Some(message) = reply_mistake_of(&table.value.text, '5') {
            mistakes.push(table.mistake("text", message));
        }
    }
    listed.into_iter().map(|table| (table.origin(), table.value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn read(text: &str) -> Result<Settings, Mistakes> {
        Settings::read(&common::config::Source::from_text("f", text).unwrap())
    }

    const DOMAINS: &str = "[recipients]\ndomains = ['example.org']\n";
    const LDAP: &str = "[[directory]]\nname = 'd'\ntype = 'ldap'\nservers = ['ldap://h']\nbase = 'dc=x'\n";

    #[test]
    fn directories_are_read_with_their_defaults() {
        let text =
            format!("{DOMAINS}{LDAP}[[directory]]\nname = 'i'\ntype = 'callahead'\nhosts = ['mail.inside:25']\n");
        let settings = read(&text).unwrap();
        assert_eq!(settings.directories.len(), 2);
        let Source::Ldap(ldap) = &settings.directories[0].source else { panic!("not LDAP") };
        assert_eq!((ldap.filter.as_str(), ldap.scope, ldap.starttls), ("(mail=%s)", LdapScope::Sub, false));
        assert_eq!(settings.directories[0].origin, "f:3");
        let secret = format!("{:?}", read(&format!("{DOMAINS}{LDAP}bind_dn = 'cn=x'\npassword = 'hidden'\n")).unwrap());
        assert!(!secret.contains("hidden"));
    }

    #[test]
    fn every_mistake_is_named_with_its_line_and_key() {
        let file = "[[directory]]\nname = 'd'\ntype = 'file'\nfiles = ['/x']\n";
        let sql = "[[directory]]\nname = 'd'\ntype = 'sql'\n";
        for (text, told) in [
            ("[recipients]\ndomains = ['a b@c']\n".to_owned() + file, "f:2: recipients.domains: "),
            (DOMAINS.to_owned(), "f:2: recipients.domains: needs a [[directory]]"),
            (file.to_owned(), "f:1: directory: is asked about no domain"),
            (format!("{DOMAINS}wait = '2s'\n{file}"), "f:3: recipients.wait: "),
            (format!("{DOMAINS}wait = '600ms'\n{file}[policyd]\nbudget = '500ms'\n"), "f:3: recipients.wait: "),
            (format!("{DOMAINS}refresh_known = '8d'\n{file}"), "f:3: recipients.refresh_known: "),
            (format!("{DOMAINS}keep_unknown = '0s'\n{file}"), "f:3: recipients.keep_unknown: "),
            (format!("{DOMAINS}remember = 1\n{file}"), "f:3: recipients.remember: "),
            (format!("{DOMAINS}text = '4.1.1 x'\n{file}"), "f:3: recipients.text: must begin with"),
            (format!("{DOMAINS}role_accounts = ['a@b']\n{file}"), "f:3: recipients.role_accounts: "),
            (format!("{DOMAINS}delimiters = 'x'\n{file}"), "f:3: recipients.delimiters: "),
            (format!("{DOMAINS}alias_domains = {{ 'a@b' = 'c' }}\n{file}"), "f:3: recipients.alias_domains: "),
            (format!("{DOMAINS}{file}base = 'dc=x'\n"), "f:7: directory.base: is an option of type = \"ldap\""),
            (format!("{DOMAINS}{file}pull = '1h'\n"), "f:7: directory.pull: "),
            (format!("{DOMAINS}{file}timeout = '1m'\n"), "f:7: directory.timeout: "),
            (format!("{DOMAINS}{file}max_connections = 0\n"), "f:7: directory.max_connections: "),
            (format!("{DOMAINS}{file}max_shrink = 101\n"), "f:7: directory.max_shrink: "),
            (format!("{DOMAINS}{file}{file}"), "f:8: directory.name: there is another"),
            (format!("{DOMAINS}{}", file.replace("'d'", "'D x'")), "f:4: directory.name: "),
            (format!("{DOMAINS}{}", file.replace("'file'", "'dns'")), "f:5: directory.type: "),
            (format!("{DOMAINS}[[directory]]\nname = 'd'\n"), "f:3: directory.type: is missing"),
            (format!("{DOMAINS}{sql}query = 'select $1'\n"), "f:3: directory.url: is missing"),
            (format!("{DOMAINS}{sql}url = 'sqlite:/x'\nquery = 'select 1'\n"), "f:7: directory.query: needs $1"),
            (
                format!("{DOMAINS}{sql}url = 'sqlite:/x'\nquery = 'select $1'\npull = '1h'\n"),
                "f:3: directory.pull_query: is needed",
            ),
            (format!("{DOMAINS}{sql}url_file = '/no/such'\nquery = 'select $1'\n"), "f:6: directory.url_file: cannot"),
            (format!("{DOMAINS}{}", LDAP.replace("ldap://h", "h")), "f:6: directory.servers: \"h\" must be"),
            (format!("{DOMAINS}{LDAP}filter = '(mail=x)'\n"), "f:8: directory.filter: needs %s"),
            (format!("{DOMAINS}{LDAP}filter = '(mail=%s'\n"), "f:8: directory.filter: "),
            (format!("{DOMAINS}{LDAP}pull_filter = '(mail=%s)'\n"), "f:8: directory.pull_filter: "),
            (format!("{DOMAINS}{LDAP}bind_dn = 'cn=x'\n"), "f:3: directory.password: is missing"),
            (format!("{DOMAINS}{LDAP}scope = 'tree'\n"), "f:8: directory.scope: "),
            ("[[protected]]\nrecipients = []\n".to_owned(), "f:2: protected.recipients: needs"),
            ("[[protected]]\nrecipients = ['a@b']\ntext = 'no'\n".to_owned(), "f:3: protected.text: must begin"),
            ("[[protected]]\nsenders = ['a@b']\n".to_owned(), "f:1: protected: missing"),
        ] {
            let mistakes = read(&text).map(|_| ()).unwrap_err().to_string();
            assert!(mistakes.starts_with(told), "{text:?} gave {mistakes}");
            assert_eq!(mistakes.lines().count(), 1, "{text:?} gave {mistakes}");
        }
    }
}
