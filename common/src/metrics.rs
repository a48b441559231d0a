// SPDX-License-Identifier: GPL-3.0-or-later
//! Counters, gauges and histograms of the process and their Prometheus text page.
//! Names: `octroi_<daemon>_<what>_total` for counters, `_seconds` for times.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Bounds of the time histograms, in seconds: from a cached policy answer (50 µs) to a message deadline (90 s).
const SECONDS: [f64; 18] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
    90.0,
];

/// Gives the text page.
#[derive(Debug, Clone)]
pub struct Handle(PrometheusHandle);

impl Handle {
    /// The page in Prometheus text format.
    pub fn render(&self) -> String {
        self.0.render()
    }
}

/// Sets up the recorder of the process; later calls give the same one.
pub fn install() -> Handle {
    static RECORDER: OnceLock<Handle> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .expect("the list of bounds is not empty");
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is in place; /metrics stays empty");
            }
            keep_small(handle.clone());
            Handle(handle)
        })
        .clone()
}

/// Histograms collect single samples until somebody folds them into buckets; without this a daemon that
/// nobody scrapes would grow.
fn keep_small(handle: PrometheusHandle) {
    let folding = std::thread::Builder::new().name("metrics".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(5));
            handle.run_upkeep();
        }
    });
    if let Err(error) = folding {
        tracing::warn!(%error, "no thread to fold metrics");
    }
}
