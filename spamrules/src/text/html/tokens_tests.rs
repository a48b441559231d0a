// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of the tokenizer.

use proptest::prelude::*;

use super::*;

pub(super) fn outline(source: &str) -> Vec<String> {
    let mut tokens = Tokens::new(source.as_bytes());
    let mut out = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    while let Some(token) = tokens.next() {
        out.push(match token {
            Token::Start(name) => {
                let attribute = |(name, value): &Attribute| match value {
                    Some(value) => format!(" {}={}", text(name), text(value)),
                    None => format!(" {}", text(name)),
                };
                format!("<{}{}", text(name), tokens.attributes().iter().map(attribute).collect::<String>())
            }
            Token::End(name) => format!("/{}", text(name)),
            Token::Text { text: found, literal } => format!("{}{}", if literal { "literal " } else { "" }, text(found)),
            Token::Comment(found) | Token::Declaration(found) => text(found),
        });
    }
    out
}

#[test]
fn tags_and_attributes() {
    assert_eq!(outline("<a b = c d='e f' g>x</a y>"), ["<a b=c d=e f g", "x", "/a"]);
    assert_eq!(outline("<a/b/><a =x><b<i>"), ["<a/b/", "<a =x", "<b<i"].map(str::to_owned).to_vec());
    assert_eq!(outline("<1>a< b"), ["<1>a", "<", " b"]);
    assert_eq!(outline("</>a</ b>"), ["</>", "a", "</ b>"]);
}

#[test]
fn text_at_the_end_is_given_in_two() {
    assert_eq!(outline("foo bar  "), ["foo bar", "  "]);
    assert_eq!(outline("foo bar"), ["foo", " bar"]);
    assert_eq!(outline("x<b"), ["x", "<b"]);
}

#[test]
fn comments_and_declarations() {
    assert_eq!(outline("<!-- a -- >b<!-->c-->d<!>e"), ["<!-- a -- >", "b", "<!-->c-->", "d", "<!>", "e"]);
    assert_eq!(outline("<!-- x <b> y"), ["<!-- x <b>", " y"]);
    assert_eq!(outline("<!DOCTYPE a \">\" --b-->c"), ["<!DOCTYPE a \">\" --b-->", "c"]);
    assert_eq!(outline("<![if a]>b<![CDATA[<i>]]>c"), ["<![if a]>", "b", "literal <i>", "c"]);
    assert_eq!(outline("<![ignore[a<b>]]>c"), ["c"]);
}

#[test]
fn literal_elements() {
    assert_eq!(outline("<script>a<b></script ><i>"), ["<script", "literal a<b>", "/script", "<i"]);
    assert_eq!(outline("<style>a</styl"), ["<style", "literal a</styl", "/style"]);
    assert_eq!(outline("<title>a <b>c"), ["<title", "a ", "/title", "<b", "c"]);
    assert_eq!(outline("<textarea>a<b>"), ["<textarea", "a<b>"]);
}

#[test]
fn crafted_sources_take_linear_time() {
    let start = std::time::Instant::now();
    for piece in
        ["<", "<!--", "<![a[", "</", "<a b=\"", "]]", "<!--- ", "<script></scrip", "<!doctype ", "&", "<![include[<b>"]
    {
        let source = piece.repeat(200_000 / piece.len());
        let mut tokens = Tokens::new(source.as_bytes());
        while tokens.next().is_some() {}
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(60));
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut tokens = Tokens::new(&bytes);
        while tokens.next().is_some() {}
    }

    #[test]
    fn any_markup_never_panics(pieces in proptest::collection::vec(prop_oneof![
        Just("<"), Just(">"), Just("<!--"), Just("-->"), Just("<![CDATA["), Just("]]>"), Just("</"), Just("<a "), Just("b=\""),
        Just("<script>"), Just("</script>"), Just("<title>"), Just(" "), Just("x"), Just("<!doctype"), Just("\"")], 0..40))
    {
        let _ = outline(&pieces.concat());
    }
}
