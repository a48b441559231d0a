// SPDX-License-Identifier: GPL-3.0-or-later
//! Asks the Postfix of this host for its configuration, by postconf(1), which only reads. What it says is judged by the daemons'
//! `check --postfix`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Why Postfix could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum PostconfError {
    /// postconf cannot be started.
    #[error("cannot run postconf: {0}")]
    Run(#[from] std::io::Error),
    /// postconf reported an error.
    #[error("postconf failed: {0}")]
    Failed(String),
}

/// What postconf prints for these arguments, of the installed Postfix or of the one configured in `folder`.
pub fn postconf(folder: Option<&Path>, arguments: &[&str]) -> Result<String, PostconfError> {
    // Debian has it in a folder that is not in everybody's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("postconf");
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    if let Some(folder) = folder {
        command.arg("-c").arg(folder);
    }
    let output = command.args(arguments).output()?;
    if !output.status.success() {
        return Err(PostconfError::Failed(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A service of master.cf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `smtp`, `127.0.0.1:10025`.
    pub name: String,
    /// `inet`, `unix`.
    pub kind: String,
    /// Most processes; none: the usual number.
    pub processes: Option<usize>,
    /// The program.
    pub program: String,
}

impl Service {
    /// How `postconf -P` calls it: `smtp/inet`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.name, self.kind)
    }
}

/// The services of master.cf, from the text of `postconf -M`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Services(Vec<Service>);

impl Services {
    /// Reads the text; lines that are no services are left out.
    pub fn parse(text: &str) -> Self {
        let service = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let word = |at: usize| words.get(at).map(|word| (*word).to_owned());
            Some(Service { name: word(0)?, kind: word(1)?, processes: word(6)?.parse().ok(), program: word(7)? })
        };
        Self(text.lines().filter_map(service).collect())
    }

    /// Those that receive mail by SMTP.
    pub fn smtpd(&self) -> impl Iterator<Item = &Service> {
        self.0.iter().filter(|service| service.program == "smtpd")
    }
}

/// A time of Postfix: a number with an optional unit, seconds without one (postconf(5)).
pub fn seconds(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    Some(Duration::from_secs(digits.parse::<u64>().ok()?.checked_mul(unit)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_times_are_read() {
        let text = "smtp       inet  n       -       y       -       20       smtpd -o x=y\npickup unix n - y 60 1 pickup\n\n# x\n";
        let services = Services::parse(text);
        let found: Vec<_> = services.smtpd().map(|service| (service.path(), service.processes)).collect();
        assert_eq!(found, [("smtp/inet".to_owned(), Some(20))]);
        assert_eq!(seconds("5"), Some(Duration::from_secs(5)));
        assert_eq!(seconds("2m"), Some(Duration::from_secs(120)));
        assert_eq!([seconds("x"), seconds("5y"), seconds("99999999999999999999w")], [None; 3]);
    }
}
