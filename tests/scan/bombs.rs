// SPDX-License-Identifier: GPL-3.0-or-later
//! Archives and messages made to exhaust memory, time or disk: `contentd scan` answers within its limits, and never "clean".

use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tests::bombs::ALL;
use tests::daemon::binary;

/// Memory that a verdict may cost.
const MEMORY_KIB: u64 = 256 * 1024;

/// Processor time that a verdict may cost. Without optimisation one large member, which is looked at whole, takes longer.
const CPU: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 5 });

/// Those that take long without optimisation; `make bench-bombs` has them.
const HEAVY: [&str; 8] = [
    "zstd, 4 GiB",
    "lz4, 4 GiB",
    "bzip2, 2 GiB",
    "tar.gz, 400 000 files",
    "cpio, 300 000 files",
    "pdf, 40 large streams",
    "100 MB of quoted-printable",
    "100 MB of soft line ends",
];

/// Findings that say more than the category.
const FOUND: [(&str, &str); 10] = [
    ("42.zip", "over-limits"),
    ("30 zips in each other", "over-limits"),
    ("20 000 files in a zip", "over-limits"),
    ("gz of gz of gz", "over-limits"),
    ("gz, 1 GiB", "over-limits"),
    ("zip, shared data", "overlapping-members"),
    ("zip, quoted overlap", "overlapping-members"),
    ("xz, 4 GiB dictionary", "over-limits"),
    ("zstd, 2 GiB window", "over-limits"),
    ("7z, 1.5 GiB dictionary", "over-limits"),
];

/// What one verdict cost.
struct Cost {
    report: Value,
    memory_kib: u64,
    cpu: Duration,
}

/// Runs `contentd scan` on a message, and watches it.
fn scan(folder: &Path, name: &str, message: &[u8]) -> Cost {
    let file = folder.join("message");
    std::fs::write(&file, message).expect("room for it");
    // A pipe that nobody reads while it runs would stop it.
    let report = folder.join("report.json");
    let mut child = Command::new(binary("contentd").expect("make test builds it"))
        .args(["scan", "--json"])
        .arg(&file)
        .current_dir(folder)
        .env("OCTROI__CONTENTD__SPOOL_DIR", folder)
        .stdout(std::fs::File::create(&report).expect("room for it"))
        .stdin(Stdio::null())
        .spawn()
        .expect("it starts");
    let (mut memory_kib, mut cpu) = (0, Duration::ZERO);
    while child.try_wait().expect("it is ours").is_none() {
        if let Some((memory, time)) = cost(&child) {
            (memory_kib, cpu) = (memory_kib.max(memory), cpu.max(time));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = child.wait().expect("it has ended");
    assert!(status.success(), "{name}: {status:?}");
    let report = std::fs::read(report).expect("it was written");
    Cost { report: serde_json::from_slice(&report).expect("one object"), memory_kib, cpu }
}

/// The largest memory so far, and the processor time.
fn cost(child: &Child) -> Option<(u64, Duration)> {
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).ok();
    let status = of("status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let memory = line.split_whitespace().nth(1)?.parse().ok()?;
    let stat = of("stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((memory, Duration::from_millis(ticks * 10)))
}

#[test]
fn bombs_end_within_their_limits_and_are_never_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, make) in ALL.iter().filter(|(name, _)| !cfg!(debug_assertions) || !HEAVY.contains(name)) {
        let Cost { report, memory_kib, cpu } = scan(folder.path(), name, &make());
        let findings = report["findings"].as_array().expect("a list");
        let verdict = report["verdict"].as_str().expect("a category");
        let parts = report["parts"].as_array().map_or(0, Vec::len);
        println!("{name}: {verdict}, {memory_kib} KiB, {cpu:?}, {parts} parts");
        assert!(matches!(verdict, "unchecked" | "bad-header" | "oversized"), "{name}: {verdict} {findings:?}");
        if let Some((_, word)) = FOUND.iter().find(|(bomb, _)| bomb == name) {
            assert!(findings.iter().any(|finding| finding["name"] == *word), "{name}: {findings:?}");
        }
        assert!(memory_kib < MEMORY_KIB, "{name}: {memory_kib} KiB");
        assert!(cpu < CPU, "{name}: {cpu:?}");
    }
}
