// SPDX-License-Identifier: GPL-3.0-or-later
//! What the verdict of contentd means to a client that knows spam, its score and nothing else. Pure.
//!
//! A virus, a banned file and whatever else contentd would not let pass is spam to such a client. Clients that compare the score with a
//! limit of their own come to the same result: where the score alone would not say it, a line of its own has the points for it.

/// Points for what is refused for another reason than its score.
pub const REFUSED: f64 = 1000.0;

/// One sign.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Name of the rule.
    pub name: String,
    /// Its points.
    pub score: f64,
    /// What it means; may be empty.
    pub description: String,
}

impl Line {
    /// The description, or the name where there is none.
    pub fn described(&self) -> &str {
        if self.description.is_empty() { &self.name } else { &self.description }
    }
}

/// What answers tell about a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assessment {
    /// Whether it is spam to the client.
    pub is_spam: bool,
    /// The sum of all points.
    pub score: f64,
    /// The score from which a message is spam.
    pub required: f64,
    /// The signs, those with most points first.
    pub lines: Vec<Line>,
}

impl Assessment {
    /// Puts the signs in order. `refused`: what is against the message beside its score; its name becomes that of a line.
    pub fn new(mut lines: Vec<Line>, score: f64, required: f64, is_spam: bool, refused: Option<Line>) -> Assessment {
        let score = score + refused.as_ref().map_or(0.0, |line| line.score);
        lines.extend(refused);
        lines.iter_mut().for_each(make_safe);
        lines.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.name.cmp(&b.name)));
        Assessment { is_spam, score, required, lines }
    }

    /// The score as clients see it: one decimal; never that of spam for what is not.
    pub fn shown_score(&self) -> String {
        let (score, required) = (tenths(self.score), tenths(self.required));
        let shown = if self.is_spam || score < required { score } else { required - 1.0 };
        // The sign of what is rounded to zero is kept, as spamd does.
        if shown == 0.0 && self.score < 0.0 { "-0.0".to_owned() } else { format!("{:.1}", shown / 10.0) }
    }

    /// The required score as clients see it.
    pub fn shown_required(&self) -> String {
        format!("{:.1}", self.required)
    }

    /// Names of the signs, in their order in the alphabet, with commas.
    pub fn names(&self) -> String {
        let mut names: Vec<&str> = self.lines.iter().map(|line| line.name.as_str()).collect();
        names.sort_unstable();
        names.join(",")
    }
}

fn tenths(score: f64) -> f64 {
    let shown: f64 = format!("{score:.1}").parse().unwrap_or(score);
    (shown * 10.0).round()
}

/// Names stand in lists with commas and in header fields, descriptions in lines.
fn make_safe(line: &mut Line) {
    let plain = |c: char| if c.is_ascii_graphic() && c != ',' && c != ';' { c } else { '_' };
    line.name = line.name.chars().map(plain).collect();
    line.description = line.description.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, score: f64) -> Line {
        Line { name: name.into(), score, description: String::new() }
    }

    #[test]
    fn ham_never_shows_the_score_of_spam() {
        let ham = |score| Assessment { score, required: 5.0, ..Assessment::default() }.shown_score();
        assert_eq!(ham(4.96), "4.9");
        assert_eq!(ham(4.94), "4.9");
        assert_eq!(ham(0.0), "0.0");
        assert_eq!(ham(-0.01), "-0.0");
        assert_eq!(ham(-3.25), "-3.2");
        let spam = Assessment { is_spam: true, score: 4.96, required: 5.0, lines: Vec::new() };
        assert_eq!(spam.shown_score(), "5.0");
        assert_eq!(spam.shown_required(), "5.0");
    }

    #[test]
    fn what_is_refused_has_the_points_for_it() {
        let assessment =
            Assessment::new(vec![line("B", 0.5), line("A,\n", 0.5)], 1.0, 5.0, true, Some(line("VIRUS", REFUSED)));
        assert_eq!(assessment.shown_score(), "1001.0");
        assert_eq!(assessment.names(), "A__,B,VIRUS");
        assert_eq!(assessment.lines[0].name, "VIRUS");
    }
}
