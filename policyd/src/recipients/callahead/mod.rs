// SPDX-License-Identifier: GPL-3.0-or-later
//! Recipients known to the inner mail server, which is asked as if there were mail for them: MAIL FROM:<>, RCPT TO, and no more.
//!
//! Only what is about the recipient counts: a refusal that may be about us is checked with the domain's postmaster, whom every server accepts
//! (RFC 5321 section 4.5.1). A server that accepts an address which cannot exist knows nobody: it is believed, and nothing is remembered.

mod reply;
mod session;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::mail;

use super::{Answering, Provider, Told, Trouble};
use crate::config::recipients::CallaheadSettings;
use reply::Says;
use session::Session;

/// Domains of which it is remembered whether their server accepts anything.
const DOMAINS: usize = 10_000;
/// Time for taking leave, when the answer has been given already.
const LEAVE: Duration = Duration::from_secs(5);

/// The inner mail server.
#[derive(Debug)]
pub struct Callahead {
    settings: CallaheadSettings,
    helo: String,
    timeout: Duration,
    /// The host that answered last.
    last: AtomicUsize,
    /// When a domain was last tried with an address that cannot exist, and whether that was accepted.
    tried: Mutex<HashMap<String, (Instant, bool)>>,
    random: (RandomState, AtomicU64),
}

impl Callahead {
    /// Connects to nothing. `timeout` is for getting a session.
    pub fn new(settings: &CallaheadSettings, timeout: Duration) -> Self {
        let helo = if settings.helo.is_empty() { mail::hostname() } else { settings.helo.clone() };
        Self {
            settings: settings.clone(),
            helo,
            timeout,
            last: AtomicUsize::new(0),
            tried: Mutex::default(),
            random: (RandomState::new(), AtomicU64::new(0)),
        }
    }

    async fn ask(&self, form: &str) -> Result<Told, Trouble> {
        let mut session = self.open().await?;
        let told = self.ask_in(&mut session, form).await;
        tokio::spawn(tokio::time::timeout(LEAVE, session.quit()));
        told
    }

    async fn ask_in(&self, session: &mut Session, form: &str) -> Result<Told, Trouble> {
        let reply = session.recipient(form).await?;
        let domain = mail::split(form).1;
        match reply.says() {
            Says::Known => {
                let any = self.accepts_any(session, domain).await?;
                Ok(if any { Told::KnownLikeAny } else { Told::Known })
            }
            Says::Unknown => Ok(Told::Unknown),
            Says::Doubtful if session.recipient(&format!("postmaster@{domain}")).await?.is_good() => Ok(Told::Unknown),
            Says::Doubtful | Says::Nothing => {
                Err(Trouble::Refused(format!("it says to RCPT: {} {}", reply.code, reply.text)))
            }
        }
    }

    /// Whether the server accepts any address of this domain; it is tried once in a while.
    async fn accepts_any(&self, session: &mut Session, domain: &str) -> Result<bool, Trouble> {
        let every = self.settings.accept_all_check.0;
        if every.is_zero() {
            return Ok(false);
        }
        let before = self.tried().get(domain).copied();
        if let Some((_, any)) = before.filter(|(at, _)| at.elapsed() < every) {
            return Ok(any);
        }
        let any = match session.recipient(&format!("{}@{domain}", self.unlikely())).await?.says() {
            Says::Known => true,
            Says::Unknown | Says::Doubtful => false,
            // Not now; another time.
            Says::Nothing => return Ok(before.is_some_and(|(_, any)| any)),
        };
        if before.is_some_and(|(_, before)| before) != any {
            match any {
                true => tracing::warn!(
                    domain,
                    "the mail server accepts any recipient of the domain: asking it tells nothing"
                ),
                false => tracing::warn!(domain, "the mail server does not accept any recipient of the domain any more"),
            }
        }
        let mut tried = self.tried();
        if tried.len() >= DOMAINS {
            tried.clear();
        }
        tried.insert(domain.to_owned(), (Instant::now(), any));
        Ok(any)
    }

    /// A local part that nobody has.
    fn unlikely(&self) -> String {
        let number = self.random.1.fetch_add(1, Ordering::Relaxed);
        format!("octroi-{:016x}", self.random.0.hash_one(number))
    }

    /// A session with the first host that gives one.
    async fn open(&self) -> Result<Session, Trouble> {
        let (hosts, first) = (&self.settings.hosts, self.last.load(Ordering::Relaxed));
        let mut trouble = Trouble::Unreachable("there is no host".to_owned());
        // Each gets its share of the time, or the first that hangs would have it all.
        let share = self.timeout / u32::try_from(hosts.len().max(1)).unwrap_or(u32::MAX);
        for at in (0..hosts.len()).map(|step| (first + step) % hosts.len()) {
            let opened = tokio::time::timeout(share, Session::open(&hosts[at], &self.helo)).await;
            match opened.unwrap_or(Err(Trouble::Unreachable("no session in time".to_owned()))) {
                Ok(session) => {
                    self.last.store(at, Ordering::Relaxed);
                    return Ok(session);
                }
                Err(Trouble::Unreachable(error)) => trouble = Trouble::Unreachable(format!("{}: {error}", hosts[at])),
                Err(Trouble::Refused(error)) => trouble = Trouble::Refused(format!("{}: {error}", hosts[at])),
                Err(other) => trouble = other,
            }
        }
        Err(trouble)
    }

    fn tried(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, bool)>> {
        // A panic of another thread leaves nothing half done here.
        self.tried.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Provider for Callahead {
    fn ask<'a>(&'a self, form: &'a str) -> Answering<'a, Told> {
        Box::pin(self.ask(form))
    }

    fn all(&self) -> Answering<'_, Vec<String>> {
        Box::pin(async { Err(Trouble::Refused("a mail server does not tell who it knows".to_owned())) })
    }
}
