// SPDX-License-Identifier: GPL-3.0-or-later
//! A c-icap of our own with its virus_scan service, in front of a clamd(8) of our own: the ICAP server that Debian has.
//!
//! The system's (if any) is neither used nor touched. As root it runs as user clamav, as the clamd does.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::clamd::Clamd;
use crate::ports::free_port;
use crate::process::{Account, Process, Signal, Start, Trouble, await_that, tail};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running c-icap; stopped and removed when dropped.
#[derive(Debug)]
pub struct CIcap {
    server: Option<Process>,
    port: u16,
    directory: TempDir,
}

impl CIcap {
    /// Starts one in front of `clamd`; panics when it cannot. `more`: further lines of c-icap.conf.
    pub fn start(clamd: &Clamd, more: &str) -> CIcap {
        CIcap::try_start(clamd, more).unwrap_or_else(|trouble| panic!("c-icap: {trouble}"))
    }

    /// Where it listens, as `[antivirus.NAME] address` takes it. The service is `avscan`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default()
    }

    fn try_start(clamd: &Clamd, more: &str) -> Result<CIcap, Trouble> {
        let account = if Account::ours().is_root() { Account::named("clamav")? } else { Account::ours() };
        let directory = tempfile::Builder::new()
            .prefix("octroi-icap-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .map_err(|error| Trouble::new("no temporary directory", error))?;
        account.own(directory.path())?;
        let mut icap = CIcap { server: None, port: free_port(), directory };
        icap.configure(clamd, more)?;
        icap.launch(account)?;
        Ok(icap)
    }

    fn configure(&self, clamd: &Clamd, more: &str) -> Result<(), Trouble> {
        let (folder, modules) = (self.directory.path().display(), modules()?);
        let text = format!(
            "PidFile {folder}/pid\nCommandsSocket {folder}/ctl\nTmpDir {folder}\nServerLog {folder}/server.log\n\
             AccessLog {folder}/access.log\nPort 127.0.0.1:{port}\nServerAdmin postmaster@icap.test\nServerName icap.test\n\
             StartServers 1\nMaxServers 1\nThreadsPerChild 10\nMinSpareThreads 2\nMaxSpareThreads 10\n\
             ModulesDir {modules}\nServicesDir {modules}\nTemplateDir /usr/share/c_icap/templates/\n\
             LoadMagicFile /etc/c-icap/c-icap.magic.default\n\
             Module common clamd_mod.so\nclamd_mod.ClamdSocket {socket}\nService avscan virus_scan.so\n\
             virus_scan.DefaultEngine clamd\n\
             virus_scan.ScanFileTypes TEXT DATA EXECUTABLE ARCHIVE GIF JPEG MSOFFICE\n\
             virus_scan.Allow204Responces on\n{more}\n",
            modules = modules.display(),
            port = self.port,
            socket = clamd.socket().display(),
        );
        let path = self.directory.path().join("c-icap.conf");
        std::fs::write(&path, text).map_err(|error| Trouble::new(path.display(), error))
    }

    fn launch(&mut self, account: Account) -> Result<(), Trouble> {
        let log = self.directory.path().join("output.log");
        let configuration = self.directory.path().join("c-icap.conf").display().to_string();
        let mut process = Process::start(&Start {
            name: "c-icap",
            // In the foreground.
            command: &["c-icap", "-N", "-f", &configuration].map(str::to_owned),
            environment: &[("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())],
            account: Some(account),
            when_orphaned: "TERM",
            log: &log,
        })?;
        await_that("c-icap answers", PATIENCE, || {
            if process.ended().is_some() {
                return Err(Trouble::new("c-icap ended", tail(&log, 3)));
            }
            Ok(TcpStream::connect(("127.0.0.1", self.port)).is_ok().then_some(()))
        })?;
        self.server = Some(process);
        Ok(())
    }
}

impl Drop for CIcap {
    fn drop(&mut self) {
        // Its children end with it only when it is asked to end.
        if let Some(server) = self.server.take() {
            server.stop(Signal::TERM, PATIENCE);
        }
    }
}

/// Where Debian keeps its modules, in a folder named after the kind of machine.
fn modules() -> Result<PathBuf, Trouble> {
    let folders = std::fs::read_dir("/usr/lib").map_err(|error| Trouble::new("/usr/lib", error))?;
    let mut modules = folders.flatten().map(|folder| folder.path().join("c_icap"));
    modules
        .find(|folder| folder.join("virus_scan.so").exists())
        .ok_or_else(|| Trouble::new("virus_scan.so", "not found, is libc-icap-mod-virus-scan installed?"))
}
