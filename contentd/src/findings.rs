// SPDX-License-Identifier: GPL-3.0-or-later
//! What the stages of the pipeline found out about one message: facts, no decision (`verdict` decides).
//!
//! The words of [`FindingKind`] are a closed list; they appear in `scan --json`, in the log and in metrics alike.

use crate::category::Category;
use crate::digest::Digest;
use crate::spam::set::RuleSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Everything found in one message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// The id of the message, for replies and headers.
    pub id: String,
    /// Size of the message in bytes.
    pub size: u64,
    /// Every leaf and container, in the order of the message.
    pub parts: Vec<Part>,
    /// What is strange, missing or over a limit.
    pub found: Vec<Finding>,
    /// Attachments that the list of banned files names.
    pub banned: Vec<Banned>,
    /// What Postfix' tables say, and what is changed.
    pub checked: crate::checks::Outcome,
    /// What each scanner said; empty when none is configured.
    pub scans: Vec<Scan>,
    /// Signs of spam, with their scores.
    pub symbols: Vec<Symbol>,
    /// What the rules say; none when none are configured, or when they could not be run, which a finding tells then.
    pub spam: Option<Spam>,
    /// What the rules have asked the network.
    pub asked: Asked,
    /// Result word of SPF for the sender, or for the client's name where there is no sender, when the rules have asked for it.
    pub spf: Option<&'static str>,
    /// The deadline came before all stages were done.
    pub out_of_time: bool,
}

impl Findings {
    /// Notes one finding. Repeating it is not worth memory: the same kind, part and detail is kept once.
    pub fn add(&mut self, finding: Finding) {
        if !self.found.contains(&finding) {
            self.found.push(finding);
        }
    }

    /// Whether a scanner other than a failed one has said something, so that its answer may do: what the failure means then is policy.
    pub fn is_answered(&self) -> bool {
        self.scans.iter().any(|scan| !matches!(scan.outcome, Outcome::Failed(_)))
    }

    /// The same, of the scanners that take the place of others.
    pub fn is_answered_by_backup(&self) -> bool {
        self.scans.iter().any(|scan| scan.backup && !matches!(scan.outcome, Outcome::Failed(_)))
    }

    /// Names of the viruses that all scanners found, each once.
    pub fn viruses(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for scan in &self.scans {
            if let Outcome::Infected(found) = &scan.outcome {
                for name in found.iter().map(String::as_str) {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
        }
        names
    }
}

/// One part of a message: a leaf with its decoded bytes described, or what holds other parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Place in the message: `1`, `2.1`; another reading of the same bytes has a suffix, `2.1:base64`. Members of archives
    /// follow behind slashes: `2/invoice.zip/a.js`.
    pub path: String,
    /// File names in every spelling, the likeliest first.
    pub names: Vec<String>,
    /// Declared media types, the likeliest first.
    pub types: Vec<String>,
    /// Media type by content; empty for a part that holds others.
    pub detected_type: String,
    /// Size of the decoded bytes.
    pub size: u64,
    /// Of the decoded bytes.
    pub digest: Digest,
    /// What the part lies in: `message/rfc822` or an archive's type; none in the message itself.
    pub container: Option<&'static str>,
    /// Whether it is a leaf. Others carry names and types only.
    pub leaf: bool,
}

/// One fact out of the closed list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which fact.
    pub kind: FindingKind,
    /// Path of the part; empty for the message as a whole.
    pub part: String,
    /// What exactly, in a few words; never content of the message.
    pub detail: String,
}

impl Finding {
    /// A finding on the part with this path. The detail may come from a header; it is cut and made printable.
    pub fn new(kind: FindingKind, part: impl Into<String>, detail: impl Into<String>) -> Finding {
        let detail: String = detail.into();
        let safe = |c: char| if c.is_control() { '?' } else { c };
        Finding { kind, part: part.into(), detail: detail.chars().map(safe).take(DETAIL).collect() }
    }
}

/// Longest detail of a finding, in characters.
const DETAIL: usize = 60;

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.kind.word())?;
        if !self.part.is_empty() {
            write!(out, " part={}", self.part)?;
        }
        if !self.detail.is_empty() {
            write!(out, " ({})", self.detail)?;
        }
        Ok(())
    }
}

/// An attachment that is not wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banned {
    /// The rule: `extension exe`, `type application/hta`, `name <pattern>`.
    pub rule: String,
    /// Path of the part.
    pub part: String,
    /// The name or type that the rule fits.
    pub matched: String,
}

/// The name of the scanner whose failure means that the message could not even be read. No other makes up for that.
pub const PARSER: &str = "parser";

/// What one scanner said about the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The scanner: the name of its section, or [`PARSER`] when the message could not even be read.
    pub scanner: String,
    /// It takes the place of others that have failed.
    pub backup: bool,
    /// Its answer.
    pub outcome: Outcome,
    /// Its own words about its version, where it tells them.
    pub version: Option<String>,
    /// Age of its signatures, where it tells it.
    pub signatures_age: Option<Duration>,
}

impl Scan {
    /// An answer without facts about who gives it.
    pub fn new(scanner: impl Into<String>, outcome: Outcome) -> Scan {
        Scan { scanner: scanner.into(), backup: false, outcome, version: None, signatures_age: None }
    }
}

/// A sign of spam.
#[derive(Debug, Clone, PartialEq)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// What it adds to the score.
    pub score: f64,
    /// What it means, for people.
    pub description: String,
}

/// Questions of the spam rules to the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// How many were asked.
    pub asked: usize,
    /// How many answers came in time, "nothing" for one.
    pub answered: usize,
}

impl fmt::Display for Asked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.answered, self.asked)
    }
}

/// What the rules say, and what other signs of spam add to it.
#[derive(Debug, Clone)]
pub struct Spam {
    /// The score of the message: rules, [`Findings::symbols`] and ambiguities with a score.
    pub score: f64,
    /// The score from which on it is tagged.
    pub required: f64,
    /// The rules that hit, and what it cost to find out.
    pub report: spamrules::Report,
    /// The set of rules that was used.
    pub rules: Arc<RuleSet>,
}

impl Spam {
    /// Whether the message is to be tagged.
    pub fn is_tagged(&self) -> bool {
        self.score >= self.required
    }
}

impl PartialEq for Spam {
    fn eq(&self, other: &Spam) -> bool {
        let same_rules = Arc::ptr_eq(&self.rules, &other.rules);
        same_rules && self.score == other.score && self.required == other.required && self.report == other.report
    }
}

/// A scanner's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was scanned and nothing found.
    Clean,
    /// Names of what was found.
    Infected(Vec<String>),
    /// The scanner did not look at everything, for example because of its own limits; why.
    Incomplete(String),
    /// Something is encrypted, so that the scanner could not look into it; what.
    Encrypted(String),
    /// No answer; why.
    Failed(String),
}

impl FindingKind {
    /// Whether programs may differ in how they read a message with it, so that one sees a part that another does not.
    pub fn is_ambiguity(self) -> bool {
        !matches!(
            self,
            FindingKind::HeaderControl
                | FindingKind::Header8Bit
                | FindingKind::HeaderLongLine
                | FindingKind::HeaderMissing
                | FindingKind::HeaderDuplicate
                | FindingKind::OldSignatures
                | FindingKind::Macros
                | FindingKind::MacroAutorun
                | FindingKind::MacroCalls
                | FindingKind::Excel4Macros
                | FindingKind::Dde
                | FindingKind::RemoteTemplate
                | FindingKind::PdfJavascript
                | FindingKind::PdfOpenAction
                | FindingKind::PdfLaunch
                | FindingKind::PdfLinks
                | FindingKind::RulesPartial
        )
    }
}

/// The closed list of facts, its words, and the category each one belongs to.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal => $category:expr;)+) => {
        /// Which fact a finding states.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingKind { $($(#[$doc])* $name,)+ }

        impl FindingKind {
            /// All of them.
            pub const ALL: &'static [FindingKind] = &[$(FindingKind::$name,)+];

            /// The word for it in JSON, log and metrics.
            pub fn word(self) -> &'static str {
                match self { $(FindingKind::$name => $word,)+ }
            }

            /// The category that the fact puts the message into; none for a mere note.
            pub fn category(self) -> Option<Category> {
                match self { $(FindingKind::$name => $category,)+ }
            }
        }
    };
}

kinds! {
    /// Something is longer, deeper or more than is looked at.
    OverLimits = "over-limits" => Some(Category::Unchecked);
    /// An attachment is encrypted.
    Encrypted = "encrypted" => Some(Category::Unchecked);
    /// A content transfer encoding that is not known.
    UnknownEncoding = "unknown-encoding" => Some(Category::Unchecked);
    /// A piece of a message (RFC 2046 section 5.2.2): the whole can only be seen by the receiver.
    Fragment = "fragment" => Some(Category::Unchecked);
    /// An archive or a file in one that contradicts itself.
    DamagedArchive = "damaged-archive" => Some(Category::Unchecked);
    /// An archive or a file in one that ends too early.
    TruncatedArchive = "truncated-archive" => Some(Category::Unchecked);
    /// An archive whose rest is in another file.
    MultiVolume = "multi-volume" => Some(Category::Unchecked);
    /// An archive in a format, or a member packed in a way, that cannot be opened.
    UnsupportedArchive = "unsupported-archive" => Some(Category::Unchecked);
    /// Members of a zip that share their data: a bomb.
    OverlappingMembers = "overlapping-members" => Some(Category::Unchecked);
    /// The decoder of an archive broke off, or could not be started.
    DecoderFailed = "decoder-failed" => Some(Category::Unchecked);
    /// A stage of the pipeline broke off.
    StageFailed = "stage-failed" => Some(Category::Unchecked);
    /// Several Content-Type fields.
    DuplicateContentType = "duplicate-content-type" => Some(Category::BadHeader);
    /// Several Content-Transfer-Encoding fields.
    DuplicateEncoding = "duplicate-content-transfer-encoding" => Some(Category::BadHeader);
    /// Several Content-Disposition fields.
    DuplicateDisposition = "duplicate-content-disposition" => Some(Category::BadHeader);
    /// Several different values for one boundary.
    SeveralBoundaries = "several-boundaries" => Some(Category::BadHeader);
    /// A multipart without a boundary.
    BoundaryMissing = "boundary-missing" => Some(Category::BadHeader);
    /// A multipart whose boundary is nowhere in its body.
    BoundaryUnused = "boundary-unused" => Some(Category::BadHeader);
    /// A line in the header section that is no field.
    HeaderSyntax = "header-syntax" => Some(Category::BadHeader);
    /// A header line of blanks only.
    HeaderBlankLine = "header-blank-line" => Some(Category::BadHeader);
    /// A control character in the header section, a lone CR or a NUL among them.
    HeaderControl = "header-control" => Some(Category::BadHeader);
    /// Bytes over 127 in the header section that are not UTF-8 (RFC 6532).
    Header8Bit = "header-8bit" => Some(Category::BadHeader);
    /// A header line over 998 bytes (RFC 5322 section 2.1.1).
    HeaderLongLine = "header-long-line" => Some(Category::BadHeader);
    /// No From or no Date field (RFC 5322 section 3.6).
    HeaderMissing = "header-missing" => Some(Category::BadHeader);
    /// A field twice that may stand once (RFC 5322 section 3.6).
    HeaderDuplicate = "header-duplicate" => Some(Category::BadHeader);
    /// The ways to read the message show different files.
    ReadingsDiffer = "readings-differ" => None;
    /// Lines that begin as a delimiter and go on divide a multipart in another way.
    LongerDelimiter = "longer-delimiter" => None;
    /// Delimiters between lone CRs.
    LoneCrDelimiter = "lone-cr-delimiter" => None;
    /// Parts between lines that look like delimiters, whose boundary no field names.
    GuessedBoundary = "guessed-boundary" => None;
    /// A file or an encoded text before the first part of a multipart.
    DataInPreamble = "data-in-preamble" => None;
    /// A file or an encoded text behind the last part of a multipart.
    DataInEpilogue = "data-in-epilogue" => None;
    /// Base64 that no field declares, in a part that is said to be a file.
    UndeclaredEncoding = "undeclared-encoding" => None;
    /// Spellings of one file name that end in different extensions.
    NamesDiffer = "names-differ" => None;
    /// A parameter of a MIME field that breaks the rules in a way that programs read differently.
    OddParameter = "odd-parameter" => None;
    /// Blanks before the colon of a field.
    BlankBeforeColon = "blank-before-colon" => None;
    /// A header section that ends without an empty line.
    HeaderUnfinished = "header-unfinished" => None;
    /// A multipart without its closing delimiter.
    Unclosed = "unclosed-multipart" => None;
    /// Parts behind the closing delimiter.
    PartsAfterClose = "parts-after-close" => None;
    /// A multipart whose body as a whole is encoded.
    EncodedMultipart = "encoded-multipart" => None;
    /// Characters that do not belong to the encoding.
    EncodingJunk = "encoding-junk" => None;
    /// Encoded data behind base64 padding.
    DataAfterPadding = "data-after-padding" => None;
    /// Members that only one of an archive's lists names, or that stand behind its end.
    HiddenMembers = "hidden-members" => None;
    /// The lists of an archive contradict each other.
    HeadersDiffer = "archive-headers-differ" => None;
    /// An encrypted archive that a word of the message, or a common one, has opened.
    PasswordFound = "password-found" => None;
    /// Several members of one name.
    DuplicateNames = "duplicate-names" => None;
    /// An archive within a file of another kind, a program that unpacks itself for one.
    Polyglot = "archive-inside" => None;
    /// A document has macros.
    Macros = "macros" => None;
    /// One of them runs by itself; its name.
    MacroAutorun = "macro-autorun" => None;
    /// They reach out of the document; by which words.
    MacroCalls = "macro-calls" => None;
    /// A workbook has a sheet of Excel 4 macros.
    Excel4Macros = "excel4-macros" => None;
    /// A document starts or asks another program by DDE.
    Dde = "dde" => None;
    /// A template or an object that a document fetches from elsewhere.
    RemoteTemplate = "remote-template" => None;
    /// A PDF has scripts.
    PdfJavascript = "pdf-javascript" => None;
    /// A PDF does something when it is opened, other than to show a page.
    PdfOpenAction = "pdf-open-action" => None;
    /// A PDF starts a program.
    PdfLaunch = "pdf-launch" => None;
    /// A PDF has links; how many.
    PdfLinks = "pdf-links" => None;
    /// The spam rules have not seen all of the message, or not all of them were run; why.
    RulesPartial = "rules-partial" => None;
    /// The signatures of a scanner are older than configured.
    OldSignatures = "old-signatures" => None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_different_and_speak_of_no_content() {
        let mut words: Vec<_> = FindingKind::ALL.iter().map(|kind| kind.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), FindingKind::ALL.len());
    }

    #[test]
    fn the_same_finding_is_kept_once() {
        let mut findings = Findings::default();
        findings.add(Finding::new(FindingKind::OverLimits, "1.2", "depth"));
        findings.add(Finding::new(FindingKind::OverLimits, "1.2", "depth"));
        assert_eq!(findings.found.len(), 1);
        assert_eq!(findings.found[0].to_string(), "over-limits part=1.2 (depth)");
    }

    #[test]
    fn names_of_viruses_are_collected_from_all_scanners() {
        let scan = |outcome| Scan::new("clamd", outcome);
        let infected = |names: &[&str]| Outcome::Infected(names.iter().map(|n| (*n).to_owned()).collect());
        let findings = Findings {
            scans: vec![scan(infected(&["A", "B"])), scan(Outcome::Clean), scan(infected(&["B"]))],
            ..Findings::default()
        };
        assert_eq!(findings.viruses(), ["A", "B"]);
    }
}
