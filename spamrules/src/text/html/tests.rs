// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of rendering and facts.

use proptest::prelude::*;

use super::render::Rendered;
use super::*;
use crate::text::chars::Chars;

fn html(source: &str) -> Rendered {
    let source =
        if source.is_ascii() { Chars::from_octets(source.as_bytes()) } else { Chars::from_text(source.to_owned()) };
    render(&source, source.octets().len())
}

fn text(source: &str) -> String {
    String::from_utf8_lossy(html(source).pieces.all().0).into_owned()
}

#[test]
fn elements_make_white_space() {
    assert_eq!(text("a <b>b</b><br/> c<p>d</p>e<td>f"), "a b\nc\n\nd\n\ne f");
    assert_eq!(text("<title>t</title><style>s</style><script>x</script>b&nbsp;&amp;"), "\n\nt\n\nb &");
}

#[test]
fn invisible_text_is_told_and_read() {
    let found = html("seen <font color=white>unseen</font> again");
    assert_eq!(found.pieces.all().0, b"seen unseen again");
    assert!(found.facts.font_low_contrast);
}

#[test]
fn counts_and_ratios() {
    let facts =
        html("<html><body>V<i>ia</i>gra<foo></bar><img width=10 height=20><img width='50%' height=x></body></html>")
            .facts;
    assert_eq!((facts.tags, facts.elements, facts.closed_extra), (10, 8, 1));
    assert_eq!(facts.number("bad_tag_ratio"), Some(0.2));
    assert_eq!(facts.number("obfuscation_ratio"), Some(0.2));
    assert_eq!(facts.number("image_area"), Some(200.0 + 400.0 * 200.0));
    assert_eq!(facts.inside.get(&b"foo"[..]), Some(&1));
    assert_eq!(facts.inside.get(&b"bar"[..]), Some(&0));
    assert_eq!(facts.number("no_such"), None);
    assert_eq!(html("text").facts.number("bad_tag_ratio"), None);
}

#[test]
fn links_and_their_texts() {
    let facts = html(
        "<base href=http://h/d/i.html><a href='x'>one <img src=y.gif></a><a>none</a>\
         <meta http-equiv=refresh content='0; url=http://m/;x'><form action=mailto:a@b>",
    )
    .facts;
    let links: Vec<_> =
        facts.links.iter().map(|link| String::from_utf8_lossy(link.uri.octets()).into_owned()).collect();
    assert_eq!(links, ["http://h/d/i.html", "http://h/d/x", "x", "http://h/d/y.gif", "", "http://m/", "mailto:a@b"]);
    assert_eq!(facts.anchors, [Chars::from_octets(b"one <img>\n"), Chars::from_octets(b"none")]);
    assert!(facts.form_action_mailto);
}

#[test]
fn crafted_sources_take_linear_time() {
    let start = std::time::Instant::now();
    for piece in [
        "<b>",
        "<p>",
        "<td></span>",
        "<a href=x>y",
        "a<i>",
        "<font color=#123>",
        "<x/y/href=1 ",
        "&nbsp;",
        "<!-- -->",
        "</p>",
    ] {
        let source = piece.repeat(200_000 / piece.len());
        let _ = html(&source);
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(120));
}

proptest! {
    #[test]
    fn any_text_never_panics(source in "\\PC{0,200}") {
        let _ = html(&source);
    }

    #[test]
    fn any_markup_never_panics(pieces in proptest::collection::vec(prop_oneof![
        Just("<p>"), Just("</p>"), Just("<font color=red size=+9>"), Just("<a href='\u{e9}'>"), Just("</a>"), Just("<td style='color:"),
        Just("display: none'>"), Just("x"), Just(" "), Just("&#160;"), Just("&euro;"), Just("\u{a0}"), Just("<img width=1 height=99%>"),
        Just("<base href=http://x>"), Just("<script>"), Just("<title>"), Just("\""), Just(">")], 0..40))
    {
        let _ = html(&pieces.concat());
    }
}
