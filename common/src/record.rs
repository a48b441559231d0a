// SPDX-License-Identifier: GPL-3.0-or-later
//! The log: set-up, and the two line formats. One event per decision with fixed field names; docs/logging.md is the
//! contract. Values come from strangers, so both formats escape whatever could end a line or look like a field.

use std::fmt::{self, Write};
use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, format};
use tracing_subscriber::registry::LookupSpan;

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

/// Sends the log of this process to standard error. Under systemd the journal adds the time, and lines begin with
/// the syslog priority that sd-daemon(3) describes. A second call, and a level that [`LogSettings::check`] refuses, change nothing.
pub fn init(settings: &LogSettings) {
    let Ok(filter) = settings.filter() else {
        return;
    };
    let journal = std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    // An error says that a log is set up already, as in tests that start several daemons in one process.
    let _ = match settings.format {
        LogFormat::Logfmt => builder.event_format(Logfmt { journal }).try_init(),
        LogFormat::Json => builder
            .event_format(format().json().flatten_event(true).with_current_span(false).with_span_list(false))
            .try_init(),
    };
}

/// `time=… level=… msg=… name=value …` on one line.
struct Logfmt {
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (level, priority) = match *event.metadata().level() {
            Level::ERROR => ("error", 3),
            Level::WARN => ("warn", 4),
            Level::INFO => ("info", 6),
            Level::DEBUG => ("debug", 7),
            Level::TRACE => ("trace", 7),
        };
        if self.journal {
            write!(writer, "<{priority}>level={level}")?;
        } else {
            writer.write_str("time=")?;
            SystemTime.format_time(&mut writer)?;
            write!(writer, " level={level}")?;
        }
        // Room for a decision, whose fields would make it grow several times.
        let mut pairs = Pairs { line: String::with_capacity(512) };
        event.record(&mut pairs);
        writeln!(writer, "{}", pairs.line)
    }
}

/// Collects the fields of one event.
struct Pairs {
    line: String,
}

impl Pairs {
    fn pair(&mut self, field: &Field, value: &str) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.line.push(' ');
        self.line.push_str(name);
        self.line.push('=');
        push_value(&mut self.line, value);
    }
}

impl Visit for Pairs {
    fn record_u64(&mut self, field: &Field, value: u64) {
        // Digits need no quotes. Writing to a String cannot fail.
        let _ = write!(self.line, " {}={value}", field.name());
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
    // Most values are ASCII, and this is done for every field of every decision.
    let plain_byte = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    let plain =
        |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '"' | '=' | '\\' | '\u{2028}' | '\u{2029}');
    if !value.is_empty() && (value.bytes().all(plain_byte) || value.chars().all(plain)) {
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
    fn levels_are_checked() {
        for (level, good) in
            [("info", true), ("warn,policyd=debug", true), ("inof", false), ("", false), ("info,x=y=z", false)]
        {
            let settings = LogSettings { level: level.to_owned(), ..LogSettings::default() };
            assert_eq!(settings.check().is_ok(), good, "{level:?}");
        }
    }
}
