// SPDX-License-Identifier: GPL-3.0-or-later
//! The log: set-up, and the two line formats. One event per decision with fixed field names; docs/logging.md is the
//! contract. Values come from strangers, so both formats escape whatever could end a line or look like a field.

mod lines;

use std::cell::Cell;
use std::fmt::{self, Write};
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, format};
use tracing_subscriber::registry::LookupSpan;

pub use lines::DECISION;
use lines::Lines;

/// How long the end of a process may wait for its last lines to be read.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The line format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `name=value` pairs, values quoted where needed.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,policyd=debug`.
    pub level: String,
    /// Line format.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Logfmt }
    }
}

impl LogSettings {
    /// Says what is wrong with the level, if anything.
    pub fn check(&self) -> Result<(), String> {
        self.filter().map(drop)
    }

    fn filter(&self) -> Result<EnvFilter, String> {
        // A bare word that is no level would be taken as the name of a module, and silence everything.
        let first = self.level.split(',').next().unwrap_or_default();
        if !first.contains('=') && first.parse::<Level>().is_err() && first != "off" {
            return Err(format!("{:?} is not a log level; use error, warn, info, debug or trace", self.level));
        }
        EnvFilter::builder().parse(&self.level).map_err(|error| format!("{:?} is not a log level: {error}", self.level))
    }
}

/// The lines of this process, once the log is set up.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Sends the log of this process to standard error. Under systemd the journal adds the time, and lines begin with
/// the syslog priority that sd-daemon(3) describes. A second call, and a level that [`LogSettings::check`] refuses, change nothing.
/// Decisions are written some milliseconds later: see [`LastLines`].
pub fn init(settings: &LogSettings) {
    let Ok(filter) = settings.filter() else {
        return;
    };
    let journal = std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let logfmt = Logfmt { journal };
    let json = || format().json().flatten_event(true).with_current_span(false).with_span_list(false);
    // An error says that a log is set up already, as in tests that start several daemons in one process.
    let _ = match (gathering(), settings.format) {
        (Some(lines), LogFormat::Logfmt) => builder.with_writer(lines).event_format(logfmt).try_init(),
        (Some(lines), LogFormat::Json) => builder.with_writer(lines).event_format(json()).try_init(),
        (None, LogFormat::Logfmt) => builder.with_writer(std::io::stderr).event_format(logfmt).try_init(),
        (None, LogFormat::Json) => builder.with_writer(std::io::stderr).event_format(json()).try_init(),
    };
}

/// The way to standard error through a thread; none when there is no thread to be had: then every line is written where it is made.
fn gathering() -> Option<Lines> {
    if let Some(lines) = LINES.get() {
        return Some(lines.clone());
    }
    let lines = Lines::start(std::io::stderr()).ok()?;
    if LINES.set(lines.clone()).is_ok() {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            flush();
            before(panic);
        }));
    }
    Some(lines)
}

/// Waits until the lines of this process are written, for two seconds at most.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush(LAST_LINES);
    }
}

/// Held by `main` from its begin: at its end, behind everything else, the last lines are written.
#[derive(Debug)]
pub struct LastLines;

impl Drop for LastLines {
    fn drop(&mut self) {
        flush();
    }
}

/// `time=… level=… msg=… name=value …` on one line.
struct Logfmt {
    journal: bool,
}

thread_local! {
    /// Memory for a line, used again for the next one. A value that logs while it is written finds it empty, and nothing worse.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
    /// The second in which a line was written last, since 1970 and as text.
    static SECOND: Cell<(u64, String)> = const { Cell::new((0, String::new())) };
}

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (level, priority) = match *event.metadata().level() {
            Level::ERROR => ("level=error", "<3>"),
            Level::WARN => ("level=warn", "<4>"),
            Level::INFO => ("level=info", "<6>"),
            Level::DEBUG => ("level=debug", "<7>"),
            Level::TRACE => ("level=trace", "<7>"),
        };
        let mut line = LINE.take();
        line.clear();
        if self.journal {
            line.push_str(priority);
        } else {
            push_time(&mut line, SystemTime::now());
        }
        line.push_str(level);
        let mut pairs = Pairs { line };
        event.record(&mut pairs);
        let mut line = pairs.line;
        line.push('\n');
        let written = writer.write_str(&line);
        LINE.set(line);
        written
    }
}

/// `time=`, the time in UTC as RFC 3339 has it with microseconds, and a blank.
fn push_time(line: &mut String, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut second, mut text) = SECOND.take();
    if second != since.as_secs() || text.is_empty() {
        text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(since.as_secs())).to_string();
        second = since.as_secs();
    }
    line.push_str("time=");
    line.push_str(text.trim_end_matches('Z'));
    line.push('.');
    let mut unit = 100_000;
    while unit > 0 {
        line.push(char::from(b'0' + (since.subsec_micros() / unit % 10) as u8));
        unit /= 10;
    }
    line.push_str("Z ");
    SECOND.set((second, text));
}

/// Collects the fields of one event.
struct Pairs {
    line: String,
}

impl Pairs {
    fn pair(&mut self, field: &Field, value: &str) {
        self.name(field);
        push_value(&mut self.line, value);
    }

    fn name(&mut self, field: &Field) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.line.push(' ');
        self.line.push_str(name);
        self.line.push('=');
    }
}

impl Visit for Pairs {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        // Digits need no quotes. Writing to a String cannot fail.
        let _ = write!(self.line, "{value}");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.pair(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.pair(field, &format!("{value:?}"));
    }
}

/// A value as it is when it is plain, else in double quotes with escapes, so that no value can end the line or pass for another field.
fn push_value(line: &mut String, value: &str) {
    // Most values are ASCII, and this is done for every field of every decision: without a branch for each byte.
    let plain_byte = |byte: u8| byte.is_ascii_graphic() & (byte != b'"') & (byte != b'=') & (byte != b'\\');
    let all_plain = || value.bytes().fold(true, |all, byte| all & plain_byte(byte));
    let plain =
        |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '"' | '=' | '\\' | '\u{2028}' | '\u{2029}');
    if !value.is_empty() && (all_plain() || value.chars().all(plain)) {
        line.push_str(value);
        return;
    }
    line.push('"');
    for c in value.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(line, "\\u{{{:x}}}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_strangers_stay_inside_their_field() {
        for (value, written) in [
            ("a@b.example", "a@b.example"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("x level=error", "\"x level=error\""),
            ("a\nlevel=error", "\"a\\nlevel=error\""),
            ("q\"q\\", "\"q\\\"q\\\\\""),
            ("\u{1b}[0m", "\"\\u{1b}[0m\""),
        ] {
            let mut line = String::new();
            push_value(&mut line, value);
            assert_eq!(line, written);
        }
    }

    #[test]
    fn the_time_is_that_of_rfc_3339() {
        for (second, micros, written) in [
            (0, 0, "time=1970-01-01T00:00:00.000000Z "),
            (1_795_360_863, 1_020, "time=2026-11-22T15:21:03.001020Z "),
            (1_795_360_863, 999_999, "time=2026-11-22T15:21:03.999999Z "),
            (1_795_360_864, 7, "time=2026-11-22T15:21:04.000007Z "),
        ] {
            let mut line = String::new();
            push_time(&mut line, UNIX_EPOCH + Duration::from_secs(second) + Duration::from_micros(micros));
            assert_eq!(line, written);
        }
    }

    #[test]
    fn levels_are_checked() {
        for (level, good) in
            [("info", true), ("warn,policyd=debug", true), ("inof", false), ("", false), ("info,x=y=z", false)]
        {
            let settings = LogSettings { level: level.to_owned(), ..LogSettings::default() };
            assert_eq!(settings.check().is_ok(), good, "{level:?}");
        }
    }
}
