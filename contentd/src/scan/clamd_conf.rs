// SPDX-License-Identifier: GPL-3.0-or-later
//! clamd's configuration file (clamd.conf(5)): which limits it has, and what it would pass over without a word. Pure.
//!
//! A file that speaks of another socket belongs to another clamd and says nothing about ours.

use std::path::Path;

use common::address::Address;
use common::units::Size;

use super::settings::EngineSettings;
use crate::budget::Limits;
use crate::unpack::alike;

/// clamd's own limits. 0 in the file stands for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// StreamMaxLength: longest stream.
    pub stream: u64,
    /// MaxFileSize: larger files are passed over.
    pub file: u64,
    /// MaxScanSize: data scanned of one file and all that is in it.
    pub scan: u64,
    /// MaxRecursion: archives within archives.
    pub recursion: u64,
    /// MaxFiles: files within one archive.
    pub files: u64,
    /// MaxScanTime, in milliseconds.
    pub milliseconds: u64,
    /// AlertExceedsMax: it says when a limit was passed.
    pub alerts: bool,
    /// ScanMail: it reads mail.
    pub mail: bool,
    /// ScanArchive: it opens archives.
    pub archives: bool,
}

/// Without an entry in the file: the defaults of clamd 1.4. Older ones had smaller limits, but their packages write all of them out.
const DEFAULTS: ServerLimits = ServerLimits {
    stream: 100 << 20,
    file: 100 << 20,
    scan: 400 << 20,
    recursion: 17,
    files: 10_000,
    milliseconds: 120_000,
    alerts: false,
    mail: true,
    archives: true,
};

impl ServerLimits {
    /// Reads the text of a clamd.conf, if it is that of the clamd at this address.
    pub fn read(text: &str, address: &Address) -> Option<ServerLimits> {
        let (mut limits, mut sockets, mut ports) = (DEFAULTS, Vec::new(), Vec::new());
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
            match key {
                "LocalSocket" => sockets.push(value.trim_matches('"')),
                "TCPSocket" => ports.push(value),
                "StreamMaxLength" => set(&mut limits.stream, bytes(value)),
                "MaxFileSize" => set(&mut limits.file, bytes(value)),
                "MaxScanSize" => set(&mut limits.scan, bytes(value)),
                "MaxRecursion" => set(&mut limits.recursion, bytes(value)),
                "MaxFiles" => set(&mut limits.files, bytes(value)),
                "MaxScanTime" => set(&mut limits.milliseconds, bytes(value)),
                "AlertExceedsMax" => limits.alerts = yes(value),
                "ScanMail" => limits.mail = yes(value),
                "ScanArchive" => limits.archives = yes(value),
                _ => {}
            }
        }
        let ours = match address {
            Address::Unix(path) => sockets.iter().any(|socket| same_path(path, Path::new(socket))),
            Address::Tcp { port, .. } => {
                address.is_loopback() && ports.iter().any(|text| text.parse::<u16>().is_ok_and(|own| own == *port))
            }
        };
        ours.then_some(limits)
    }

    /// Which limit a sample of this size is over, if any.
    pub(super) fn over(&self, size: u64, streamed: bool) -> Option<String> {
        let limits = [
            ("MaxFileSize", self.file),
            ("MaxScanSize", self.scan),
            // Streams have one limit more.
            ("StreamMaxLength", if streamed { self.stream } else { u64::MAX }),
        ];
        let (name, limit) = limits.into_iter().filter(|(_, limit)| size > *limit).min_by_key(|(_, limit)| *limit)?;
        Some(format!("larger than clamd's {name} {}", Size(limit)))
    }

    /// Whether it surely opens an archive that stays within the bounds of `unpack::alike`, with everything that is in it.
    pub(super) fn open_archives(&self) -> bool {
        // What lies around and in between counts, too.
        let room = self.file >= alike::BYTES && self.scan >= 2 * alike::BYTES;
        self.archives && room && self.recursion > 2 * alike::DEPTH as u64 && self.files > 2 * alike::MEMBERS as u64
    }

    /// What clamd would pass over of messages that contentd takes, one line each. `largest` is the largest message.
    pub fn gaps(&self, engine: &str, settings: &EngineSettings, unpack: &Limits, largest: Size) -> Vec<String> {
        let mut gaps = Vec::new();
        let mut add = |found: bool, text: String| {
            if found {
                gaps.push(format!("antivirus.{engine}: {text}"));
            }
        };
        let file = self.file.min(self.scan);
        let most = largest.0.max(unpack.member_bytes.0);
        add(
            file < most,
            format!(
                "clamd's MaxFileSize and MaxScanSize end at {}, parts and members of archives may have {}: what is larger is unchecked",
                Size(file),
                Size(most)
            ),
        );
        add(
            self.stream < file,
            format!(
                "clamd's StreamMaxLength is {}, its MaxFileSize {}: large parts are streamed, and are unchecked",
                Size(self.stream),
                Size(file)
            ),
        );
        let more = settings.max_size.filter(|size| size.0 > file);
        if let Some(size) = more {
            add(
                true,
                format!("max_size is {size}, clamd passes over what is larger than {}: that is unchecked", Size(file)),
            );
        }
        let silent = "clamd passes over the rest without a word; AlertExceedsMax yes makes it say so";
        let quiet = !self.alerts;
        add(
            quiet,
            "AlertExceedsMax is no: clamd says OK to what exceeds its limits inside archives and documents".to_owned(),
        );
        add(
            quiet && self.recursion < unpack.depth as u64,
            format!("MaxRecursion is {}, unpack.max_depth {}: {silent}", self.recursion, unpack.depth),
        );
        add(
            quiet && self.files < unpack.objects as u64,
            format!("MaxFiles is {}, unpack.max_objects {}: {silent}", self.files, unpack.objects),
        );
        let time = u128::from(self.milliseconds);
        add(
            quiet && time < settings.scan_timeout.0.as_millis(),
            format!("MaxScanTime is {} ms, scan_timeout {}: {silent}", self.milliseconds, settings.scan_timeout),
        );
        add(!self.mail, "ScanMail is no: clamd does not see the texts of messages".to_owned());
        add(!self.archives, "ScanArchive is no: clamd does not open what contentd cannot open".to_owned());
        gaps
    }
}

/// What `contentd check` has to say about the engines.
pub fn check(settings: &super::AntivirusSettings, unpack: &Limits, largest: Size) -> Vec<String> {
    let mut gaps = Vec::new();
    for (name, engine) in &settings.engines {
        if engine.kind_of(name) != Some(super::settings::Kind::Clamd) {
            continue;
        }
        let path = engine.clamd_conf_path();
        let address = engine.clamd_address();
        let limits = std::fs::read_to_string(path).map(|text| ServerLimits::read(&text, &address));
        let unknown = |why: String| {
            format!(
                "antivirus.{name}: clamd's limits are not known ({why}): parts over 25 MB are unchecked unless max_size says how much clamd takes"
            )
        };
        match limits {
            Ok(Some(limits)) => gaps.extend(limits.gaps(name, engine, unpack, largest)),
            Ok(None) => gaps.push(unknown(format!("{} names another socket than {address}", path.display()))),
            Err(error) => gaps.push(unknown(format!("{}: {error}", path.display()))),
        }
    }
    gaps
}

fn set(limit: &mut u64, value: Option<u64>) {
    if let Some(value) = value {
        *limit = if value == 0 { u64::MAX } else { value };
    }
}

/// A number with K, M or G behind it.
fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 1 << 10),
        (at, 'm' | 'M') => (&text[..at], 1 << 20),
        (at, 'g' | 'G') => (&text[..at], 1 << 30),
        _ => (text, 1u64),
    };
    digits.parse::<u64>().ok().map(|number| number.saturating_mul(unit))
}

fn yes(text: &str) -> bool {
    ["yes", "true", "1"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether two paths are one file; `/var/run` is a link to `/run` on most systems.
fn same_path(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let plain = |path: &Path| {
        path.strip_prefix("/var/run").map_or_else(|_| path.to_owned(), |rest| Path::new("/run").join(rest))
    };
    one == other || plain(one) == plain(other) || real(one) == real(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEBIAN: &str = "# comment\nLocalSocket /var/run/clamav/clamd.ctl\nMaxScanSize 100M\nMaxFileSize 25M\nMaxRecursion 16\n\
        MaxFiles 10000\nStreamMaxLength 25M\nMaxScanTime 120000\nScanMail true\nTCPSocket 3310\n";

    fn debian() -> ServerLimits {
        ServerLimits::read(DEBIAN, &Address::Unix("/run/clamav/clamd.ctl".into())).unwrap()
    }

    #[test]
    fn limits_are_read_from_the_file_of_this_clamd_only() {
        assert_eq!((debian().file, debian().scan, debian().alerts), (25 << 20, 100 << 20, false));
        let of = |address: &str| ServerLimits::read(DEBIAN, &address.parse().unwrap());
        assert!(of("127.0.0.1:3310").is_some());
        for other in ["127.0.0.1:3311", "192.0.2.1:3310", "unix:/run/other.ctl"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert!(debian().open_archives());
        assert!(!ServerLimits { archives: false, ..debian() }.open_archives());
        assert!(!ServerLimits { file: 10 << 20, ..debian() }.open_archives());
        let none =
            ServerLimits::read("LocalSocket /s\nMaxFileSize 0\nAlertExceedsMax yes", &"unix:/s".parse().unwrap())
                .unwrap();
        assert_eq!((none.file, none.alerts, none.scan), (u64::MAX, true, 400 << 20));
    }

    #[test]
    fn the_smallest_limit_that_is_passed_is_named() {
        let limits = debian();
        assert_eq!(limits.over(25 << 20, true), None);
        assert_eq!(limits.over(40_000_000, false).unwrap(), "larger than clamd's MaxFileSize 25MiB");
        let streams = ServerLimits { stream: 1 << 20, ..limits };
        assert_eq!(streams.over(2 << 20, true).unwrap(), "larger than clamd's StreamMaxLength 1MiB");
        assert_eq!(streams.over(2 << 20, false), None);
    }

    #[test]
    fn what_clamd_would_pass_over_is_told() {
        let (settings, unpack) = (EngineSettings::default(), Limits::default());
        let gaps = debian().gaps("clamd", &settings, &unpack, Size(100_000_000));
        assert!(gaps[0].starts_with("antivirus.clamd: clamd's MaxFileSize and MaxScanSize end at 25MiB, "), "{gaps:?}");
        assert!(gaps.iter().any(|gap| gap.contains("AlertExceedsMax is no")), "{gaps:?}");
        let careful = ServerLimits { alerts: true, file: 1 << 30, scan: 1 << 30, stream: 1 << 30, ..debian() };
        assert_eq!(careful.gaps("clamd", &settings, &unpack, Size(100_000_000)), [""; 0]);
        let blind = ServerLimits { mail: false, archives: false, ..careful };
        assert_eq!(blind.gaps("clamd", &settings, &unpack, Size(1)).len(), 2);
        let shallow = ServerLimits { alerts: false, recursion: 5, files: 10, milliseconds: 10, ..careful };
        assert_eq!(shallow.gaps("clamd", &settings, &unpack, Size(1)).len(), 4);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text: String) {
            ServerLimits::read(&text, &Address::Unix("/s".into()));
        }
    }
}
