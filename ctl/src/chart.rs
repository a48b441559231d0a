// SPDX-License-Identifier: GPL-3.0-or-later
//! Curves over days as an SVG picture (SVG 1.1, section 9.6 and 10): panels one below the other, each with axes, ticks and a legend. Pure; what
//! is plotted is the caller's.
//!
//! The picture stands alone: no script, no font, nothing from elsewhere. Its colours follow the reader's light or dark setting, and lines differ in
//! dashes too, for whoever does not see the colours.

use std::fmt::Write;

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chart {
    /// What it shows.
    pub(crate) title: String,
    /// One line below the title.
    pub(crate) note: String,
    /// The days, as text, in their order.
    pub(crate) days: Vec<String>,
    /// From top to bottom.
    pub(crate) panels: Vec<Panel>,
}

/// Curves over one axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panel {
    /// What it shows.
    pub(crate) title: String,
    /// At most as many as there are colours; others are left out.
    pub(crate) curves: Vec<Curve>,
}

/// One curve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Curve {
    /// Its name in the legend.
    pub(crate) name: String,
    /// One value for each day.
    pub(crate) values: Vec<u64>,
}

/// Colours on light and on dark ground (after Okabe and Ito, for all kinds of colour vision), and dashes.
const STYLES: [(&str, &str, &str); 8] = [
    ("#0072b2", "#56b4e9", ""),
    ("#b34e00", "#e69f00", ""),
    ("#00735a", "#2fbf95", ""),
    ("#a83279", "#e58fc0", ""),
    ("#5f4b00", "#f0e442", "7 3"),
    ("#4b4fa6", "#9aa0ff", "7 3"),
    ("#8c1c13", "#ff8a75", "2 3"),
    ("#444444", "#cccccc", "2 3"),
];

/// How many curves a panel can have.
pub(crate) const CURVES: usize = STYLES.len();

const WIDTH: f64 = 1020.0;
/// Room beside the plot: the axis on the left, the legend on the right.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 300.0;
/// Above the first panel.
const TOP: f64 = 70.0;
/// A panel's plot, and what is above and below it.
const PLOT: f64 = 210.0;
const ABOVE: f64 = 30.0;
const BELOW: f64 = 46.0;
/// From one line of the legend to the next.
const LINE: f64 = 22.0;
/// Points are marked up to so many days.
const MARKED: usize = 62;
/// Most dates below an axis.
const DATES: usize = 8;
/// Most characters of a name in the legend.
const NAME: usize = 24;

/// The picture as a file.
pub(crate) fn svg(chart: &Chart) -> String {
    let height = TOP + chart.panels.len() as f64 * (ABOVE + PLOT + BELOW);
    let mut out = String::new();
    let title = escaped(&chart.title);
    put(
        &mut out,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             role=\"img\" aria-labelledby=\"title\">\n<title id=\"title\">{title}</title>"
        ),
    );
    style(&mut out);
    put(&mut out, format_args!("<rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>"));
    text(&mut out, "heading", (LEFT, 30.0), "start", &chart.title);
    text(&mut out, "note", (LEFT, 50.0), "start", &chart.note);
    let mut top = TOP + ABOVE;
    for panel in &chart.panels {
        draw(&mut out, panel, &chart.days, top);
        top += PLOT + BELOW + ABOVE;
    }
    out += "</svg>\n";
    out
}

fn style(out: &mut String) {
    let mut colours = [String::new(), String::new()];
    for (at, (light, dark, dashes)) in STYLES.iter().enumerate() {
        let _ = write!(colours[0], ".c{at}{{stroke:{light};fill:{light}");
        let _ = write!(
            colours[0],
            "{}}}",
            if dashes.is_empty() { String::new() } else { format!(";stroke-dasharray:{dashes}") }
        );
        let _ = write!(colours[1], ".c{at}{{stroke:{dark};fill:{dark}}}");
    }
    put(
        out,
        format_args!(
            "<style>\ntext{{font:12px system-ui,\"DejaVu Sans\",sans-serif;fill:#333}}\n.heading{{font-size:17px;font-weight:600;fill:#111}}\n\
             .panel{{font-size:13px;font-weight:600;fill:#111}}\n.note,.tick{{fill:#555}}\n.ground{{fill:#fff}}\n\
             .grid{{stroke:#e2e2e2}}\n.axis{{stroke:#777}}\n.line{{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}}\n\
             {}\npolyline.line{{fill:none}}\ncircle{{stroke:none}}\n\
             @media (prefers-color-scheme:dark){{\ntext{{fill:#ddd}}\n.heading,.panel{{fill:#fff}}\n.note,.tick{{fill:#aaa}}\n.ground{{fill:#16181c}}\n\
             .grid{{stroke:#33373e}}\n.axis{{stroke:#8a8f98}}\n{}\npolyline.line{{fill:none}}\ncircle{{stroke:none}}\n}}\n</style>",
            colours[0], colours[1]
        ),
    );
}

fn draw(out: &mut String, panel: &Panel, days: &[String], top: f64) {
    text(out, "panel", (LEFT, top - 12.0), "start", &panel.title);
    let curves = panel.curves.get(..CURVES.min(panel.curves.len())).unwrap_or_default();
    let highest = curves.iter().flat_map(|curve| curve.values.iter().copied()).max().unwrap_or_default();
    let scale = Scale::of(highest);
    values(out, &scale, top);
    dates(out, days, top);
    // The first curve lies on top of the others.
    for (at, curve) in curves.iter().enumerate().rev() {
        line(out, at, curve, &scale, days, top);
    }
    for (at, curve) in curves.iter().enumerate() {
        legend(out, at, curve, top + LINE * at as f64);
    }
}

/// The axis of values, from 0 to the last of its ticks.
#[derive(Debug, PartialEq, Eq)]
struct Scale {
    step: u64,
    top: u64,
}

impl Scale {
    /// Four to six steps of 1, 2 or 5 times a power of ten, whole numbers.
    fn of(highest: u64) -> Scale {
        let mut step: u64 = 1;
        for factor in [2.0, 2.5, 2.0].into_iter().cycle() {
            if step.saturating_mul(6) > highest || step > u64::MAX / 16 {
                break;
            }
            step = (step as f64 * factor) as u64;
        }
        Scale { step, top: highest.div_ceil(step).max(1).saturating_mul(step) }
    }

    fn ticks(&self) -> impl Iterator<Item = u64> {
        let step = self.step;
        (0..=self.top / step).map(move |number| number * step)
    }

    fn y(&self, value: u64, top: f64) -> f64 {
        top + PLOT - PLOT * (value as f64 / self.top as f64)
    }
}

fn values(out: &mut String, scale: &Scale, top: f64) {
    let right = WIDTH - RIGHT;
    for value in scale.ticks() {
        let y = scale.y(value, top);
        let class = if value == 0 { "axis" } else { "grid" };
        put(out, format_args!("<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"));
        text(out, "tick", (LEFT - 8.0, y + 4.0), "end", &short(value));
    }
    put(out, format_args!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{LEFT}\" y1=\"{top}\" y2=\"{}\"/>", top + PLOT));
}

fn dates(out: &mut String, days: &[String], top: f64) {
    let bottom = top + PLOT;
    let step = days.len().saturating_sub(1).div_ceil(DATES - 1).max(1);
    // The last day has a date in any case.
    for (at, day) in days.iter().enumerate().rev().step_by(step) {
        let x = x(at, days.len());
        put(
            out,
            format_args!("<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>", bottom + 5.0),
        );
        text(out, "tick", (x, bottom + 20.0), "middle", day);
    }
}

/// The place of a day; a single one stands in the middle.
fn x(at: usize, days: usize) -> f64 {
    let width = WIDTH - RIGHT - LEFT;
    if days < 2 { LEFT + width / 2.0 } else { LEFT + width * at as f64 / (days - 1) as f64 }
}

fn line(out: &mut String, style: usize, curve: &Curve, scale: &Scale, days: &[String], top: f64) {
    let mut points = String::new();
    for (at, value) in curve.values.iter().enumerate() {
        let _ = write!(points, "{:.1},{:.1} ", x(at, days.len()), scale.y(*value, top));
    }
    let name = escaped(&curve.name);
    put(
        out,
        format_args!(
            "<polyline class=\"line c{style}\" points=\"{}\"><title>{name}</title></polyline>",
            points.trim_end()
        ),
    );
    if days.len() > MARKED {
        return;
    }
    for ((at, value), day) in curve.values.iter().enumerate().zip(days) {
        let (x, y) = (x(at, days.len()), scale.y(*value, top));
        let day = escaped(day);
        put(
            out,
            format_args!(
                "<circle class=\"c{style}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"><title>{name}, {day}: {value}</title></circle>"
            ),
        );
    }
}

fn legend(out: &mut String, style: usize, curve: &Curve, y: f64) {
    let x = WIDTH - RIGHT + 18.0;
    let y = y + 8.0;
    put(out, format_args!("<polyline class=\"line c{style}\" points=\"{x},{y} {},{y}\"/>", x + 24.0));
    let sum = curve.values.iter().copied().fold(0, u64::saturating_add);
    let cut = curve.name.chars().count() > NAME;
    let name: String = curve.name.chars().take(if cut { NAME - 1 } else { NAME }).collect();
    let name = if cut { name + "…" } else { name };
    text(out, "name", (x + 32.0, y + 4.0), "start", &name);
    text(out, "tick", (WIDTH - 12.0, y + 4.0), "end", &short(sum));
}

fn text(out: &mut String, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = escaped(text);
    put(out, format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = writeln!(out, "{line}");
}

/// A number as an axis bears it: `950`, `12k`, `1.5M`.
pub(crate) fn short(value: u64) -> String {
    let units: [(u64, &str); 3] = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    for (unit, letter) in units {
        if value >= unit && (value >= 10 * unit || value.is_multiple_of(unit / 10)) {
            let tenths = (value / (unit / 10)) % 10;
            let whole = value / unit;
            return if tenths == 0 || whole >= 100 {
                format!("{whole}{letter}")
            } else {
                format!("{whole}.{tenths}{letter}")
            };
        }
    }
    value.to_string()
}

/// Text between tags and in attributes (XML 1.0, sections 2.2 and 2.4).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&apos;",
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use roxmltree::{Document, Node};

    fn chart(curves: Vec<Curve>, days: usize) -> Chart {
        let days = (1..=days).map(|day| format!("2026-11-{day:02}")).collect();
        Chart { title: "Rules".into(), note: "all".into(), days, panels: vec![Panel { title: "Hits".into(), curves }] }
    }

    fn curve(name: &str, values: &[u64]) -> Curve {
        Curve { name: name.into(), values: values.to_vec() }
    }

    fn title<'a>(node: Node<'a, '_>) -> &'a str {
        node.children().find(|child| child.has_tag_name("title")).and_then(|child| child.text()).unwrap_or_default()
    }

    fn named<'a>(document: &'a Document<'_>, tag: &'static str) -> impl Iterator<Item = Node<'a, 'a>> {
        document.descendants().filter(move |node| node.tag_name().name() == tag)
    }

    #[test]
    fn the_picture_shows_the_numbers() {
        let text = svg(&chart(vec![curve("A & <B>", &[0, 50, 100]), curve("C", &[7, 0, 3])], 3));
        let document = Document::parse(&text).expect("well-formed");
        let told: Vec<&str> = named(&document, "circle").map(title).collect();
        assert_eq!(told.len(), 6);
        assert!(told.contains(&"A & <B>, 2026-11-02: 50") && told.contains(&"C, 2026-11-01: 7"), "{told:?}");
        let line = named(&document, "polyline").find(|node| title(*node) == "A & <B>").expect("its curve");
        let points: Vec<(f64, f64)> = line
            .attribute("points")
            .expect("points")
            .split(' ')
            .map(|point| point.split_once(',').expect("a pair"))
            .map(|(x, y)| (x.parse().expect("a number"), y.parse().expect("a number")))
            .collect();
        let (bottom, top) = (TOP + ABOVE + PLOT, TOP + ABOVE);
        assert_eq!(
            points,
            [(LEFT, bottom), ((LEFT + WIDTH - RIGHT) / 2.0, (bottom + top) / 2.0), (WIDTH - RIGHT, top)]
        );
        let texts: Vec<&str> = named(&document, "text").filter_map(|node| node.text()).collect();
        for expected in ["Rules", "Hits", "0", "20", "100", "2026-11-01", "2026-11-03", "A & <B>", "150", "C", "10"] {
            assert!(texts.contains(&expected), "{expected}: {texts:?}");
        }
    }

    #[test]
    fn scales_end_at_a_tick_above_all_values() {
        let ticks = |highest| Scale::of(highest).ticks().collect::<Vec<_>>();
        assert_eq!(ticks(0), [0, 1]);
        assert_eq!(ticks(3), [0, 1, 2, 3]);
        assert_eq!(ticks(6), [0, 2, 4, 6]);
        assert_eq!(ticks(23), [0, 5, 10, 15, 20, 25]);
        assert_eq!(ticks(100), [0, 20, 40, 60, 80, 100]);
        assert_eq!(ticks(123_456), [0, 50_000, 100_000, 150_000]);
        for highest in [1, 9, 77, 1_000_001, u64::MAX / 3, u64::MAX] {
            let scale = Scale::of(highest);
            assert!((2..=11).contains(&scale.ticks().count()), "{highest}: {scale:?}");
        }
    }

    #[test]
    fn numbers_are_short_and_not_wrong() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1k"), (1_234, "1234"), (1_500, "1.5k"), (12_345, "12.3k")];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
        assert_eq!((short(2_000_000), short(345_678_901)), ("2M".to_owned(), "345M".to_owned()));
    }

    #[test]
    fn one_day_none_and_too_many_curves() {
        let document = svg(&chart(vec![curve("A", &[5])], 1));
        assert_eq!(named(&Document::parse(&document).unwrap(), "circle").count(), 1);
        assert!(Document::parse(&svg(&chart(Vec::new(), 0))).is_ok());
        let many = svg(&chart((0..20).map(|_| curve("A", &[1, 2])).collect(), 2));
        assert_eq!(named(&Document::parse(&many).unwrap(), "circle").count(), 2 * CURVES);
        let year = svg(&chart(vec![curve("A", &[1; 400])], 400));
        let document = Document::parse(&year).unwrap();
        let dates = named(&document, "text").filter(|node| node.text().is_some_and(|text| text.starts_with("2026")));
        assert!((2..=DATES).contains(&dates.count()));
    }

    proptest! {
        #[test]
        fn any_name_and_value_is_xml(name in ".*", title in ".*", values in proptest::collection::vec(any::<u64>(), 0..70)) {
            let mut chart = chart(vec![curve(&name, &values)], values.len());
            chart.title = title;
            let text = svg(&chart);
            prop_assert!(Document::parse(&text).is_ok());
        }
    }
}
