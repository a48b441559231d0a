// SPDX-License-Identifier: GPL-3.0-or-later
//! Answers from the network, by way of the name servers of the host or of the configuration (hickory-resolver).
//!
//! Every question has one time limit here, whatever the resolver's own tries add up to, and a question that failed is not asked again for a
//! few seconds: a name server that is down must not cost each message its full time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as NoAnswer, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use super::{Answer, DnsError, Lasting};

/// How long a question that failed is not asked again.
const FAILURE_KEPT: Duration = Duration::from_secs(5);
/// How long "nothing" is kept when the zone does not say.
const NOTHING_KEPT: Duration = Duration::from_secs(600);
/// Failures remembered at most; then all are forgotten, which only costs questions.
const FAILURES_KEPT: usize = 16_384;

/// The resolver of a daemon. Answers are kept as long as their TTL says.
pub struct Live {
    resolver: TokioResolver,
    /// The same without a memory, for answers that are kept elsewhere; made when it is first needed.
    forgetful: OnceLock<TokioResolver>,
    servers: Vec<SocketAddr>,
    timeout: Duration,
    failures: Mutex<HashMap<u64, Instant>>,
    hasher: RandomState,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Live {
    /// Uses `servers`, or those of /etc/resolv.conf when there are none. `cache` is the number of answers kept.
    pub fn new(servers: &[SocketAddr], timeout: Duration, cache: u64) -> Result<Self, String> {
        let (resolver, forgetful) = (build(servers, timeout, cache)?, OnceLock::new());
        let (servers, failures, hasher) = (servers.to_vec(), Mutex::default(), RandomState::new());
        Ok(Self { resolver, forgetful, servers, timeout, failures, hasher })
    }

    /// The records of one type, in the order of the answer.
    pub(super) async fn ask<T>(&self, name: &str, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> Answer<T> {
        let key = self.hasher.hash_one((name.to_ascii_lowercase(), kind));
        if self.failed_lately(key) {
            metrics::counter!("octroi_dns_lookups_total", "outcome" => "failed_lately").increment(1);
            return Err(DnsError::Temporary(format!("{name} {kind} failed a moment ago")));
        }
        let answer = self.ask_by(&self.resolver, name, kind, pick).await;
        if answer.is_err() {
            self.remember_failure(key);
        }
        answer.map(|lasting| lasting.records)
    }

    /// The same with its TTL. It is asked in any case: neither answers nor failures are remembered.
    pub(super) async fn ask_lasting<T>(
        &self,
        name: &str,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Lasting<T>, DnsError> {
        // What could be made once can be made again, unless /etc/resolv.conf has gone meanwhile; then the other one serves.
        let resolver = match self.forgetful.get() {
            Some(resolver) => resolver,
            None => match build(&self.servers, self.timeout, 0) {
                Ok(resolver) => self.forgetful.get_or_init(|| resolver),
                Err(_) => &self.resolver,
            },
        };
        self.ask_by(resolver, name, kind, pick).await
    }

    async fn ask_by<T>(
        &self,
        resolver: &TokioResolver,
        name: &str,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Lasting<T>, DnsError> {
        // The final dot keeps the search domains of resolv.conf out of it.
        let full = format!("{}.", name.strip_suffix('.').unwrap_or(name));
        let (outcome, answer) = match tokio::time::timeout(self.timeout, resolver.lookup(full, kind)).await {
            Ok(Ok(found)) => {
                let ttl = found.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
                let records = found.answers().iter().filter_map(|record| pick(&record.data)).collect();
                ("found", Ok(Lasting { records, ttl: Duration::from_secs(ttl.into()) }))
            }
            Ok(Err(error)) => match nothing_for(&error) {
                Some(ttl) => ("nothing", Ok(Lasting { records: Vec::new(), ttl })),
                None => ("error", Err(DnsError::Temporary(format!("{name} {kind}: {error}")))),
            },
            Err(_) => {
                ("timeout", Err(DnsError::Temporary(format!("{name} {kind}: no answer within {:?}", self.timeout))))
            }
        };
        metrics::counter!("octroi_dns_lookups_total", "outcome" => outcome).increment(1);
        answer
    }

    fn failed_lately(&self, key: u64) -> bool {
        // A panic of another thread leaves nothing half done here.
        let failures = self.failures.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failures.get(&key).is_some_and(|at| at.elapsed() < FAILURE_KEPT)
    }

    fn remember_failure(&self, key: u64) {
        let mut failures = self.failures.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if failures.len() >= FAILURES_KEPT {
            failures.clear();
        }
        failures.insert(key, Instant::now());
    }
}

fn build(servers: &[SocketAddr], timeout: Duration, cache: u64) -> Result<TokioResolver, String> {
    let mut builder = if servers.is_empty() {
        Resolver::builder_tokio().map_err(|error| format!("cannot read /etc/resolv.conf: {error}"))?
    } else {
        let servers = servers.iter().map(name_server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        Resolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    // Two tries within our own limit.
    options.timeout = timeout / 2;
    options.attempts = 1;
    options.cache_size = cache;
    options.edns0 = true;
    options.case_randomization = false;
    options.use_hosts_file = ResolveHosts::Never;
    options.negative_max_ttl = Some(Duration::from_secs(600));
    options.positive_max_ttl = Some(Duration::from_secs(86_400));
    builder.build().map_err(|error| error.to_string())
}

/// UDP, and TCP when an answer is truncated.
fn name_server(address: &SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(address.ip(), true, vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())])
}

/// NXDOMAIN, or no record of that type, and for how long.
fn nothing_for(error: &NetError) -> Option<Duration> {
    match error {
        NetError::Dns(NoAnswer::NoRecordsFound(none)) => {
            let nothing = matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError);
            let ttl = none.negative_ttl.map_or(NOTHING_KEPT, |seconds| Duration::from_secs(seconds.into()));
            nothing.then_some(ttl)
        }
        _ => None,
    }
}

/// Host names as we compare them: lower case, without the final dot.
pub(super) fn host(name: &hickory_resolver::proto::rr::Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::super::{Mx, Resolver};
    use super::*;
    use hickory_resolver::proto::op::{Message, MessageType};
    use hickory_resolver::proto::rr::rdata;
    use hickory_resolver::proto::rr::{Name, Record};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::net::UdpSocket;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// Answers by the first label of the question: what it says is what it does.
    fn answer(question: &Message) -> Option<Message> {
        let query = question.queries.first()?.clone();
        let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
        reply.metadata.message_type = MessageType::Response;
        reply.add_query(query.clone());
        let first =
            query.name().iter().next().map(|label| String::from_utf8_lossy(label).to_lowercase()).unwrap_or_default();
        let mut add = |data: RData| {
            reply.add_answer(Record::from_rdata(query.name().clone(), 60, data));
        };
        match (first.as_str(), query.query_type()) {
            ("silent", _) => return None,
            ("servfail", _) => reply.metadata.response_code = ResponseCode::ServFail,
            ("nothing", _) => reply.metadata.response_code = ResponseCode::NXDomain,
            (_, RecordType::A) => add(RData::A(rdata::A::new(192, 0, 2, 1))),
            (_, RecordType::MX) => {
                add(RData::MX(rdata::MX::new(20, name("B.example."))));
                add(RData::MX(rdata::MX::new(10, name("a.example."))));
            }
            (_, RecordType::TXT) => add(RData::TXT(rdata::TXT::new(vec!["v=spf1 ".to_owned(), "-all".to_owned()]))),
            (_, RecordType::PTR) => add(RData::PTR(rdata::PTR(name("Host.Example.")))),
            _ => {}
        }
        Some(reply)
    }

    /// A name server on loopback, and how many questions it got.
    async fn server() -> (Resolver, Arc<AtomicU32>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                count.fetch_add(1, Ordering::Relaxed);
                let reply = Message::from_vec(&buffer[..length]).ok().and_then(|question| answer(&question));
                if let Some(reply) = reply {
                    socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        (Resolver::live(&[address], Duration::from_millis(400), 1000).unwrap(), asked)
    }

    #[tokio::test]
    async fn records_of_all_types_are_asked_for() {
        let (dns, asked) = server().await;
        assert_eq!(dns.a("x.example").await.unwrap(), [std::net::Ipv4Addr::new(192, 0, 2, 1)]);
        assert_eq!(dns.txt("x.example").await.unwrap(), [b"v=spf1 -all".to_vec()]);
        let hosts: Vec<Mx> = dns.mx("x.example").await.unwrap();
        assert_eq!(hosts.iter().map(|mx| mx.exchange.as_str()).collect::<Vec<_>>(), ["a.example", "b.example"]);
        assert_eq!(dns.ptr("192.0.2.1".parse().unwrap()).await.unwrap(), ["host.example"]);
        let before = asked.load(Ordering::Relaxed);
        dns.a("X.Example.").await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), before, "the second time from the cache");
    }

    #[tokio::test]
    async fn nothing_and_trouble_are_told_apart() {
        let (dns, _) = server().await;
        assert_eq!(dns.a("nothing.example").await, Ok(Vec::new()));
        assert_eq!(dns.aaaa("x.example").await, Ok(Vec::new()));
        assert!(matches!(dns.a("servfail.example").await, Err(DnsError::Temporary(_))));
        assert!(matches!(dns.a(&"a".repeat(64)).await, Err(DnsError::BadName(_))));
    }

    #[tokio::test]
    async fn a_silent_server_costs_its_time_once() {
        let (dns, asked) = server().await;
        let started = Instant::now();
        assert!(dns.a("silent.example").await.is_err());
        assert!(started.elapsed() < Duration::from_secs(2));
        let before = asked.load(Ordering::Relaxed);
        assert!(dns.a("silent.example").await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), before, "not asked again at once");
    }
}
