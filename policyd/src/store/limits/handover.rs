// SPDX-License-Identifier: GPL-3.0-or-later
//! Hands charges that were made without the store over to it (`limits::handover` says what is left of them), some hundred in one statement.

use common::store::StoreError;

use crate::limits::handover::{Charged, Rest};
use crate::limits::plan::Order;
use crate::limits::settle::{Batch, Settled};
use crate::store::Connection;

/// Requests in one statement, as in the queue.
const BATCH: usize = 256;

/// Charges all that is left of these. Those that the store knows already are charged no second time.
pub async fn hand_over(
    connection: &mut Connection,
    charged: Vec<Charged>,
    rest: &mut Rest,
    now: i64,
) -> Result<(), StoreError> {
    let mut orders: Vec<Order> = Vec::with_capacity(charged.len());
    let mut ended = 0;
    for charged in charged {
        let (order, gone) = rest.order(charged, now);
        ended += gone;
        orders.extend(Some(order).filter(|order| !order.is_empty()));
    }
    for orders in orders.chunks(BATCH) {
        let outcome = super::charge(connection, &Batch::of(orders.iter()), None).await?;
        let made = outcome.settled.iter().filter(|settled| **settled == Settled::Charged).count();
        count("charged", made as u64);
        count("repeated", (orders.len() - made) as u64);
    }
    count("ended", ended);
    Ok(())
}

fn count(outcome: &'static str, number: u64) {
    if number > 0 {
        metrics::counter!("octroi_policyd_limit_handed_over_total", "outcome" => outcome).increment(number);
    }
}
