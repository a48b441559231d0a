// SPDX-License-Identifier: GPL-3.0-or-later
//! Recipients in an LDAP directory (RFC 4511): one search per question, with as many results as are needed to say yes.
//!
//! Servers are tried in order, beginning with the one that answered last. A few connections are kept; one that has died meanwhile is
//! replaced at once. When none answers, the breaker of the directory makes the pauses. Referrals are not followed.

pub mod filter;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ldap3::adapters::{Adapter, EntriesOnly, PagedResults};
use ldap3::{LdapConnAsync, LdapConnSettings, LdapError, LdapResult, Scope, SearchEntry, SearchOptions};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::{Answering, Provider, Told, Trouble, members};
use crate::config::recipients::{LdapScope, LdapSettings};
use filter::Filter;

/// Entries in one page of a full copy.
const PAGE: i32 = 500;
/// Time for one page of a full copy.
const PAGE_TIME: Duration = Duration::from_secs(30);
/// RFC 4511 appendix A: noSuchObject, sizeLimitExceeded.
const SIZE_LIMIT: u32 = 4;

/// A directory that is asked over LDAP.
pub struct Ldap {
    settings: LdapSettings,
    filter: Filter,
    pull_filter: String,
    /// From the environment of a password file, once.
    password: String,
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
    idle: Mutex<VecDeque<ldap3::Ldap>>,
    /// The server that answered last.
    last: AtomicUsize,
}

impl std::fmt::Debug for Ldap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ldap").field("servers", &self.settings.servers).finish_non_exhaustive()
    }
}

impl Ldap {
    /// Reads the files of password and certificates; connects to nothing. `timeout` is for making a connection.
    pub fn open(settings: &LdapSettings, timeout: Duration) -> Result<Self, String> {
        let password = match &settings.password_file {
            Some(path) => read_secret(path)?,
            None => settings.password.0.clone(),
        };
        let encrypted = settings.starttls || settings.servers.iter().any(|server| server.starts_with("ldaps:"));
        Ok(Self {
            filter: Filter::new(&settings.filter)?,
            pull_filter: settings.pull_filter.clone(),
            password,
            tls: if encrypted { Some(tls(settings.ca_file.as_deref())?) } else { None },
            timeout,
            idle: Mutex::default(),
            last: AtomicUsize::new(0),
            settings: settings.clone(),
        })
    }

    /// A connection that was kept, when one is left and still there.
    fn kept(&self) -> Option<ldap3::Ldap> {
        let mut idle = self.idle();
        std::iter::from_fn(|| idle.pop_back()).find_map(|mut ldap| (!ldap.is_closed()).then_some(ldap))
    }

    fn keep(&self, ldap: ldap3::Ldap) {
        self.idle().push_back(ldap);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<ldap3::Ldap>> {
        // A panic of another thread leaves nothing half done here.
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A new connection, bound, to the first server that gives one.
    async fn connect(&self) -> Result<ldap3::Ldap, Trouble> {
        let (servers, first) = (&self.settings.servers, self.last.load(Ordering::Relaxed));
        let mut trouble = Trouble::Unreachable("there is no server".to_owned());
        // Each gets its share of the time, or the first that hangs would have it all.
        let share = self.timeout / u32::try_from(servers.len().max(1)).unwrap_or(u32::MAX);
        for at in (0..servers.len()).map(|step| (first + step) % servers.len()) {
            match tokio::time::timeout(share, self.connect_to(&servers[at])).await {
                Ok(Ok(ldap)) => {
                    self.last.store(at, Ordering::Relaxed);
                    return Ok(ldap);
                }
                Ok(Err(error)) => trouble = named(&servers[at], error),
                Err(_) => trouble = Trouble::Unreachable(format!("{}: no connection in time", servers[at])),
            }
        }
        Err(trouble)
    }

    async fn connect_to(&self, server: &str) -> Result<ldap3::Ldap, Trouble> {
        let mut settings = LdapConnSettings::new().set_starttls(self.settings.starttls);
        if let Some(tls) = &self.tls {
            settings = settings.set_config(tls.clone());
        }
        let (connection, mut ldap) = LdapConnAsync::with_settings(settings, server).await.map_err(trouble)?;
        // It ends with the last handle of its connection, or when that breaks; the next use will notice.
        tokio::spawn(async move { drop(connection.drive().await) });
        if !self.settings.bind_dn.is_empty() {
            let bound = ldap.simple_bind(&self.settings.bind_dn, &self.password).await.map_err(trouble)?;
            refusal(&bound)?;
        }
        Ok(ldap)
    }

    /// One question on one connection; true when something was found.
    async fn search(&self, ldap: &mut ldap3::Ldap, filter: &str) -> Result<bool, Trouble> {
        // Two would do no harm: one is enough.
        ldap.with_search_options(SearchOptions::new().sizelimit(1));
        let (base, scope) = (&self.settings.base, scope(self.settings.scope));
        // No attributes at all: RFC 4511 section 4.5.1.8.
        let (found, result) = match ldap.search(base, scope, filter, vec!["1.1"]).await {
            Ok(found) => (found.0, found.1),
            Err(error) => return Err(trouble(error)),
        };
        let entries = found.iter().any(|entry| !entry.is_ref() && !entry.is_intermediate());
        match result.rc {
            SIZE_LIMIT if entries => Ok(true),
            _ => refusal(&result).map(|()| entries),
        }
    }

    async fn ask(&self, form: &str) -> Result<Told, Trouble> {
        let filter = self.filter.fill(form);
        let told = |found| if found { Told::Known } else { Told::Unknown };
        if let Some(mut ldap) = self.kept() {
            match self.search(&mut ldap, &filter).await {
                Ok(found) => {
                    self.keep(ldap);
                    return Ok(told(found));
                }
                // The server may have closed it a moment ago, and it may be there all the same.
                Err(Trouble::Unreachable(_)) => self.idle().clear(),
                Err(other) => return Err(other),
            }
        }
        let mut ldap = self.connect().await?;
        let found = self.search(&mut ldap, &filter).await?;
        self.keep(ldap);
        Ok(told(found))
    }

    /// Every value of the address attributes below the base, page by page (RFC 2696).
    async fn all(&self) -> Result<Vec<String>, Trouble> {
        let mut ldap = self.connect().await?;
        ldap.with_timeout(PAGE_TIME);
        let adapters: Vec<Box<dyn Adapter<'_, String, Vec<String>>>> =
            vec![Box::new(EntriesOnly::new()), Box::new(PagedResults::new(PAGE))];
        let (base, scope, attributes) =
            (&self.settings.base, scope(self.settings.scope), self.settings.attributes.clone());
        let search = ldap.streaming_search_with(adapters, base, scope, &self.pull_filter, attributes);
        let mut stream = search.await.map_err(trouble)?;
        let mut addresses = Vec::new();
        while let Some(entry) = stream.next().await.map_err(trouble)? {
            for value in SearchEntry::construct(entry).attrs.into_values().flatten() {
                addresses.extend(address(&value));
            }
            if addresses.len() > members::MOST {
                return Err(Trouble::Refused(format!("more than {} recipients", members::MOST)));
            }
        }
        refusal(&stream.finish().await)?;
        Ok(addresses)
    }
}

impl Provider for Ldap {
    fn ask<'a>(&'a self, form: &'a str) -> Answering<'a, Told> {
        Box::pin(self.ask(form))
    }

    fn all(&self) -> Answering<'_, Vec<String>> {
        Box::pin(self.all())
    }
}

/// The address in a value: as it is, or as in `proxyAddresses` of Active Directory, where mail addresses have `smtp:` before them and
/// others something else.
fn address(value: &str) -> Option<String> {
    let address = match value.split_once(':') {
        Some((kind, address)) if kind.eq_ignore_ascii_case("smtp") => address,
        Some(_) => return None,
        None => value,
    };
    address.contains('@').then(|| address.trim().to_owned())
}

fn scope(scope: LdapScope) -> Scope {
    match scope {
        LdapScope::Base => Scope::Base,
        LdapScope::One => Scope::OneLevel,
        LdapScope::Sub => Scope::Subtree,
    }
}

fn refusal(result: &LdapResult) -> Result<(), Trouble> {
    match result.rc {
        0 => Ok(()),
        // busy, unavailable, unwillingToPerform: the server will be back.
        51..=53 => Err(Trouble::Unreachable(result.to_string())),
        _ => Err(Trouble::Refused(result.to_string())),
    }
}

fn trouble(error: LdapError) -> Trouble {
    match error {
        LdapError::Timeout { .. } => Trouble::Late,
        other => Trouble::Unreachable(other.to_string()),
    }
}

fn named(server: &str, trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Unreachable(error) => Trouble::Unreachable(format!("{server}: {error}")),
        Trouble::Refused(error) => Trouble::Refused(format!("{server}: {error}")),
        other => other,
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Certificates of the servers are checked against this file, or against those that the system trusts.
fn tls(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let failed = |error: String| format!("cannot read certificates from {}: {error}", path.display());
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
        }
        None => {
            // Some of the system's may be of a kind that is not understood; the others do.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        let place = ca_file.map_or_else(|| PathBuf::from("the system"), Path::to_path_buf);
        return Err(format!("no certificate of an authority in {}", place.display()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_out_of_values() {
        for (value, expected) in [
            ("ann@example.org", Some("ann@example.org")),
            ("SMTP:Ann@example.org", Some("Ann@example.org")),
            ("smtp:a@example.org", Some("a@example.org")),
            ("X400:C=us;A= ;P=x", None),
            ("sip:ann@example.org", None),
            ("ann", None),
        ] {
            assert_eq!(address(value).as_deref(), expected, "{value}");
        }
    }
}
