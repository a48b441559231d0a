// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi migrate`: brings the schema of the store up to date, for administrators who give the daemons no right to do so.

use std::path::Path;
use std::process::ExitCode;

use common::config::{Mistakes, Source};
use common::exit::{self, fail};
use common::store::{Store, StoreError, StoreSettings};

pub(crate) fn run(config: Option<&Path>) -> ExitCode {
    let settings = match settings(config) {
        Ok(settings) => settings,
        Err(mistakes) => return fail(crate::NAME, exit::CONFIG, mistakes),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(crate::NAME, exit::UNAVAILABLE, format!("cannot start: {error}")),
    };
    match runtime.block_on(migrate(&settings)) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error @ StoreError::Unavailable(_)) => fail(crate::NAME, exit::UNAVAILABLE, error),
        Err(error @ StoreError::Broken(_)) => fail(crate::NAME, exit::CONFIG, error),
    }
}

fn settings(config: Option<&Path>) -> Result<StoreSettings, Mistakes> {
    let source = Source::load(config)?;
    let mut mistakes = Mistakes::new();
    let settings = StoreSettings::read(&source, &mut mistakes);
    mistakes.into_result(settings)
}

async fn migrate(settings: &StoreSettings) -> Result<(), StoreError> {
    let store = Store::open(settings).await?;
    store.migrate().await?;
    store.close().await;
    Ok(())
}
