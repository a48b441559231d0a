// SPDX-License-Identifier: GPL-3.0-or-later
//! The layers of the configuration: built-in defaults, `octroi.toml`, `conf.d/*.toml` beside it in order of name, and the
//! environment (`OCTROI__STORE__URL` sets `store.url`). The layers are laid over each other by the `config` crate, which knows
//! names but no lines; so each file is also read alone by `toml`, whose errors have positions. Whoever reads a section
//! gets every mistake of it at once, each with file, line and key.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/octroi/octroi.toml";

/// All top-level sections that exist, whoever reads them. Any other name is a mistake.
pub const SECTIONS: [&str; 28] = [
    "store",
    "log",
    "dns",
    "policyd",
    "greylist",
    "access",
    "list",
    "perimeter",
    "decision_log",
    "handover",
    "limits",
    "recipients",
    "notify",
    "contentd",
    "antivirus",
    "banned",
    "headers",
    "destiny",
    "unpack",
    "mime",
    "ambiguity",
    "active",
    "quarantine",
    "ledger",
    "poison",
    "spam",
    "spamd",
    "checks",
];

/// All top-level arrays of tables (`[[name]]`) that exist. The entries of all files count, one after the other.
pub const LISTS: [&str; 4] = ["limit", "rule", "directory", "protected"];

const ENVIRONMENT: &str = "OCTROI__";

/// One mistake of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// `file:line`, `file`, or `environment NAME`.
    pub origin: String,
    /// Dotted name of the key; empty when the mistake is not about one.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        // A message of several lines would break `file:line: key: message`.
        f.write_str(&self.message.trim().replace('\n', "; "))
    }
}

/// One entry of an array of tables, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// The entry.
    pub value: T,
    name: &'static str,
    file: String,
    line: usize,
    lines: HashMap<String, usize>,
}

impl<T> Listed<T> {
    /// A mistake of the entry, at its key or where it begins.
    pub fn mistake(&self, key: &str, message: impl fmt::Display) -> Mistake {
        let line = self.lines.get(key).unwrap_or(&self.line);
        let (origin, key) = (format!("{}:{line}", self.file), format!("{}.{key}", self.name));
        Mistake { origin, key, message: message.to_string() }
    }

    /// `file:line` where the entry begins.
    pub fn origin(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// All mistakes that were found; one line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl Mistakes {
    /// No mistake yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, unless the same is there already.
    pub fn push(&mut self, mistake: Mistake) {
        if !self.0.contains(&mistake) {
            self.0.push(mistake);
        }
    }

    /// Adds all of another list.
    pub fn extend(&mut self, others: Self) {
        for mistake in others.0 {
            self.push(mistake);
        }
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mistakes in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }

    /// `value` when nothing is wrong.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

/// One file: its text, and the line of every key in it.
#[derive(Debug, Clone)]
struct File {
    name: String,
    text: String,
    lines: HashMap<String, usize>,
}

/// The layers, read once. Sections are taken out of it with [`Source::section`].
#[derive(Debug, Clone, Default)]
pub struct Source {
    files: Vec<File>,
    /// Dotted key to (variable, text).
    environment: BTreeMap<String, (String, String)>,
}

impl Source {
    /// Reads `file`, or [`DEFAULT_FILE`] when that exists, then `conf.d/*.toml` in the same folder, then the environment.
    /// Errors: a file that cannot be read, TOML syntax, a section that does not exist.
    pub fn load(file: Option<&Path>) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let mut paths = Vec::new();
        match file {
            Some(path) => paths.push(path.to_path_buf()),
            None if Path::new(DEFAULT_FILE).exists() => paths.push(PathBuf::from(DEFAULT_FILE)),
            None => {}
        }
        let folder = file.unwrap_or(Path::new(DEFAULT_FILE)).parent().unwrap_or(Path::new("")).join("conf.d");
        match drop_ins(&folder) {
            Ok(found) => paths.extend(found),
            Err(error) => mistakes.push(whole_file(&folder, &error)),
        }
        let mut source = Self::default();
        for path in paths {
            match std::fs::read_to_string(&path) {
                Ok(text) => source.add_file(&path.display().to_string(), &text, &mut mistakes),
                Err(error) => mistakes.push(whole_file(&path, &error)),
            }
        }
        source.add_environment(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
            &mut mistakes,
        );
        mistakes.into_result(source)
    }

    /// One layer from a text, without environment.
    pub fn from_text(name: &str, text: &str) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let mut source = Self::default();
        source.add_file(name, text, &mut mistakes);
        mistakes.into_result(source)
    }

    fn add_file(&mut self, name: &str, text: &str, mistakes: &mut Mistakes) {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let line = line_of(text, error.span().map_or(0, |span| span.start));
            mistakes.push(Mistake {
                origin: format!("{name}:{line}"),
                key: String::new(),
                message: error.message().to_owned(),
            });
        }
        let mut lines = HashMap::new();
        note_lines(text, "", table.get_ref(), &mut lines);
        for key in table.get_ref().keys() {
            let section: &str = key.get_ref();
            if !SECTIONS.contains(&section) && !LISTS.contains(&section) {
                let origin = format!("{name}:{}", line_of(text, key.span().start));
                mistakes.push(Mistake { origin, key: section.to_owned(), message: no_such_section() });
            }
        }
        self.files.push(File { name: name.to_owned(), text: text.to_owned(), lines });
    }

    fn add_environment(&mut self, variables: impl Iterator<Item = (String, String)>, mistakes: &mut Mistakes) {
        for (variable, value) in variables {
            let Some(rest) = variable.strip_prefix(ENVIRONMENT) else {
                continue;
            };
            let key = rest.to_ascii_lowercase().replace("__", ".");
            let section = key.split('.').next().unwrap_or_default();
            if !SECTIONS.contains(&section) || !key.contains('.') {
                mistakes.push(Mistake { origin: format!("environment {variable}"), key, message: no_such_section() });
                continue;
            }
            self.environment.insert(key, (variable, value));
        }
    }

    /// True when some layer has the section or a key in it. `name` may be dotted.
    pub fn has_section(&self, name: &str) -> bool {
        let inside = |key: &str| key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        self.files.iter().any(|file| file.lines.contains_key(name)) || self.environment.keys().any(|key| inside(key))
    }

    /// The section `name` with all layers applied. Every mistake in it goes to `mistakes`; the value is then the default.
    pub fn section<T: DeserializeOwned + Default>(&self, name: &str, mistakes: &mut Mistakes) -> T {
        let before = mistakes.0.len();
        for file in &self.files {
            file.check_section::<T>(name, mistakes);
        }
        self.check_environment::<T>(name, mistakes);
        if mistakes.0.len() > before {
            return T::default();
        }
        match self.merged(name) {
            Ok(value) => value.unwrap_or_default(),
            Err(error) => {
                mistakes.push(self.mistake(name, error));
                T::default()
            }
        }
    }

    /// The entries of all `[[name]]`, those of `octroi.toml` before those of `conf.d`. Every mistake in them goes to `mistakes`, and an
    /// entry that has one is left out. `name` may be dotted; the environment cannot hold entries.
    pub fn list<T: DeserializeOwned>(&self, name: &'static str, mistakes: &mut Mistakes) -> Vec<Listed<T>> {
        if let Some((variable, _)) = self.environment.get(name) {
            let origin = format!("environment {variable}");
            let message = format!("must be written [[{name}]] in a file, once for each");
            mistakes.push(Mistake { origin, key: name.to_owned(), message });
        }
        self.files.iter().flat_map(|file| file.list(name, mistakes)).collect()
    }

    /// Lays the layers over each other; `None` when no layer has the section.
    fn merged<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, config::ConfigError> {
        let mut layers = config::Config::builder();
        for file in &self.files {
            layers = layers.add_source(config::File::from_str(&file.text, config::FileFormat::Toml));
        }
        for (key, (_, text)) in &self.environment {
            layers = layers.set_override(key, environment_value(text))?;
        }
        found(layers.build()?.get(name))
    }

    /// Tries each variable of the section alone, over nothing, so that the one that is wrong can be named.
    fn check_environment<T: DeserializeOwned>(&self, name: &str, mistakes: &mut Mistakes) {
        for (key, (variable, text)) in &self.environment {
            if !key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')) {
                continue;
            }
            let alone = config::Config::builder().set_override(key, environment_value(text));
            let read = alone.and_then(|layers| layers.build()).and_then(|layers| found(layers.get::<T>(name)));
            if let Err(error) = read {
                // Which keys a section must have is checked on all layers together.
                let message = error.to_string();
                if !message.contains("missing") {
                    mistakes.push(Mistake { origin: format!("environment {variable}"), key: key.clone(), message });
                }
            }
        }
    }

    /// A mistake at the place that set `key` last: the environment, else the last file that has it, else the section, else the defaults.
    pub fn mistake(&self, key: &str, message: impl fmt::Display) -> Mistake {
        let made = |origin| Mistake { origin, key: key.to_owned(), message: message.to_string() };
        if let Some((variable, _)) = self.environment.get(key) {
            return made(format!("environment {variable}"));
        }
        let mut prefix = key;
        loop {
            if let Some((file, line)) = self.files.iter().rev().find_map(|file| Some((file, file.lines.get(prefix)?))) {
                return made(format!("{}:{line}", file.name));
            }
            match prefix.rsplit_once('.') {
                Some((parent, _)) => prefix = parent,
                None => break,
            }
        }
        match self.files.first() {
            Some(file) => made(format!("{}:1", file.name)),
            None => made("built-in defaults".to_owned()),
        }
    }
}

impl File {
    /// Reads the section of this file alone.
    fn check_section<T: DeserializeOwned>(&self, name: &str, mistakes: &mut Mistakes) {
        let (table, _) = DeTable::parse_recoverable(&self.text);
        let mut value = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        for part in name.split('.') {
            let DeValue::Table(table) = value.into_inner() else {
                return;
            };
            let Some((_, inner)) = table.into_iter().find(|(key, _)| key.get_ref() == part) else {
                return;
            };
            value = inner;
        }
        // A required key that is missing here may stand in another layer: the merged reading will tell.
        self.read::<T>(name, value, |message| !message.starts_with("missing field"), mistakes);
    }

    /// Reads a value. After a mistake the key is taken out and the rest read again, so that one wrong key does not hide the next.
    /// `counts` says of a message about no key whether it is a mistake here. None after any.
    fn read<T: DeserializeOwned>(
        &self,
        name: &str,
        mut value: Spanned<DeValue<'_>>,
        counts: impl Fn(&str) -> bool,
        mistakes: &mut Mistakes,
    ) -> Option<T> {
        let mut wrong = false;
        loop {
            let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
                Ok(read) => return (!wrong).then_some(read),
                Err(error) => error,
            };
            wrong = true;
            let at = error.span().unwrap_or(value.span());
            let key = match value.get_mut() {
                DeValue::Table(table) => take_out(table, &at),
                _ => None,
            };
            let message = error.message().to_owned();
            let full = key.as_ref().map_or_else(|| name.to_owned(), |key| format!("{name}.{key}"));
            if key.is_some() || counts(&message) {
                let origin = format!("{}:{}", self.name, line_of(&self.text, at.start));
                mistakes.push(Mistake { origin, key: full, message });
            }
            key?;
        }
    }

    /// The entries of `[[name]]` in this file alone.
    fn list<T: DeserializeOwned>(&self, name: &'static str, mistakes: &mut Mistakes) -> Vec<Listed<T>> {
        let (table, _) = DeTable::parse_recoverable(&self.text);
        let mut value = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        let mut begins = 0;
        for part in name.split('.') {
            let DeValue::Table(table) = value.into_inner() else { return Vec::new() };
            let found = table.into_iter().find(|(key, _)| key.get_ref() == part);
            let Some((key, inner)) = found else { return Vec::new() };
            (begins, value) = (key.span().start, inner);
        }
        let line = |at: usize| line_of(&self.text, at);
        let DeValue::Array(entries) = value.into_inner() else {
            let origin = format!("{}:{}", self.name, line(begins));
            let message = format!("must be written [[{name}]], once for each");
            mistakes.push(Mistake { origin, key: name.to_owned(), message });
            return Vec::new();
        };
        let mut list = Vec::new();
        for entry in entries {
            let (span, mut lines) = (entry.span(), HashMap::new());
            if let DeValue::Table(table) = entry.get_ref() {
                note_lines(&self.text, "", table, &mut lines);
            }
            if let Some(value) = self.read(name, entry, |_| true, mistakes) {
                list.push(Listed { value, name, file: self.name.clone(), line: line(span.start), lines });
            }
        }
        list
    }
}

/// Removes the key that contains `at` (deepest table first) and gives its dotted name.
fn take_out(table: &mut DeTable<'_>, at: &std::ops::Range<usize>) -> Option<String> {
    let holds = |span: std::ops::Range<usize>| span.start <= at.start && at.end <= span.end;
    let mut hit = None;
    for (key, value) in table.iter_mut() {
        let name = key.get_ref().clone().into_owned();
        // A table with a header of its own spans the header only, so it is looked into in any case.
        if let DeValue::Table(inner) = value.get_mut()
            && !holds(key.span())
            && let Some(rest) = take_out(inner, at)
        {
            return Some(format!("{name}.{rest}"));
        }
        if holds(key.span()) || holds(value.span()) {
            hit = Some(name);
            break;
        }
    }
    let name = hit?;
    *table = std::mem::take(table).into_iter().filter(|(key, _)| *key.get_ref() != name).collect();
    Some(name)
}

fn note_lines(text: &str, prefix: &str, table: &DeTable<'_>, lines: &mut HashMap<String, usize>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        lines.insert(name.clone(), line_of(text, key.span().start));
        if let DeValue::Table(inner) = value.get_ref() {
            note_lines(text, &name, inner, lines);
        }
    }
}

/// Line number, from 1, of a byte position.
fn line_of(text: &str, position: usize) -> usize {
    1 + text.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count()
}

fn drop_ins(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

fn whole_file(path: &Path, error: &std::io::Error) -> Mistake {
    Mistake { origin: path.display().to_string(), key: String::new(), message: format!("cannot be read: {error}") }
}

fn no_such_section() -> String {
    let lists = LISTS.iter().map(|name| format!("[[{name}]]"));
    let all: Vec<String> = SECTIONS.iter().map(|name| (*name).to_owned()).chain(lists).collect();
    format!("there is no such section; there are {}", all.join(", "))
}

fn found<T>(read: Result<T, config::ConfigError>) -> Result<Option<T>, config::ConfigError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(config::ConfigError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The text of a variable as a TOML value (`5`, `true`, `["a", "b"]`, `"quoted"`), else as the plain text it is.
fn environment_value(text: &str) -> config::Value {
    fn convert(value: toml::Value) -> Option<config::ValueKind> {
        Some(match value {
            toml::Value::Boolean(value) => config::ValueKind::Boolean(value),
            toml::Value::Integer(value) => config::ValueKind::I64(value),
            toml::Value::Float(value) => config::ValueKind::Float(value),
            toml::Value::String(value) => config::ValueKind::String(value),
            toml::Value::Array(values) => config::ValueKind::Array(
                values
                    .into_iter()
                    .map(|value| Some(config::Value::new(None, convert(value)?)))
                    .collect::<Option<_>>()?,
            ),
            toml::Value::Datetime(_) | toml::Value::Table(_) => return None,
        })
    }
    let parsed = ValueDeserializer::parse(text)
        .ok()
        .and_then(|value| <toml::Value as serde::Deserialize>::deserialize(value).ok());
    config::Value::new(None, parsed.and_then(convert).unwrap_or_else(|| config::ValueKind::String(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Period, Size};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        #[default]
        Strict,
        Learn,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        name: String,
        #[serde(default)]
        prefix: u8,
    }

    fn listed(files: &[(&str, &str)]) -> (Vec<Listed<Entry>>, String) {
        let (mut source, mut mistakes) = (Source::default(), Mistakes::new());
        for (name, text) in files {
            // The name of the list is no section of the product.
            source.add_file(name, text, &mut Mistakes::new());
        }
        let entries = source.list("entry", &mut mistakes);
        (entries, mistakes.to_string())
    }

    #[test]
    fn entries_of_all_files_count_and_know_their_lines() {
        let files = [
            ("a.toml", "[[entry]]\nname = 'x'\n\n[[entry]]\nname = 'y'\nprefix = 3\n"),
            ("b.toml", ""),
            ("c.toml", "entry = [{ name = 'z' }]\n"),
        ];
        let (entries, mistakes) = listed(&files);
        assert_eq!(mistakes, "");
        let names: Vec<&str> = entries.iter().map(|entry| entry.value.name.as_str()).collect();
        assert_eq!(names, ["x", "y", "z"]);
        assert_eq!(entries[1].mistake("prefix", "odd").to_string(), "a.toml:6: entry.prefix: odd");
        assert_eq!(entries[1].mistake("rate", "missing").to_string(), "a.toml:4: entry.rate: missing");
        assert_eq!((entries[0].origin(), entries[2].origin()), ("a.toml:1".into(), "c.toml:1".into()));
    }

    #[test]
    fn every_mistake_of_every_entry_is_told() {
        let text = "[[entry]]\nnam = 'x'\nprefix = 300\n[[entry]]\nname = 'y'\n[[entry]]\nprefix = 1\n";
        let (entries, mistakes) = listed(&[("a.toml", text)]);
        assert_eq!(entries.len(), 1);
        let lines: Vec<&str> = mistakes.lines().collect();
        assert_eq!(lines.len(), 4, "{mistakes}");
        for (line, starts) in lines.iter().zip([
            "a.toml:2: entry.nam: ",
            "a.toml:3: entry.prefix: ",
            "a.toml:1: entry: missing",
            "a.toml:6: entry: missing",
        ]) {
            assert!(line.starts_with(starts), "{line}");
        }
        let (_, mistakes) = listed(&[("a.toml", "[entry]\nname = 'x'\n")]);
        assert_eq!(mistakes, "a.toml:1: entry: must be written [[entry]], once for each");
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Section {
        mode: Mode,
        delay: Period,
        size: Size,
        prefix: u8,
        listen: Vec<String>,
    }

    impl Default for Section {
        fn default() -> Self {
            Self {
                mode: Mode::Strict,
                delay: Period::seconds(240),
                size: Size(10_000_000),
                prefix: 24,
                listen: vec!["a".into()],
            }
        }
    }

    fn read(source: &Source) -> Result<Section, String> {
        let mut mistakes = Mistakes::new();
        let section = source.section("greylist", &mut mistakes);
        mistakes.into_result(section).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn nothing_configured_gives_the_defaults() {
        assert_eq!(read(&Source::default()), Ok(Section::default()));
        assert_eq!(read(&Source::from_text("f", "[store]\nurl = 'x'\n").unwrap()), Ok(Section::default()));
    }

    #[test]
    fn later_layers_win_key_by_key() {
        let mut source = Source::from_text("a", "[greylist]\ndelay = '5m'\nprefix = 20\n").unwrap();
        let mut mistakes = Mistakes::new();
        source.add_file("b", "[greylist]\nprefix = 22\nlisten = ['x']\n", &mut mistakes);
        let variables = [
            ("OCTROI__GREYLIST__MODE", "learn"),
            ("OCTROI__GREYLIST__LISTEN", "['y', 'z']"),
            ("OCTROI__GREYLIST__SIZE", "1MB"),
            ("HOME", "/x"),
        ];
        source.add_environment(
            variables.iter().map(|(name, value)| (name.to_string(), value.to_string())),
            &mut mistakes,
        );
        assert!(mistakes.is_empty(), "{mistakes}");
        let expected = Section {
            mode: Mode::Learn,
            delay: Period::seconds(300),
            size: Size(1_000_000),
            prefix: 22,
            listen: vec!["y".into(), "z".into()],
        };
        assert_eq!(read(&source), Ok(expected));
        assert_eq!(source.mistake("greylist.prefix", "m").to_string(), "b:2: greylist.prefix: m");
        assert_eq!(source.mistake("greylist.delay", "m").to_string(), "a:2: greylist.delay: m");
        assert_eq!(
            source.mistake("greylist.mode", "m").to_string(),
            "environment OCTROI__GREYLIST__MODE: greylist.mode: m"
        );
        assert_eq!(source.mistake("greylist.other", "m").origin, "b:1");
    }

    #[test]
    fn every_mistake_is_named_with_its_line_and_key() {
        let text = "[greylist]\nmode = 'strickt'\ndelay = 5\nsize = '5'\nprefix = 300\ncolour = 'red'\nlisten = [1]\n";
        let told = read(&Source::from_text("f.toml", text).unwrap()).unwrap_err();
        for (line, key) in [(2, "mode"), (3, "delay"), (4, "size"), (5, "prefix"), (6, "colour"), (7, "listen")] {
            let start = format!("f.toml:{line}: greylist.{key}: ");
            assert!(told.lines().any(|told| told.starts_with(&start)), "{start} missing in:\n{told}");
        }
        assert_eq!(told.lines().count(), 6, "{told}");
    }

    #[test]
    fn syntax_errors_and_unknown_sections_are_named() {
        let told = Source::from_text("f", "[greylist]\ndelay = \n[grey]\nx = 1\n").unwrap_err().to_string();
        assert!(told.contains("f:2: "), "{told}");
        assert!(told.contains("f:3: grey: there is no such section"), "{told}");
    }

    #[test]
    fn mistakes_in_the_environment_name_the_variable() {
        for (variable, value) in [
            ("OCTROI__GREYLIST__DELAY", "5"),
            ("OCTROI__GREYLIST__COLOUR", "red"),
            ("OCTROI__GREYLIST__PREFIX", "many"),
        ] {
            let mut source = Source::default();
            let mut mistakes = Mistakes::new();
            source.add_environment([(variable.to_owned(), value.to_owned())].into_iter(), &mut mistakes);
            let told = read(&source).unwrap_err();
            assert!(told.starts_with(&format!("environment {variable}: greylist.")), "{told}");
        }
        let mut mistakes = Mistakes::new();
        Source::default().add_environment([("OCTROI__GREY__X".to_owned(), "1".to_owned())].into_iter(), &mut mistakes);
        assert!(mistakes.to_string().starts_with("environment OCTROI__GREY__X: grey.x: "), "{mistakes}");
    }

    #[test]
    fn files_are_read_in_order_and_missing_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("octroi.toml");
        let missing = Source::load(Some(&main)).unwrap_err().to_string();
        assert!(missing.starts_with(&format!("{}: cannot be read", main.display())), "{missing}");
        std::fs::write(&main, "[greylist]\nprefix = 1\n").unwrap();
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        std::fs::write(folder.path().join("conf.d/20.toml"), "[greylist]\nprefix = 3\n").unwrap();
        std::fs::write(folder.path().join("conf.d/10.toml"), "[greylist]\nprefix = 2\n").unwrap();
        std::fs::write(folder.path().join("conf.d/30.toml.bak"), "nonsense").unwrap();
        assert_eq!(read(&Source::load(Some(&main)).unwrap()).unwrap().prefix, 3);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            if let Ok(source) = Source::from_text("f", &text) {
                let _ = read(&source);
            }
            let _ = read(&Source { files: Vec::new(), environment: [("greylist.delay".to_owned(), ("V".to_owned(), text))].into() });
        }
    }
}
