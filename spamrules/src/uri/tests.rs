// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of finding URIs and of their forms.

use proptest::prelude::*;

use super::*;
use crate::text;

fn domains() -> domains::Settings {
    let mut domains = domains::Settings::default();
    for (key, value) in [("util_rb_tld", "com org uk net info"), ("util_rb_2tld", "co.uk")] {
        domains.set(key, value).unwrap().unwrap();
    }
    domains
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings
        .set("redirector_pattern", r"m'^https?:/*(?:\w+\.)?google\.com/url\?.*?(?<=[?&])q=(.*?)(?:$|[&\#])'i")
        .unwrap()
        .unwrap();
    settings.set("redirector_pattern", r"/^http:\/\/go\.one\.com\/to\/(\w.*)$/i").unwrap().unwrap();
    settings
}

fn uris(message: &str) -> Uris {
    let message = Message::parse(message.as_bytes());
    let texts = Texts::of(&message, &text::Settings::default());
    Uris::of(&message, &texts, &settings(), &domains())
}

fn raw(message: &str) -> Vec<String> {
    uris(message).details.iter().map(|uri| String::from_utf8_lossy(&uri.raw).into_owned()).collect()
}

fn forms(uri: &str) -> Vec<String> {
    let forms = canonical::forms(uri.as_bytes(), &settings().redirectors, &domains(), &mut canonical::Work::default());
    forms.iter().map(|form| String::from_utf8_lossy(form).into_owned()).collect()
}

#[test]
fn links_in_text() {
    assert_eq!(
        raw(
            "Subject: see www.one.com.\n\n(http://two.com/a_(b)) <HTTPS://three.com>, four.com/x! five.com/ six@seven.com, mailto:a@b.org?x"
        ),
        [
            "http://www.one.com",
            "http://two.com/a_(b",
            "HTTPS://three.com",
            "http://four.com/x",
            "mailto:six@seven.com",
            "mailto:a@b.org?x"
        ]
    );
    assert_eq!(
        raw("X: y\n\nfoo.invalid a.b@c bar.com_x mid:a@b.com mailto: e.g. file.txt http:// x@y"),
        Vec::<String>::new()
    );
    assert_eq!(raw("X: y\n\nhttp://a.com/x)y)z"), ["http://a.com/x)y"]);
    assert_eq!(
        raw("X: y\n\nemail:a@b.com ftp.x.org b.co.uk:80/z"),
        ["mailto:a@b.com", "ftp://ftp.x.org", "http://b.co.uk:80/z"]
    );
}

#[test]
fn types_hosts_and_anchors() {
    let found =
        uris("Content-Type: text/html\n\n<a href='http://www.a.co.uk/x'>www.b.com</a><img src='http://10.1.2.3/'>");
    let uri = found.details.iter().find(|uri| uri.raw == b"http://www.a.co.uk/x").unwrap();
    assert_eq!((uri.types.as_slice(), uri.anchors.as_slice()), (&["a"][..], &[b"www.b.com".to_vec()][..]));
    assert_eq!(uri.hosts, [("www.a.co.uk".to_owned(), "a.co.uk".to_owned())]);
    let text = found.details.iter().find(|uri| uri.raw == b"http://www.b.com").unwrap();
    assert_eq!(text.types, ["parsed", "schemeless"]);
    let address = found.details.iter().find(|uri| uri.raw == b"http://10.1.2.3/").unwrap();
    assert_eq!(address.domains().collect::<Vec<_>>(), ["10.1.2.3"]);
    assert!(found.list.contains(&b"http://www.a.co.uk/x".to_vec()));
}

#[test]
fn domains_of_signatures() {
    let found = uris("DKIM-Signature: v=1; d = ex ample.com; s=x\n\nx");
    assert_eq!(found.details[0].raw, b"domainkeys:example.com");
    assert!(found.list.is_empty());
}

#[test]
fn canonical_forms() {
    let has = |uri: &str, form: &str| assert!(forms(uri).contains(&form.to_owned()), "{uri}: {:?}", forms(uri));
    has("http:\\\\a.com\\b", "http://a.com/b");
    has("https:a.com?x", "https://a.com/?x");
    has("a.com/%62%20", "http://a.com/b%20");
    has("http://a.com:80/x", "http://a.com/x");
    has("http://u@a.com:80/", "http://a.com/");
    has("http://a.com/&#46;b&#x41;y", "http://a.com/.bAy");
    has("http://a.com./", "http://a.com/");
    has("http://0x7f.1.010.8/", "http://127.1.8.8/");
    has("http://3232235777/", "http://192.168.1.1/");
    has("http://0xC0A80101/", "http://192.168.1.1/");
    has("http://example/", "http://www.example.com/");
    has("mailto:a@b.com?subject=x", "mailto:a@b.com");
    has("mailto:%20a@b.com", "mailto:a@b.com");
    has("mailto:x <a@b.com>", "mailto:a@b.com");
}

#[test]
fn redirectors_are_followed() {
    assert!(forms("http://go.one.com/to/two.com/x").contains(&"http://two.com/x".to_owned()));
    let found = forms("http://www.google.com/url?sa=U&q=http%3A//x.com/a&y");
    assert!(found.contains(&"http://x.com/a".to_owned()), "{found:?}");
    assert!(forms("http://a.com/?u=http:b.com&c").contains(&"http://b.com".to_owned()));
    let deep = "http://a.com/?u=".repeat(500);
    assert!(forms(&deep).len() < 100);
}

#[test]
fn crafted_texts_take_linear_time() {
    let start = std::time::Instant::now();
    for piece in
        ["a.", "a@", "www.", "http://", "a.com ", "a.b/c:", "@", ".", "%20", "a@b.com,", "http://a.com/?http://"]
    {
        let text = piece.repeat(300_000 / piece.len());
        let _ = uris(&format!("X: y\n\n{text}"));
        let _ = uris(&format!("Content-Type: text/html\n\n<a href=\"{text}\">"));
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(120));
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        find::in_text(&bytes, &domains(), |found| drop(find::judge(&found, &domains())));
        let _ = canonical::forms(&bytes, &settings().redirectors, &domains(), &mut canonical::Work::default());
        let _ = host::of_uri(&bytes, &domains());
    }

    #[test]
    fn any_uri_never_panics(uri in "(https?://?)?[a-z0-9.@:/?#%&;x<>\\\\ -]{0,40}") {
        let _ = forms(&uri);
        find::in_text(uri.as_bytes(), &domains(), |found| drop(find::judge(&found, &domains())));
    }
}
