// SPDX-License-Identifier: GPL-3.0-or-later
//! Asks the Postfix of this host for its configuration, by postconf(1), which only reads. What it says is judged by the daemons'
//! `check --postfix`.

use std::path::Path;
use std::process::Command;

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
