// SPDX-License-Identifier: GPL-3.0-or-later
//! An OpenLDAP server of our own: unprivileged, in a temporary directory, on a port of 127.0.0.1 and nowhere else.
//!
//! slapd(8) in the foreground with a slapd.conf(5) of ours; the system's own server and its configuration are never touched. Entries are
//! made with slapadd(8) before the start, and changed with ldapadd(1) and ldapdelete(1).

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::ports::{free_port, is_free};
use crate::process::{Account, Process, Signal, Start, Trouble, await_that, run, tail};

const PATIENCE: Duration = Duration::from_secs(30);

/// Below this entry are all others.
pub const SUFFIX: &str = "dc=example,dc=test";
/// Who may write, and read everything.
pub const ADMIN: &str = "cn=admin,dc=example,dc=test";
/// Its password.
pub const PASSWORD: &str = "a secret, (with) *signs*";

/// A running directory; stopped and removed when dropped.
#[derive(Debug)]
pub struct Slapd {
    server: Option<Process>,
    account: Account,
    port: u16,
    tls_port: u16,
    root: TempDir,
}

impl Slapd {
    /// Makes and starts a directory with a person for each of these addresses. Panics when slapd is not installed or does not start: a
    /// test without its server fails.
    pub fn start(addresses: &[&str]) -> Slapd {
        Slapd::try_start(addresses).unwrap_or_else(|trouble| panic!("slapd: {trouble}"))
    }

    fn try_start(addresses: &[&str]) -> Result<Slapd, Trouble> {
        let account = if Account::ours().is_root() { Account::named("openldap")? } else { Account::ours() };
        let root = tempfile::Builder::new().prefix("octroi-ldap-").tempdir();
        let root = root.map_err(|error| Trouble::new("no temporary directory", error))?;
        let mut slapd = Slapd { server: None, account, port: free_port(), tls_port: free_port(), root };
        slapd.make_certificate()?;
        slapd.write("slapd.conf", &slapd.configuration())?;
        std::fs::create_dir(slapd.path("data")).map_err(|error| Trouble::new("data", error))?;
        let mut ldif = format!("dn: {SUFFIX}\nobjectClass: organization\nobjectClass: dcObject\no: x\ndc: example\n\n");
        ldif.push_str(&format!("dn: ou=people,{SUFFIX}\nobjectClass: organizationalUnit\nou: people\n\n"));
        addresses.iter().for_each(|address| ldif.push_str(&person(address)));
        slapd.write("entries.ldif", &ldif)?;
        let configuration = slapd.path("slapd.conf");
        let mut command = Command::new("/usr/sbin/slapadd");
        command.arg("-q").arg("-f").arg(configuration).arg("-l").arg(slapd.path("entries.ldif"));
        run("slapadd", &mut command)?;
        run(
            "chown",
            Command::new("chown").arg("-R").arg(format!("{}:{}", account.uid, account.gid)).arg(slapd.root.path()),
        )?;
        slapd.launch()?;
        Ok(slapd)
    }

    /// Where it listens, `ldap://…`.
    pub fn url(&self) -> String {
        format!("ldap://localhost:{}", self.port)
    }

    /// The same, encrypted from the start.
    pub fn tls_url(&self) -> String {
        format!("ldaps://localhost:{}", self.tls_port)
    }

    /// The certificate of the authority that signed the server's.
    pub fn ca_file(&self) -> PathBuf {
        self.path("certificate.pem")
    }

    /// Stops it; no-op when it is not running.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Signal::TERM, PATIENCE).expect("slapd stops in time");
        }
    }

    /// Starts it again after [`Slapd::stop`]; it answers at return.
    pub fn start_again(&mut self) {
        self.launch().unwrap_or_else(|trouble| panic!("slapd: {trouble}"));
    }

    /// From now on it takes connections and says nothing, as a server that hangs.
    pub fn freeze(&self) {
        self.server.as_ref().expect("it runs").signal(Signal::STOP);
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.server.as_ref().expect("it runs").signal(Signal::CONT);
    }

    /// Adds a person for each address.
    pub fn add<T: AsRef<str>>(&self, addresses: &[T]) {
        self.change("ldapadd", &addresses.iter().map(|address| person(address.as_ref())).collect::<String>());
    }

    /// Removes the persons of these addresses.
    pub fn remove<T: AsRef<str>>(&self, addresses: &[T]) {
        self.change("ldapdelete", &addresses.iter().map(|address| name(address.as_ref()) + "\n").collect::<String>());
    }

    fn change(&self, program: &str, input: &str) {
        let mut command = Command::new(program);
        command.args(["-x", "-H", &self.url(), "-D", ADMIN, "-w", PASSWORD]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
        assert!(child.wait().expect("it ends").success(), "{program}: {input}");
    }

    fn launch(&mut self) -> Result<(), Trouble> {
        let log = self.path("log");
        let addresses = format!("ldap://127.0.0.1:{}/ ldaps://127.0.0.1:{}/", self.port, self.tls_port);
        let command =
            ["/usr/sbin/slapd", "-d", "0", "-f", &self.path("slapd.conf").display().to_string(), "-h", &addresses]
                .map(str::to_owned);
        let mut process = Process::start(&Start {
            name: "slapd",
            command: &command,
            environment: &[],
            account: Some(self.account),
            when_orphaned: "TERM",
            log: &log,
        })?;
        await_that("slapd answers", PATIENCE, || {
            if process.ended().is_some() {
                return Err(Trouble(format!("ended: {}", tail(&log, 5))));
            }
            Ok((!is_free(self.port) && !is_free(self.tls_port)).then_some(()))
        })?;
        self.server = Some(process);
        Ok(())
    }

    fn configuration(&self) -> String {
        let root = self.root.path().display();
        let schemas = ["core", "cosine", "inetorgperson"];
        let schemas: String = schemas.iter().map(|name| format!("include /etc/ldap/schema/{name}.schema\n")).collect();
        format!(
            "{schemas}modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {root}/pid\nargsfile {root}/args\n\
             TLSCertificateFile {root}/certificate.pem\nTLSCertificateKeyFile {root}/key.pem\n\
             TLSCACertificateFile {root}/certificate.pem\nsizelimit 100\n\
             database mdb\nmaxsize 67108864\nsuffix \"{SUFFIX}\"\nrootdn \"{ADMIN}\"\nrootpw \"{PASSWORD}\"\n\
             directory {root}/data\nindex mail eq,pres\n\
             access to attrs=userPassword by * auth\naccess to * by anonymous auth by users read\n"
        )
    }

    /// Its own authority; not marked as one, or rustls would not take it for a server.
    fn make_certificate(&self) -> Result<(), Trouble> {
        let mut command = Command::new("openssl");
        command.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
        ]);
        command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.arg("-keyout").arg(self.path("key.pem")).arg("-out").arg(self.path("certificate.pem"));
        run("openssl", &mut command).map(drop)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Trouble> {
        std::fs::write(self.path(name), text).map_err(|error| Trouble::new(name, error))
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // The data is thrown away anyway, and it may be frozen.
            server.kill();
        }
    }
}

fn name(address: &str) -> String {
    format!("uid={},ou=people,{SUFFIX}", plain(address))
}

/// Without what would have to be escaped in a name.
fn plain(address: &str) -> String {
    address.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn person(address: &str) -> String {
    let (name, uid) = (name(address), plain(address));
    format!("dn: {name}\nobjectClass: inetOrgPerson\ncn: {uid}\nsn: {uid}\nuid: {uid}\nmail: {address}\n\n")
}
