// SPDX-License-Identifier: GPL-3.0-or-later
//! The self test of DNS lists (RFC 5782 section 5): of addresses 127.0.0.2 must be listed and 127.0.0.1 must not, of domains `test` must and `invalid` must
//! not. At the start, then every now and then, and before a list that was set aside is asked again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::asker::Asker;
use super::breaker::{Tested, Why};
use super::{Judged, List};
use crate::policy::Live;

/// How often it is looked whose test is due.
const LOOK: Duration = Duration::from_millis(500);

/// Tests the lists of the configuration in force, each when it is due, until `stop`.
pub async fn keep_testing(live: Arc<Live>, asker: Asker, stop: CancellationToken) {
    let mut look_again = tokio::time::interval(LOOK);
    look_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look_again.tick() => {}
            () = stop.cancelled() => return,
        }
        let lists = live.current().perimeter.lists.all.clone();
        tokio::select! {
            () = test_due(&lists, &asker) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Tests all lists whose time has come, at once.
pub async fn test_due(lists: &[Arc<List>], asker: &Asker) {
    let now = std::time::Instant::now();
    let mut tests = tokio::task::JoinSet::new();
    for list in lists.iter().filter(|list| list.test_due(now)) {
        let (list, asker) = (list.clone(), asker.clone());
        tests.spawn(async move {
            let result = test(&list, &asker).await;
            if list.tested(result, std::time::Instant::now()) {
                asker.forget(&list);
            }
        });
    }
    while tests.join_next().await.is_some() {}
}

async fn test(list: &List, asker: &Asker) -> Tested {
    let (listed, unlisted) = (&list.tests.0, &list.tests.1);
    let ask = async |what: &str| if what.is_empty() { None } else { Some(asker.ask_dns(list, what).await) };
    let (listed, unlisted) = tokio::join!(ask(listed), ask(unlisted));
    judge(listed, unlisted)
}

/// None outside: there is no such test entry. None inside: no answer.
fn judge(listed: Option<Option<Judged>>, unlisted: Option<Option<Judged>>) -> Tested {
    for answer in [&listed, &unlisted].into_iter().flatten() {
        match answer {
            Some(Judged::Bad(why)) => return Tested::Bad(*why),
            None => return Tested::Bad(Why::NoAnswer),
            Some(Judged::Good(_)) => {}
        }
    }
    match (listed, unlisted) {
        (_, Some(Some(Judged::Good(records)))) if !records.is_empty() => Tested::Bad(Why::ListsEverything),
        (Some(Some(Judged::Good(records))), _) if records.is_empty() => Tested::Bad(Why::ListsNothing),
        _ => Tested::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn both_entries_count() {
        let good = |records: &[Ipv4Addr]| Some(Some(Judged::Good(records.to_vec())));
        let two = [Ipv4Addr::new(127, 0, 0, 2)];
        let blocked = Why::Blocked(Ipv4Addr::new(127, 255, 255, 254));
        for (listed, unlisted, result) in [
            (good(&two), good(&[]), Tested::Good),
            (None, None, Tested::Good),
            (good(&two), None, Tested::Good),
            (good(&two), good(&two), Tested::Bad(Why::ListsEverything)),
            (good(&[]), good(&[]), Tested::Bad(Why::ListsNothing)),
            (good(&[]), good(&two), Tested::Bad(Why::ListsEverything)),
            (Some(None), good(&[]), Tested::Bad(Why::NoAnswer)),
            (good(&two), Some(None), Tested::Bad(Why::NoAnswer)),
            (Some(Some(Judged::Bad(blocked))), Some(None), Tested::Bad(blocked)),
            (good(&two), Some(Some(Judged::Bad(blocked))), Tested::Bad(blocked)),
        ] {
            assert_eq!(judge(listed.clone(), unlisted.clone()), result, "{listed:?} {unlisted:?}");
        }
    }
}
