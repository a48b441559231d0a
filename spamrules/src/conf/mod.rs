// SPDX-License-Identifier: GPL-3.0-or-later
//! Reading rule files: lines, conditions, included files. What a line says is taken by [`draft`]; rules are made from that by [`build`].
//!
//! The language is that of SpamAssassin 4.0.1 (Mail::SpamAssassin::Conf). A line that is wrong is skipped and remarked upon, once.

pub(crate) mod build;
mod condition;
pub(crate) mod draft;
mod inert;
mod line;
mod plugins;
mod replace;
pub(crate) mod tests;

use draft::Gathered;
pub(crate) use plugins::Plugins;

use crate::extension::Extension;
use crate::lint::Severity;
use crate::rule::Place;

/// Files that include files that include files.
const MAX_INCLUDES: u32 = 20;
/// Conditions within conditions.
const MAX_CONDITIONS: usize = 200;

/// What the caller decides about reading rules.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether rules that ask the network are run: they take their answers from [`crate::Answers`].
    pub network: bool,
    /// Whether rules that ask SPF are run without `network`, too, because the caller knows what SPF says of some messages. Scores are
    /// those without a network then.
    pub spf: bool,
    /// Whether rules that ask Bayes are run.
    pub bayes: bool,
    /// The language of descriptions, such as `en_US` or `fr`.
    pub language: String,
    /// A rule that this many messages have set aside is switched off for an hour, by [`crate::Environment::now`]; 0: never. The number of
    /// messages halves each hour.
    pub strikes: u32,
    /// Eval functions, header fields and features of the caller's own.
    pub extensions: Vec<Extension>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            network: false,
            spf: false,
            bayes: false,
            language: "en_US".to_owned(),
            strikes: 100,
            extensions: Vec::new(),
        }
    }
}

/// Finds the text of an included file by its path.
pub(crate) type Resolver<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// Reads files one after the other into one set.
pub(crate) struct Reader<'a> {
    options: &'a Options,
    resolver: Resolver<'a>,
    pub(crate) plugins: Plugins,
    pub(crate) gathered: Gathered,
}

/// One `if` that has not ended: where it began, and whether lines were being skipped before it.
struct Open {
    line: u32,
    skipped_before: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(options: &'a Options, resolver: Resolver<'a>, gathered: Gathered) -> Reader<'a> {
        Reader { options, resolver, plugins: Plugins::new(&options.extensions), gathered }
    }

    /// Reads one file.
    pub(crate) fn file(&mut self, name: &str, text: &[u8]) {
        self.file_at(name, text, 0);
    }

    fn file_at(&mut self, name: &str, text: &[u8], depth: u32) {
        let mut place = Place { file: draft::file(name), line: 0 };
        let mut open: Vec<Open> = Vec::new();
        let mut skipping = false;
        for raw in text.split(|&byte| byte == b'\n') {
            place.line = place.line.saturating_add(1);
            let Some(line::Line { key, value }) = line::read(raw, &self.options.language) else { continue };
            let done = match key.as_str() {
                "if" | "ifplugin" => self.begin(&key, &value, &mut open, &mut skipping, &place),
                "else" => turn(&value, &open, &mut skipping),
                "endif" => end(&value, &mut open, &mut skipping),
                _ if skipping => Ok(()),
                "include" => self.include(&value, &place, depth),
                "require_version" => require(&value).inspect_err(|_| skipping = true),
                "loadplugin" | "tryplugin" => {
                    let name = draft::text(&value);
                    self.plugins.load(name.split_whitespace().next().unwrap_or_default());
                    Ok(())
                }
                "enable_compat" => {
                    self.plugins.set_compat(&draft::text(&value));
                    Ok(())
                }
                _ => self.gathered.directive(&key, &value, &place),
            };
            if let Err(message) = done {
                self.gathered.remark(Severity::Error, &place, None, message);
            }
        }
        for Open { line, .. } in open {
            let place = Place { line, ..place.clone() };
            self.gathered.remark(Severity::Error, &place, None, "this if has no endif");
        }
    }

    fn begin(
        &mut self,
        key: &str,
        value: &[u8],
        open: &mut Vec<Open>,
        skipping: &mut bool,
        place: &Place,
    ) -> Result<(), String> {
        if open.len() >= MAX_CONDITIONS {
            return Err("conditions are nested too deeply".to_owned());
        }
        open.push(Open { line: place.line, skipped_before: *skipping });
        let value = draft::text(value);
        let condition = if key == "ifplugin" { format!("plugin({value})") } else { value };
        match condition::holds(&condition, &self.plugins, self.options.network) {
            Ok(true) => Ok(()),
            Ok(false) => {
                *skipping = true;
                Ok(())
            }
            Err(error) => {
                *skipping = true;
                Err(error)
            }
        }
    }

    fn include(&mut self, value: &[u8], place: &Place, depth: u32) -> Result<(), String> {
        let path = beside(&place.file, &draft::text(value));
        if depth >= MAX_INCLUDES {
            return Err("files include each other too deeply".to_owned());
        }
        let text = (self.resolver)(&path).ok_or_else(|| format!("{path} cannot be read"))?;
        self.file_at(&path, &text, depth + 1);
        Ok(())
    }
}

fn turn(value: &[u8], open: &[Open], skipping: &mut bool) -> Result<(), String> {
    if !value.is_empty() {
        return Err("else stands alone on its line".to_owned());
    }
    if open.is_empty() {
        return Err("else without if".to_owned());
    }
    *skipping = open.iter().any(|open| open.skipped_before) || !*skipping;
    Ok(())
}

fn end(value: &[u8], open: &mut Vec<Open>, skipping: &mut bool) -> Result<(), String> {
    if !value.is_empty() {
        return Err("endif stands alone on its line".to_owned());
    }
    let last = open.pop().ok_or("endif without if")?;
    *skipping = last.skipped_before;
    Ok(())
}

/// The rest of the file is for another version when this fails.
fn require(value: &[u8]) -> Result<(), String> {
    match value {
        b"@@VERSION@@" | b"4.000001" | b"4.0.1" => Ok(()),
        other => Err(format!("the rest of this file is for version {}", draft::text(other))),
    }
}

/// A path as seen from the file that names it.
fn beside(file: &str, path: &str) -> String {
    match file.rsplit_once('/') {
        Some((folder, _)) if !path.starts_with('/') => format!("{folder}/{path}"),
        _ => path.to_owned(),
    }
}
