// SPDX-License-Identifier: GPL-3.0-or-later
//! A clamd(8) of our own: private socket, the machine's signatures if it has any, else one signature for EICAR.
//!
//! clamd.conf(5). The system's clamd (if any) is neither used nor touched. As root it runs as user clamav, whom
//! Debian's package makes.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::letters::eicar;
use crate::process::{Account, Process, Signal, Start, Trouble, await_that, tail};

/// A full signature set takes its time to load.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a clamd is started with beside the defaults.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup<'a> {
    /// Folder with a signature set; without one there is one signature, for EICAR.
    pub signatures: Option<&'a Path>,
    /// More signatures: file name, whose end tells the format, and content. Not together with a folder.
    pub more_signatures: &'a [(&'a str, &'a str)],
    /// More lines of clamd.conf.
    pub configuration: &'a str,
    /// A port of 127.0.0.1 to listen on as well.
    pub tcp_port: Option<u16>,
    /// It says nothing about what exceeds its limits, as is clamd's default.
    pub quiet: bool,
    /// It does not know EICAR.
    pub blind: bool,
}

/// A running clamd; stopped and removed when dropped.
#[derive(Debug)]
pub struct Clamd {
    server: Option<Process>,
    account: Account,
    directory: TempDir,
    tcp_port: Option<u16>,
}

impl Clamd {
    /// Starts one that knows EICAR; panics when it cannot: a test without its server fails.
    pub fn start() -> Clamd {
        Clamd::try_start(None).unwrap_or_else(|trouble| panic!("clamd: {trouble}"))
    }

    /// Starts one with the signatures in `signatures`, or with the one for EICAR.
    pub fn try_start(signatures: Option<&Path>) -> Result<Clamd, Trouble> {
        Clamd::try_start_with(&Setup { signatures, ..Setup::default() })
    }

    /// Starts one that is set up differently; panics when it cannot.
    pub fn start_with(setup: &Setup<'_>) -> Clamd {
        Clamd::try_start_with(setup).unwrap_or_else(|trouble| panic!("clamd: {trouble}"))
    }

    fn try_start_with(setup: &Setup<'_>) -> Result<Clamd, Trouble> {
        let account = if Account::ours().is_root() { Account::named("clamav")? } else { Account::ours() };
        let directory = tempfile::Builder::new()
            .prefix("octroi-clamd-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .map_err(|error| Trouble::new("no temporary directory", error))?;
        account.own(directory.path())?;
        let mut clamd = Clamd { server: None, account, directory, tcp_port: setup.tcp_port };
        clamd.configure(setup)?;
        clamd.launch()?;
        Ok(clamd)
    }

    /// Where it listens, as `[antivirus.clamd] address` takes it.
    pub fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Its TCP address, when it was started with a port.
    pub fn tcp_address(&self) -> String {
        let port = self.tcp_port.expect("started with a TCP port");
        format!("127.0.0.1:{port}")
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    /// Stops it; its socket is gone at return.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Signal::TERM, PATIENCE);
            let _ = std::fs::remove_file(self.socket());
        }
    }

    /// Starts it again after [`Clamd::stop`]; it answers at return.
    pub fn start_again(&mut self) {
        self.launch().unwrap_or_else(|trouble| panic!("clamd: {trouble}"));
    }

    /// Stops it in its tracks: connections are still taken by the kernel, nothing answers.
    pub fn freeze(&self) {
        if let Some(server) = &self.server {
            server.signal(Signal::STOP);
        }
    }

    /// Lets it go on after [`Clamd::freeze`].
    pub fn thaw(&self) {
        if let Some(server) = &self.server {
            server.signal(Signal::CONT);
        }
    }

    fn configure(&self, setup: &Setup<'_>) -> Result<(), Trouble> {
        let database = match setup.signatures {
            Some(directory) => directory.to_owned(),
            None => self.write_signatures(setup)?,
        };
        let tcp = match setup.tcp_port {
            Some(port) => format!("TCPAddr 127.0.0.1\nTCPSocket {port}\n"),
            None => String::new(),
        };
        let text = format!(
            "LocalSocket {}\nLocalSocketMode 666\nDatabaseDirectory {}\nTemporaryDirectory {}\nForeground yes\n\
             MaxThreads 10\nExitOnOOM yes\nAlertExceedsMax {}\n{tcp}{}\n",
            self.socket().display(),
            database.display(),
            self.directory.path().display(),
            if setup.quiet { "no" } else { "yes" },
            setup.configuration,
        );
        write(&self.configuration(), text.as_bytes())
    }

    /// One body signature, extended format: name, any file type, anywhere, the bytes in hexadecimal. And those asked for.
    fn write_signatures(&self, setup: &Setup<'_>) -> Result<PathBuf, Trouble> {
        let database = self.directory.path().join("signatures");
        std::fs::create_dir_all(&database).map_err(|error| Trouble::new(database.display(), error))?;
        let known = if setup.blind { b"something else".to_vec() } else { eicar() };
        let bytes: String = known.iter().map(|byte| format!("{byte:02x}")).collect();
        write(&database.join("octroi.ndb"), format!("Eicar-Test-Signature:0:*:{bytes}\n").as_bytes())?;
        for (name, content) in setup.more_signatures {
            write(&database.join(name), content.as_bytes())?;
        }
        Ok(database)
    }

    fn launch(&mut self) -> Result<(), Trouble> {
        let log = self.directory.path().join("clamd.log");
        let command = ["clamd", "--config-file"].map(str::to_owned);
        let command = [&command[..], &[self.configuration().display().to_string()]].concat();
        let mut process = Process::start(&Start {
            name: "clamd",
            command: &command,
            // Debian keeps it in sbin, which is not in every user's path.
            environment: &[("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())],
            account: Some(self.account),
            when_orphaned: "TERM",
            log: &log,
        })?;
        await_that("clamd answers", PATIENCE, || {
            if process.ended().is_some() {
                return Err(Trouble::new("clamd ended", tail(&log, 3)));
            }
            Ok(UnixStream::connect(self.socket()).is_ok().then_some(()))
        })?;
        self.server = Some(process);
        Ok(())
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("clamd.ctl")
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("clamd.log")).unwrap_or_default()
    }

    /// Its configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.directory.path().join("clamd.conf")
    }
}

impl Drop for Clamd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The machine's own signatures, when freshclam(1) has brought any.
pub fn installed_signatures() -> Option<PathBuf> {
    let directory = Path::new("/var/lib/clamav");
    let mut files = std::fs::read_dir(directory).ok()?.flatten();
    let main = files.any(|file| matches!(file.path().extension().and_then(|end| end.to_str()), Some("cvd" | "cld")));
    main.then(|| directory.to_owned())
}

fn write(path: &Path, content: &[u8]) -> Result<(), Trouble> {
    std::fs::write(path, content).map_err(|error| Trouble::new(path.display(), error))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn scan(clamd: &Clamd, content: &[u8]) -> String {
        let mut stream = UnixStream::connect(clamd.socket()).unwrap();
        stream.write_all(b"zINSTREAM\0").unwrap();
        stream.write_all(&(content.len() as u32).to_be_bytes()).unwrap();
        stream.write_all(content).unwrap();
        stream.write_all(&[0; 4]).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    #[test]
    fn it_knows_eicar_and_comes_back() {
        let mut clamd = Clamd::start();
        assert!(scan(&clamd, &eicar()).contains("FOUND"));
        assert!(scan(&clamd, b"hello").contains("OK"));
        clamd.stop();
        assert!(UnixStream::connect(clamd.socket()).is_err());
        clamd.start_again();
        assert!(scan(&clamd, &eicar()).contains("FOUND"));
    }
}
