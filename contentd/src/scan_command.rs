// SPDX-License-Identifier: GPL-3.0-or-later
//! `contentd scan`: inspects messages from files, folders or standard input, and says what a message would meet.
//!
//! The same pipeline and verdict as in the daemon. It listens nowhere and writes nothing but its report; scanners
//! are asked when they are configured.

use crate::config::Settings;
use crate::envelope::{Client, Envelope, MessageId, Path as MailPath};
use crate::findings::{FindingKind, Findings, Outcome, Part, Symbol};
use crate::message::header;
use crate::pipeline::Pipeline;
use crate::points::Points;
use crate::smtp::xforward::Attribute;
use crate::spam::{explain, headers};
use crate::spool::Message;
use crate::unpack::helper::{Helpers, Program};
use crate::verdict::{Policy, Verdict, decide};
use common::exit;
use serde_json::{Value, json};
use spamrules::Hit;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Arguments of `contentd scan`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ScanArgs {
    /// Print one JSON object a line, per message
    #[arg(long)]
    pub json: bool,
    /// Say what the spam score is made of, and what the rules have cost
    #[arg(long, conflicts_with = "json")]
    pub explain: bool,
    /// Envelope sender [default: none, the null sender]
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    pub sender: String,
    /// Envelope recipient; may be given several times
    #[arg(long = "recipient", value_name = "ADDRESS")]
    pub recipients: Vec<String>,
    /// IP address of the SMTP client
    #[arg(long, value_name = "IP")]
    pub client: Option<std::net::IpAddr>,
    /// HELO or EHLO name of the SMTP client
    #[arg(long, value_name = "HELO")]
    pub helo: Option<String>,
    /// Verified host name of the SMTP client
    #[arg(long, value_name = "NAME")]
    pub client_name: Option<String>,
    /// Messages: files, folders (with all that is below them), or `-` for standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
}

impl ScanArgs {
    /// The envelope that the messages are said to have.
    fn envelope(&self) -> Envelope {
        let mut client = Client::default();
        let attributes = [
            (Attribute::Addr, self.client.map(|ip| ip.to_string())),
            (Attribute::Helo, self.helo.clone()),
            (Attribute::Name, self.client_name.clone()),
        ];
        for (attribute, value) in attributes {
            if let Some(value) = value {
                client.set(attribute, value.as_bytes());
            }
        }
        let mut envelope = Envelope::new(MessageId::generate(), MailPath::from_address(&self.sender), client);
        envelope.recipients = self.recipients.iter().map(|address| MailPath::from_address(address)).collect();
        envelope
    }
}

/// What all messages of one run share.
struct Run {
    pipeline: Pipeline,
    policy: Policy,
    envelope: Envelope,
    deadline: Duration,
}

/// One inspected message.
struct Report {
    file: String,
    findings: Findings,
    verdict: Verdict,
    /// Ambiguities with a score.
    ambiguities: Vec<(FindingKind, Points)>,
    took: Duration,
}

/// A message being inspected, or the reason why it cannot be read.
type Pending = (String, JoinHandle<io::Result<Report>>);

/// Inspects all messages. Status 0; 65 when something cannot be read, 69 when a configured scanner gives no answer.
pub async fn run(arguments: ScanArgs, settings: Settings) -> ExitCode {
    let pipeline = match Pipeline::new(&settings) {
        Ok(pipeline) => pipeline.with_sha256().with_helpers(Some(Helpers::new(Program::own(), &settings.unpack))),
        Err(mistakes) => return exit::fail("contentd", exit::CONFIG, mistakes),
    };
    let run = Arc::new(Run {
        pipeline,
        policy: settings.policy(),
        envelope: arguments.envelope(),
        deadline: settings.contentd.deadline.0,
    });
    let mut files = Files::new(arguments.files.clone());
    let mut pending: VecDeque<Pending> = VecDeque::new();
    let window = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let mut status = exit::OK;
    loop {
        while pending.len() < window
            && let Some(file) = files.next()
        {
            pending.push_back(start(&run, file));
        }
        // In the order of the arguments, whichever is done first.
        let Some((file, handle)) = pending.pop_front() else { break };
        let report = handle.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let of_file = match report {
            Ok(report) => match print(&report, &run.policy, &arguments) {
                Ok(()) => scanned(&report),
                // Whoever reads our output has gone; that is no error of ours.
                Err(_) => return ExitCode::from(status),
            },
            Err(error) => {
                complain(&file, &error);
                exit::DATA
            }
        };
        status = status.max(of_file);
    }
    ExitCode::from(status)
}

fn start(run: &Arc<Run>, file: Result<PathBuf, (PathBuf, io::Error)>) -> Pending {
    match file {
        Ok(path) => {
            let run = Arc::clone(run);
            (path.display().to_string(), tokio::spawn(inspect(run, path)))
        }
        Err((path, error)) => (path.display().to_string(), tokio::spawn(async { Err(error) })),
    }
}

async fn inspect(run: Arc<Run>, path: PathBuf) -> io::Result<Report> {
    let started = Instant::now();
    let file = path.display().to_string();
    let limit = run.policy.max_size;
    let message = tokio::task::spawn_blocking(move || read(&path, limit)).await.map_err(io::Error::other)??;
    let message = Message::from_bytes(message);
    let findings = run.pipeline.inspect_whole(&run.envelope, &message, started + run.deadline).await;
    let verdict = decide(&findings, &run.policy);
    let ambiguities = run.policy.ambiguity.scores(&findings);
    Ok(Report { file, findings, verdict, ambiguities, took: started.elapsed() })
}

/// The message in a file, without a mailbox's `From ` line. Of one over the size limit only so much that this can be seen.
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(limit.saturating_add(1)).read_to_end(&mut message)?;
    } else {
        std::fs::File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut message)?;
    }
    message.drain(..header::mailbox_line(&message));
    Ok(message)
}

fn scanned(report: &Report) -> u8 {
    let failed = report.findings.scans.iter().any(|scan| matches!(scan.outcome, Outcome::Failed(_)));
    if failed { exit::UNAVAILABLE } else { exit::OK }
}

fn complain(file: &str, error: &io::Error) {
    // Standard error may be closed; the exit status still tells.
    let _ = writeln!(io::stderr().lock(), "contentd: {file}: {error}");
}

fn print(report: &Report, policy: &Policy, arguments: &ScanArgs) -> io::Result<()> {
    let text = match (arguments.json, arguments.explain) {
        (true, _) => format!("{}\n", to_json(report)),
        (false, explain) => {
            let more = if explain { explained(report, policy) } else { String::new() };
            printable(&(summary(report) + &more))
        }
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The report as one JSON object; docs/scan.md describes the fields.
fn to_json(report: &Report) -> Value {
    let Report { file, findings, verdict, ambiguities, took } = report;
    let parts: Vec<_> = findings.parts.iter().filter(|part| part.leaf).map(part_json).collect();
    let symbol = |(kind, points): &(FindingKind, Points)| json!({"name": kind.word(), "score": points.value(), "description": "ambiguity"});
    let rules = findings.spam.iter().flat_map(|spam| &spam.report.hits);
    let rule = |hit: &Hit| json!({"name": hit.rule, "score": hit.score, "description": hit.described()});
    let symbols: Vec<_> = rules.map(rule).chain(symbols_json(findings)).chain(ambiguities.iter().map(symbol)).collect();
    json!({
        "file": file,
        "verdict": verdict.category.word(),
        "action": verdict.destiny.word(),
        "score": findings.spam.as_ref().map(|spam| spam.score),
        "required": findings.spam.as_ref().map(|spam| spam.required),
        "symbols": symbols,
        "parts": parts,
        "findings": findings_json(findings),
        "viruses": findings.viruses(),
        "auth": {"spf": findings.spf, "dkim": null, "dmarc": null, "arc": null},
        "took_us": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    })
}

fn symbols_json(findings: &Findings) -> Vec<Value> {
    let symbol =
        |symbol: &Symbol| json!({"name": symbol.name, "score": symbol.score, "description": symbol.description});
    findings.symbols.iter().map(symbol).collect()
}

fn part_json(part: &Part) -> Value {
    json!({
        "path": part.path,
        "name": part.names.first(),
        "type": declared_type(part),
        "detected_type": part.detected_type,
        "size": part.size,
        "sha256": part.digest.sha256().map(|digest| hex(digest)),
        "container": part.container,
    })
}

/// Without a Content-Type a part is plain text (RFC 2045 section 5.2).
fn declared_type(part: &Part) -> &str {
    part.types.first().map_or("text/plain", String::as_str)
}

/// All facts beside viruses: what was strange, banned files, scanners without an answer.
fn findings_json(findings: &Findings) -> Vec<Value> {
    let fact = |name: &str, part: &str, detail: &str| json!({"name": name, "part": part, "detail": detail});
    let mut facts: Vec<_> = findings.found.iter().map(|f| fact(f.kind.word(), &f.part, &f.detail)).collect();
    for banned in &findings.banned {
        facts.push(fact("banned", &banned.part, &format!("{}: {}", banned.rule, banned.matched)));
    }
    if let Some(refusal) = &findings.checked.refusal {
        facts.push(fact("checks", "", &format!("{}: {}", refusal.rule, refusal.text)));
    }
    facts.extend(findings.checked.notes.iter().map(|note| fact("check-note", "", note)));
    for scan in &findings.scans {
        match &scan.outcome {
            Outcome::Failed(why) => facts.push(fact("scanner-failed", "", &format!("{}: {why}", scan.scanner))),
            Outcome::Incomplete(why) => facts.push(fact("scan-incomplete", "", &format!("{}: {why}", scan.scanner))),
            Outcome::Encrypted(what) => facts.push(fact("encrypted", "", &format!("{}: {what}", scan.scanner))),
            Outcome::Clean | Outcome::Infected(_) => {}
        }
    }
    if findings.out_of_time {
        facts.push(fact("deadline", "", ""));
    }
    facts
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The report for people: a line for the verdict, one for each part and each finding.
fn summary(report: &Report) -> String {
    let Report { file, findings, verdict, took, .. } = report;
    let mut text = format!("{file}: {}, {}", verdict.category.word(), verdict.destiny.word());
    if !verdict.detail.is_empty() {
        text += &format!(" ({})", verdict.detail);
    }
    text += &format!(", {} bytes, {:.1} ms\n", findings.size, took.as_secs_f64() * 1000.0);
    for part in findings.parts.iter().filter(|part| part.leaf) {
        let name = part.names.first().map_or("-", String::as_str);
        let (declared, detected) = (declared_type(part), &part.detected_type);
        text += &format!("  part {} {name} {declared} [{detected}] {} bytes\n", part.path, part.size);
    }
    for finding in findings_json(findings) {
        let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        text += &format!("  finding {} {} {}\n", word("name"), word("part"), word("detail"));
    }
    text
}

/// What the score is made of.
fn explained(report: &Report, policy: &Policy) -> String {
    match &report.findings.spam {
        Some(spam) => {
            let symbols = headers::symbols(&report.findings, &policy.ambiguity);
            explain::text(spam, &symbols, policy.kill_level.0)
        }
        None => "  no spam rules have run\n".to_owned(),
    }
}

/// Names come from the message and must not steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

/// The files to inspect, in the order of the arguments; folders sorted by name, with all that is below them.
struct Files {
    /// The next one is last.
    list: Vec<(PathBuf, bool)>,
}

impl Files {
    fn new(mut arguments: Vec<PathBuf>) -> Files {
        arguments.reverse();
        Files { list: arguments.into_iter().map(|path| (path, true)).collect() }
    }

    /// Puts a folder's entries on the list.
    fn enter(&mut self, folder: &Path) -> io::Result<()> {
        let entries: io::Result<Vec<_>> = std::fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect();
        let mut entries = entries?;
        entries.sort_unstable_by(|a, b| b.cmp(a));
        self.list.extend(entries.into_iter().map(|path| (path, false)));
        Ok(())
    }
}

impl Iterator for Files {
    type Item = Result<PathBuf, (PathBuf, io::Error)>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((path, named)) = self.list.pop() {
            if path == Path::new("-") && named {
                return Some(Ok(path));
            }
            // Below a folder links are not followed: they may go in circles. What is named on the command line is meant.
            let kind = if named { std::fs::metadata(&path) } else { std::fs::symlink_metadata(&path) };
            match kind {
                Ok(kind) if kind.is_dir() => {
                    if let Err(error) = self.enter(&path) {
                        return Some(Err((path, error)));
                    }
                }
                Ok(kind) if kind.is_file() || named => return Some(Ok(path)),
                // A FIFO or socket below a folder is no message and would block.
                Ok(_) => {}
                Err(error) => return Some(Err((path, error))),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_sorted_and_links_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("b/c")).unwrap();
        for name in ["a.eml", "b/2.eml", "b/10.eml", "b/c/x.eml", "d.eml"] {
            std::fs::write(at(name), "x").unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), at("b/loop")).unwrap();
        let found: Vec<_> = Files::new(vec![folder.path().to_owned(), at("missing")])
            .map(|file| match file {
                Ok(path) => path.strip_prefix(folder.path()).unwrap().display().to_string(),
                Err((_, error)) => error.kind().to_string(),
            })
            .collect();
        assert_eq!(found, ["a.eml", "b/10.eml", "b/2.eml", "b/c/x.eml", "d.eml", "entity not found"]);
    }

    #[test]
    fn a_message_is_read_without_its_mailbox_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m");
        std::fs::write(&file, "From a@b Thu\nSubject: x\n\nbody\n").unwrap();
        assert_eq!(read(&file, 1000).unwrap(), b"Subject: x\n\nbody\n");
        assert_eq!(read(&file, 20).unwrap(), b"Subject:");
        assert!(read(folder.path(), 1000).is_err());
    }

    #[test]
    fn a_summary_cannot_steer_a_terminal() {
        let mut findings = Findings { size: 3, ..Findings::default() };
        findings.banned.push(crate::findings::Banned {
            rule: "extension exe".into(),
            part: "1".into(),
            matched: "\x1b[2Ja.exe".into(),
        });
        let policy = Settings::default().policy();
        let verdict = decide(&findings, &policy);
        let report = Report { file: "m".into(), findings, verdict, ambiguities: Vec::new(), took: Duration::ZERO };
        let text = printable(&summary(&report));
        assert!(text.starts_with("m: banned, reject (extension exe: ?[2Ja.exe), 3 bytes"), "{text}");
        assert!(!text.contains('\x1b'));
    }
}
