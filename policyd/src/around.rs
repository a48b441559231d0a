// SPDX-License-Identifier: GPL-3.0-or-later
//! What every check of a request may use. References only: cheap to copy from check to check.

use tokio::time::Instant;

use crate::checks::pool::Pools;
use crate::notify::Notifier;
use crate::pending::Pending;
use crate::perimeter::Perimeter;
use crate::policy::Policy;
use crate::recipients::book::Book;
use crate::servers::Servers;
use crate::session::Sessions;
use crate::store::book::TrustBook;
use crate::store::limits::queue::LimitQueue;
use crate::store::marker::Marker;
use crate::store::queue::GreylistQueue;
use crate::verdict::DecisionId;

/// What checks need besides the request: the policy in force, and the ways to what is known.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// The policy in force.
    pub policy: &'a Policy,
    /// The way to the store.
    pub queue: &'a GreylistQueue,
    /// Who clients are.
    pub pools: &'a Pools,
    /// Who is trusted; none where nothing is.
    pub trust: Option<&'a TrustBook>,
    /// Whom we wrote to and who wrote to a trap; none where nothing is remembered.
    pub marker: Option<&'a Marker>,
    /// Who asks DNS lists; none where none is asked.
    pub perimeter: Option<&'a Perimeter>,
    /// The way to the limits; none where nothing is limited.
    pub limits: Option<&'a LimitQueue>,
    /// What is known of recipients; none where nobody keeps it.
    pub recipients: Option<&'a Book>,
    /// Who tells the administrator of limits that are passed.
    pub notifier: Option<&'a Notifier>,
    /// How many triplets wait.
    pub pending: &'a Pending,
    /// Which messages have their header.
    pub sessions: &'a Sessions,
    /// Other policy servers; none where nobody is asked.
    pub servers: Option<&'a Servers>,
    /// Whether requests of clients are counted by the shield.
    pub shields: bool,
    /// Name of this host.
    pub host: &'a str,
    /// Id of this decision.
    pub id: DecisionId,
    /// When an answer must be there.
    pub deadline: Instant,
}
