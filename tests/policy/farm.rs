// SPDX-License-Identifier: GPL-3.0-or-later
//! Several policyd on one PostgreSQL.

use tests::postgres::Cluster;

use crate::gate::{Gate, rcpt, sql, store, strict};

#[tokio::test]
async fn a_triplet_seen_by_one_host_passes_at_the_other() {
    let cluster = Cluster::shared();
    let url = cluster.new_database().await;
    // Both start on the empty database at the same moment.
    let (first, second) = tokio::join!(Gate::ready(strict(&url)), Gate::ready(strict(&url)));
    let (mut one, mut two) = (first.client().await, second.client().await);
    let request = rcpt("192.0.2.1", "a@example.net", "r@example.org");
    let new = one.ask(&request).await.unwrap();
    assert!(new.starts_with("DEFER_IF_PERMIT 4.7.1 Greylisted, try again in 4 minutes; id "), "{new}");
    let early = two.ask(&request).await.unwrap();
    assert!(early.starts_with("DEFER_IF_PERMIT 4.7.1 "), "{early}");

    sql(&store(&url).await, "update greylist set first_seen = first_seen - 240000").await;
    let retry = rcpt("192.0.2.99", "A@example.net", "r@EXAMPLE.org");
    let passed = two.ask(&retry).await.unwrap();
    assert!(passed.starts_with("PREPEND X-Greylist: delayed 24"), "{passed}");
    assert_eq!(one.ask(&request).await.as_deref(), Some("DUNNO"));
    first.end().await;
    second.end().await;
}
