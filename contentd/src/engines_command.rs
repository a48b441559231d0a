// SPDX-License-Identifier: GPL-3.0-or-later
//! `contentd engines`: asks every antivirus engine for its version and whether it finds the test virus, by itself and in archives as large as a
//! message may be. For the day when engines are set up, and for monitoring.

use crate::config::Settings;
use crate::scan::engines::Engines;
use crate::scan::probe::{Probe, ProbeResult};
use common::exit;
use common::units::Size;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::ExitCode;

/// Arguments of `contentd engines`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct EnginesArgs {
    /// Print one JSON object a line, per engine
    #[arg(long)]
    pub json: bool,
    /// Length of the largest archive [default: contentd.max_size]
    #[arg(long, value_name = "SIZE")]
    pub largest: Option<Size>,
}

/// Asks all engines. Status 0: each finds what it says it looks at; 69: one gives no answer or finds nothing; 78: one passes over
/// what is large and calls it clean.
pub async fn run(arguments: EnginesArgs, settings: Settings) -> ExitCode {
    let engines = Engines::new(&settings.antivirus, &settings.contentd.place().dir);
    let probes = engines.probe(arguments.largest.unwrap_or(settings.contentd.max_size).0).await;
    if probes.is_empty() {
        return exit::fail("contentd", exit::CONFIG, "no engine is configured: there is no section [antivirus.NAME]");
    }
    let status = probes.iter().map(status).max_by_key(|status| (*status == exit::UNAVAILABLE, *status));
    let text = probes.iter().map(|probe| if arguments.json { format!("{}\n", to_json(probe)) } else { told(probe) });
    let text: String = text.collect();
    let mut out = io::stdout().lock();
    // Whoever reads our output may have gone; the exit status still tells.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ExitCode::from(status.unwrap_or(exit::OK))
}

fn status(probe: &Probe) -> u8 {
    match probe.result {
        ProbeResult::Finds { .. } | ProbeResult::OpensNothing => exit::OK,
        ProbeResult::PassesOver { .. } => exit::CONFIG,
        ProbeResult::Blind(_) | ProbeResult::Fails(_) => exit::UNAVAILABLE,
    }
}

/// One or two lines about an engine.
fn told(probe: &Probe) -> String {
    let name = &probe.engine;
    let size = |bytes: u64| Size(bytes).to_string();
    let within = |most: u64| match most {
        0 => String::new(),
        most => format!(", in archives of up to {}, too", size(most)),
    };
    let result = match &probe.result {
        ProbeResult::Finds { most, then: None } => format!("finds the test virus{}", within(*most)),
        ProbeResult::Finds { most, then: Some(why) } => {
            format!("finds the test virus{}; what is larger is unchecked ({why})", within(*most))
        }
        ProbeResult::OpensNothing => {
            "finds the test virus; it opens no archives, so what it does with large pieces cannot be told".to_owned()
        }
        ProbeResult::PassesOver { most, missed } => {
            let (within, missed, most) = (within(*most), size(*missed), size(*most));
            format!(
                "finds the test virus{within}, and calls one of {missed} clean: set antivirus.{name}.max_size = \"{most}\", or raise its own limits"
            )
        }
        ProbeResult::Blind(said) => {
            format!("does NOT find the test virus ({said}): has it signatures, and is the scanner behind it there?")
        }
        ProbeResult::Fails(why) => format!("gives no answer: {why}"),
    };
    let version = probe.version.as_deref().filter(|version| !version.is_empty());
    let version = version.map_or_else(String::new, |version| format!("{name}: {version}\n"));
    crate::scan_command::printable(&format!("{version}{name}: {result}\n"))
}

fn to_json(probe: &Probe) -> Value {
    let (word, most, more) = match &probe.result {
        ProbeResult::Finds { most, then } => ("finds", Some(*most), json!({ "larger": then })),
        ProbeResult::OpensNothing => ("opens-nothing", None, json!({})),
        ProbeResult::PassesOver { most, missed } => ("passes-over", Some(*most), json!({ "missed": missed })),
        ProbeResult::Blind(said) => ("blind", None, json!({ "said": said })),
        ProbeResult::Fails(why) => ("fails", None, json!({ "why": why })),
    };
    let mut all = json!({
        "engine": probe.engine, "version": probe.version, "result": word, "good": probe.result.is_good(), "largest": most,
    });
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(result: ProbeResult) -> Probe {
        Probe { engine: "it".to_owned(), version: Some("It 1.0".to_owned()), result }
    }

    #[test]
    fn what_is_told() {
        for (result, line, code) in [
            (ProbeResult::Finds { most: 4_000_000, then: None }, "finds the test virus, in archives of up to 4", 0),
            (ProbeResult::Finds { most: 0, then: Some("too large".into()) }, "finds the test virus; what is larger", 0),
            (ProbeResult::PassesOver { most: 4_000_000, missed: 8_000_000 }, "set antivirus.it.max_size = \"4", 78),
            (ProbeResult::OpensNothing, "it opens no archives", 0),
            (ProbeResult::Blind("clean".into()), "does NOT find the test virus (clean)", 69),
            (ProbeResult::Fails("no connection".into()), "gives no answer: no connection", 69),
        ] {
            let probe = probe(result);
            let told = told(&probe);
            assert!(told.starts_with("it: It 1.0\nit: ") && told.contains(line), "{told}");
            assert_eq!(status(&probe), code);
            let json = to_json(&probe);
            assert_eq!(json["good"], code == 0);
            assert_eq!(json["engine"], "it");
        }
    }

    #[test]
    fn the_advice_is_a_size_that_the_configuration_takes() {
        let told = told(&probe(ProbeResult::PassesOver { most: 4_000_000, missed: 8_000_000 }));
        let size = told.split('"').nth(1).unwrap();
        assert_eq!(size.parse::<Size>().unwrap().0, 4_000_000, "{told}");
    }
}
