// SPDX-License-Identifier: GPL-3.0-or-later
//! Orders: what becomes of a message beyond "may go on" or "refused". Checks put them into `Course::orders`; here they become the header
//! line by which contentd hears of them (`common::handover`), because behind a proxy filter Postfix carries none of them out; or, where no
//! contentd is behind, the actions of Postfix itself (`policyd.orders`).

use common::handover::{Note, Peer, Scope, write};

pub use common::orders::{Order, OrderAddress, OrderError};

use crate::config::OrdersBy;
use crate::course::Course;
use crate::policy::Policy;
use crate::request::{PolicyRequest, ProtocolState};
use crate::verdict::{DecisionId, PostfixOrder, Verdict};

/// Puts the header lines for contentd in front of those that the message gets anyway. Orders count only when the request may go on: a
/// recipient that is refused gives none. `now`: seconds since 1970.
pub fn hand_over(
    policy: &Policy,
    (id, now): (DecisionId, u64),
    request: &PolicyRequest<'_>,
    verdict: &Verdict,
    course: &mut Course,
) {
    if policy.settings.policyd.orders == OrdersBy::Postfix {
        return give_to_postfix(id, verdict, course);
    }
    let tells_results = policy.settings.handover.results;
    if (course.orders.is_empty() && !tells_results) || !verdict.goes_on() {
        return;
    }
    let peer = Peer { address: request.client_address, port: request.client_port };
    let mut note = Note { decision: id.as_str().to_owned(), ..results(course) };
    match &policy.secret {
        None => count(&course.orders, "not_configured"),
        // Postfix takes no header once it has passed the message on.
        Some(_) if request.state == ProtocolState::EndOfMessage => count(&course.orders, "too_late"),
        Some(secret) => {
            if tells_results && has_results(&note) {
                course.headers.push(write(secret, &note, Scope { peer, recipient: "", now }));
            }
            if !course.orders.is_empty() {
                count(&course.orders, "handed_over");
                note.orders.clone_from(&course.orders);
                note.orders.sort();
                note.orders.dedup();
                course.headers.insert(0, write(secret, &note, Scope { peer, recipient: &request.recipient, now }));
            }
        }
    }
}

/// Makes the orders actions of Postfix, which does them at every stage.
fn give_to_postfix(id: DecisionId, verdict: &Verdict, course: &mut Course) {
    if !verdict.goes_on() {
        return;
    }
    count(&course.orders, "postfix");
    for order in &course.orders {
        // Postfix writes a text to its log; the address is what it sends to.
        let argument = order.address().map_or_else(|| format!("by policyd, id {}", id.as_str()), str::to_owned);
        course.postfix_orders.extend(PostfixOrder::new(order.word(), argument));
    }
    if let Some(filter) = course.filter.take() {
        metrics::counter!("octroi_policyd_orders_total", "order" => "filter", "outcome" => "postfix").increment(1);
        course.postfix_orders.extend(PostfixOrder::new("filter", filter));
    }
}

/// What the checks have found out that contentd can use.
fn results(course: &Course) -> Note {
    let spf = course.facts.spf.flatten().map(|spf| spf.result.word().to_owned());
    let mut note = Note { spf, ..Note::default() };
    let perimeter = course.facts.perimeter.as_deref();
    let listings = perimeter.map(|found| [&found.client, &found.domains].map(|lists| lists.get()));
    for listings in listings.into_iter().flatten().flatten() {
        note.dnsbl = Some(note.dnsbl.unwrap_or_default().saturating_add(listings.score()));
        note.lists.extend(listings.entries.iter().map(|entry| entry.list.clone()));
    }
    note
}

fn has_results(note: &Note) -> bool {
    note.spf.is_some() || note.dnsbl.is_some()
}

fn count(orders: &[Order], outcome: &'static str) {
    for order in orders {
        metrics::counter!("octroi_policyd_orders_total", "order" => order.word(), "outcome" => outcome).increment(1);
    }
    if !["handed_over", "postfix"].contains(&outcome) && !orders.is_empty() {
        let orders: Vec<String> = orders.iter().map(ToString::to_string).collect();
        tracing::warn!(orders = orders.join(", "), reason = outcome, "orders that contentd will not hear of");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use common::handover::{Secret, read};

    const NOW: u64 = 1_795_324_438;

    fn policy(results: bool) -> Policy {
        let mut policy = Policy::load(Settings::default()).unwrap();
        policy.settings.handover.results = results;
        policy.secret = Secret::parse("0123456789abcdef0123456789abcdef").ok();
        policy
    }

    fn request() -> PolicyRequest<'static> {
        PolicyRequest {
            state: ProtocolState::Rcpt,
            client_address: "192.0.2.77".parse().ok(),
            client_port: 4711,
            recipient: "ann@example.test".into(),
            ..PolicyRequest::default()
        }
    }

    fn headers(policy: &Policy, request: &PolicyRequest<'_>, verdict: &Verdict, course: &mut Course) -> Vec<String> {
        hand_over(policy, (DecisionId::from_bits(7), NOW), request, verdict, course);
        course.headers.clone()
    }

    fn ordered(orders: &[Order]) -> Course {
        let mut course = Course::default();
        course.orders.extend_from_slice(orders);
        course
    }

    #[test]
    fn orders_go_first_and_for_their_recipient() {
        let policy = policy(false);
        let mut course = ordered(&[Order::Hold, Order::Discard, Order::Hold]);
        course.headers.push("Received-SPF: none".to_owned());
        let headers = headers(&policy, &request(), &Verdict::Pass, &mut course);
        assert_eq!(headers.len(), 2);
        let value = headers[0].strip_prefix("X-Octroi-Order: ").unwrap();
        let peer = Peer { address: "192.0.2.77".parse().ok(), port: 4711 };
        let received = read(policy.secret.as_ref().unwrap(), value, peer, NOW).unwrap();
        assert_eq!(received.note.orders, [Order::Discard, Order::Hold]);
        assert_eq!(received.note.decision, "0000000007");
        assert!(received.is_about(["ann@example.test"].into_iter()));
        assert!(!received.is_about(["bob@example.test"].into_iter()));
    }

    #[test]
    fn what_is_refused_or_too_late_orders_nothing() {
        let order = || ordered(&[Order::Hold]);
        let refused = Verdict::Defer("4.7.1 x".into());
        assert!(headers(&policy(true), &request(), &refused, &mut order()).is_empty());
        let late = PolicyRequest { state: ProtocolState::EndOfMessage, ..request() };
        assert!(headers(&policy(true), &late, &Verdict::Pass, &mut order()).is_empty());
        let off = Policy { secret: None, ..policy(false) };
        assert!(headers(&off, &request(), &Verdict::Pass, &mut order()).is_empty());
    }

    #[test]
    fn postfix_is_told_itself_where_no_contentd_is_behind() {
        let mut policy = policy(false);
        policy.settings.policyd.orders = OrdersBy::Postfix;
        let mut course = ordered(&[Order::Hold, "bcc=box@our.test".parse().unwrap()]);
        course.filter = Some("smtp:[127.0.0.1]:10024".to_owned());
        assert!(headers(&policy, &request(), &Verdict::Defer("4.7.1 x".into()), &mut course).is_empty());
        assert!(course.postfix_orders.is_empty());
        assert!(headers(&policy, &request(), &Verdict::Pass, &mut course).is_empty());
        let mut actions = Vec::new();
        for order in course.postfix_orders {
            let mut action = String::new();
            Verdict::PassWithOrder(order).action(&mut action);
            actions.push(action);
        }
        let expected = ["HOLD by policyd, id 0000000007", "BCC box@our.test", "FILTER smtp:[127.0.0.1]:10024"];
        assert_eq!(actions, expected);
    }

    #[test]
    fn results_are_told_when_there_are_some() {
        use crate::checks::pool::Spf;
        let mut course = Course::default();
        assert!(headers(&policy(true), &request(), &Verdict::Pass, &mut course).is_empty());
        course.facts.spf = Some(Some(Spf { result: common::spf::SpfResult::Softfail, everybody: false }));
        assert!(headers(&policy(false), &request(), &Verdict::Pass, &mut course).is_empty());
        let headers = headers(&policy(true), &request(), &Verdict::Pass, &mut course);
        assert!(headers[0].starts_with("X-Octroi-Results: ") && headers[0].contains("; spf=softfail;"), "{headers:?}");
    }
}
