// SPDX-License-Identifier: GPL-3.0-or-later
//! Whom Postfix takes for its own (`mynetworks`, `myhostname`), against whom we do: a client that calls itself by our name in HELO is judged
//! (`perimeter.helo.own`), unless it is one of ours.
//!
//! Pure. What stands in tables instead of main.cf is not seen.

use std::net::IpAddr;

use ipnet::IpNet;

/// What differs, one sentence each. `main` and `overrides` are the output of `postconf -nx` and `-Px`, `asked_by` the lists that ask us, `names` what
/// counts as our name; `is_own` tells of an address whether it is one of ours.
pub(super) fn hints(
    main: &str,
    overrides: &str,
    asked_by: &[String],
    names: &[String],
    is_own: &dyn Fn(IpAddr) -> bool,
) -> Vec<String> {
    let lines = || main.lines().chain(overrides.lines()).filter_map(|line| line.split_once(" ="));
    let value = |name: &str| lines().find(|(known, _)| *known == name).map(|(_, value)| value.trim());
    let mut hints = Vec::new();
    let host = value("myhostname").filter(|host| !host.is_empty() && !host.contains('$'));
    if let Some(host) = host.filter(|host| !names.iter().any(|name| matches(name, host))) {
        hints.push(format!(
            "perimeter.helo.own: Postfix calls itself {host} (myhostname), which is neither the name of this host nor in perimeter.helo.own_names"
        ));
    }
    // Whom Postfix lets pass before we are asked, we do not judge.
    let judged = |list: &&String| {
        let before = value(list).and_then(|value| value.split_once("check_policy_service")).map(|(before, _)| before);
        !before.is_some_and(|before| before.contains("permit_mynetworks"))
    };
    let Some(list) = asked_by.iter().find(judged) else { return hints };
    let unknown: Vec<String> = value("mynetworks")
        .unwrap_or_default()
        .split([',', ' ', '\t'])
        .filter_map(network)
        // This host itself is never judged.
        .filter(|network| !network.network().is_loopback())
        .filter(|network| !is_own(network.network()) || !is_own(network.broadcast()))
        .map(|network| network.to_string())
        .collect();
    if !unknown.is_empty() {
        hints.push(format!(
            "perimeter.helo.own: {list} asks about clients in mynetworks too, and greylist.own_networks has not {}: who calls itself by our name there is judged",
            unknown.join(", ")
        ));
    }
    hints
}

/// `.example.org` is everything below it.
fn matches(name: &str, host: &str) -> bool {
    match name.starts_with('.') {
        true => host.to_lowercase().ends_with(&name.to_lowercase()),
        false => name.eq_ignore_ascii_case(host),
    }
}

/// An entry of mynetworks: IPv6 stands in brackets.
fn network(text: &str) -> Option<IpNet> {
    let plain: String = text.chars().filter(|c| !matches!(c, '[' | ']')).collect();
    plain.parse().ok().or_else(|| plain.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "myhostname = MX.example.org\nmynetworks = 127.0.0.0/8 [2001:db8::]/64, 192.0.2.0/24 hash:/etc/x\n\
        smtpd_recipient_restrictions = permit_mynetworks, check_policy_service inet:127.0.0.1:10023\n\
        smtpd_helo_restrictions = check_policy_service inet:127.0.0.1:10023\n";

    fn told(asked_by: &[&str], names: &[&str], own: &[&str]) -> Vec<String> {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let own: Vec<IpNet> = own.iter().map(|network| network.parse().unwrap()).collect();
        hints(MAIN, "", &texts(asked_by), &texts(names), &|ip| own.iter().any(|network| network.contains(&ip)))
    }

    #[test]
    fn names_and_networks_of_postfix_are_compared_with_ours() {
        const BOTH: &[&str] = &["smtpd_recipient_restrictions", "smtpd_helo_restrictions"];
        let all = ["2001:db8::/32", "192.0.2.0/24"];
        assert_eq!(told(BOTH, &["mx.example.org"], &all), Vec::<String>::new());
        assert_eq!(told(BOTH, &[".example.org"], &all), Vec::<String>::new());
        let name = told(BOTH, &["gate.example.org"], &all);
        assert!(name.len() == 1 && name[0].contains("calls itself MX.example.org"), "{name:?}");
        let networks = told(BOTH, &["mx.example.org"], &["192.0.2.0/25"]);
        assert!(networks.len() == 1 && networks[0].contains("has not 2001:db8::/64, 192.0.2.0/24:"), "{networks:?}");
        assert!(networks[0].contains("smtpd_helo_restrictions asks"), "{networks:?}");
        assert_eq!(told(&BOTH[..1], &["mx.example.org"], &[]), Vec::<String>::new(), "never asked about them");
    }
}
