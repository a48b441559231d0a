// SPDX-License-Identifier: GPL-3.0-or-later
//! Every sequence that is known from SMTP smuggling: one message goes in, one message comes out.

use crate::Collection;
use serde_json::Value;
use tests::filter::{Filter, one_in_one_out};
use tests::nexthop::NextHop;

#[tokio::test]
async fn no_known_sequence_ends_a_message() {
    let collection = Collection::unpack("conformance");
    let file = collection.path("conformance/smtp/end-of-data-sequences.json");
    let text = std::fs::read_to_string(file).expect("the sequences are there");
    let sequences: Value = serde_json::from_str(&text).expect("JSON");
    let list = |name: &str| sequences[name].as_array().expect("a list").clone();
    let sequences: Vec<Value> = [list("must_not_terminate"), list("not_in_scanner_added_here")].concat();
    assert!(sequences.len() > 10, "{}", sequences.len());
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "").await;
    for sequence in &sequences {
        one_in_one_out(&filter.address, &hop, sequence.as_str().expect("text").as_bytes()).await;
    }
    println!("end of data: {} sequences, one message each", sequences.len());
    filter.stop().await;
}
