// SPDX-License-Identifier: GPL-3.0-or-later
//! With a real ICAP server, c-icap in front of clamd: what it finds, and what it passes over in silence. What `contentd engines` says of that.

use std::process::Command;

use crate::{Inspector, US, engines::engine};
use tests::c_icap::CIcap;
use tests::clamd::{Clamd, Setup};
use tests::daemon::binary;
use tests::letters::{eicar, zipped};

const VIRUS: &str = "virus reject virus";
const CLEAN: &str = "clean pass clean";

fn section(icap: &CIcap, lines: &str) -> String {
    format!("address = \"{}\"\nservice = \"avscan\"\n{lines}", icap.address())
}

fn inspector(icap: &CIcap, lines: &str) -> Inspector {
    engine("icap", &section(icap, lines), "")
}

fn attached(name: &str, content: Vec<u8>) -> Vec<u8> {
    US.attached("invoice", name, content).bytes
}

#[tokio::test]
async fn viruses_are_found_by_c_icap() {
    let clamd = Clamd::start();
    let icap = CIcap::start(&clamd, "");
    for method in ["respmod", "reqmod"] {
        let inspector = inspector(&icap, &format!("method = \"{method}\""));
        // Several on one connection, with and without what the preview has not held.
        for _ in 0..3 {
            assert_eq!(inspector.verdict(&attached("a.bin", eicar())).await, VIRUS, "{method} {}", icap.log());
            assert_eq!(inspector.verdict(&attached("a.zip", zipped("a.com", &eicar()))).await, VIRUS, "{method}");
            assert_eq!(inspector.verdict(&attached("a.bin", vec![b'x'; 100])).await, CLEAN, "{method}");
            assert_eq!(inspector.verdict(&attached("a.bin", vec![b'x'; 500_000])).await, CLEAN, "{method}");
        }
        let (findings, _) = inspector.inspect(&attached("a.bin", eicar())).await;
        assert_eq!(findings.viruses(), ["Eicar-Test-Signature.UNOFFICIAL"]);
        assert!(inspector.pipeline.ready().await.unwrap().starts_with("it: C-ICAP/"));
    }
}

/// As Debian has it set up, c-icap begins to give back what it gets before it has all of it, goes on only when more comes, and cuts it short when
/// there is a virus after all.
#[tokio::test]
async fn what_comes_back_before_all_is_sent_is_compared() {
    let clamd = Clamd::start();
    let streams = "virus_scan.SendPercentData 5\nvirus_scan.StartSendPercentDataAfter 1M\nvirus_scan.MaxObjectSize 9M";
    let icap = CIcap::start(&clamd, streams);
    // Nothing that could be made smaller, so that the archive is large, too.
    let noise: Vec<u8> =
        (0..4_000_000u32).flat_map(|number| [(number.wrapping_mul(2_654_435_761) >> 13) as u8]).collect();
    for method in ["respmod", "reqmod"] {
        let inspector = inspector(&icap, &format!("method = \"{method}\""));
        for _ in 0..2 {
            assert_eq!(inspector.verdict(&attached("a.bin", noise.clone())).await, CLEAN, "{method} {}", icap.log());
            let infected = [eicar(), noise.clone()].concat();
            assert_eq!(inspector.verdict(&attached("a.bin", infected)).await, VIRUS, "{method} {}", icap.log());
        }
    }
}

/// Runs `contentd engines` with these sections; status and what it wrote.
fn asked(sections: &str, arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("octroi.toml");
    std::fs::write(&file, sections).expect("written");
    let mut command = Command::new(binary("contentd").expect("built"));
    let output = command.arg("--config").arg(&file).arg("engines").args(arguments).output().expect("run");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn engines_that_find_are_told_from_those_that_do_not() {
    let clamd = Clamd::start();
    let icap = CIcap::start(&clamd, "virus_scan.MaxObjectSize 3M");
    let direct = format!("[antivirus.clamd]\naddress = \"{}\"\n", clamd.address());
    let (status, told) = asked(&direct, &["--largest", "5MB"]);
    assert_eq!(status, 0, "{told}");
    assert!(
        told.contains("clamd: ClamAV 1.") && told.contains("finds the test virus, in archives of up to 5MB"),
        "{told}"
    );

    // The server says "no modification needed" of what it has not looked at.
    let behind = format!("[antivirus.it]\nkind = \"icap\"\n{}", section(&icap, ""));
    let (status, told) = asked(&behind, &["--largest", "5MB"]);
    assert_eq!(status, 78, "{told}");
    assert!(told.contains("calls one of 4MB clean: set antivirus.it.max_size = \"2MB\""), "{told}");
    let (status, told) = asked(&(behind.clone() + "max_size = \"2MB\"\n"), &["--largest", "5MB"]);
    assert_eq!(status, 0, "{told}");
    assert!(told.contains("what is larger is unchecked (larger than max_size 2MB)"), "{told}");

    // clamd has no signature for it, which no answer of its own shows.
    let blind = Clamd::start_with(&Setup { blind: true, ..Setup::default() });
    let gone = "[antivirus.gone]\nkind = \"sssp\"\naddress = \"unix:/nonexistent/sssp\"\n";
    let both = format!("[antivirus.clamd]\naddress = \"{}\"\n{gone}", blind.address());
    let (status, told) = asked(&both, &["--json", "--largest", "1MB"]);
    assert_eq!(status, 69, "{told}");
    let results: Vec<serde_json::Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let results: Vec<_> = results.iter().map(|one| (&one["engine"], &one["result"], &one["good"])).collect();
    let expected =
        [("clamd", "blind", false), ("gone", "fails", false)].map(|(a, b, c)| (a.into(), b.into(), c.into()));
    assert_eq!(results, expected.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>(), "{told}");

    let (status, told) = asked("", &[]);
    assert_eq!((status, told.contains("no engine is configured")), (78, true), "{told}");
}

/// c-icap without its scanner lets everything pass: only a virus shows it.
#[test]
fn a_server_without_its_scanner_is_found_out() {
    let clamd = {
        let mut clamd = Clamd::start();
        clamd.stop();
        clamd
    };
    let icap = CIcap::start(&clamd, "");
    let (status, told) = asked(&format!("[antivirus.it]\nkind = \"icap\"\n{}", section(&icap, "")), &[]);
    assert_eq!(status, 69, "{told}");
    assert!(told.contains("it: does NOT find the test virus (clean)"), "{told} {}", icap.log());
}
