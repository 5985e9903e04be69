//! What the listener should achieve, and whether it did in this run.

use std::fmt;

/// One line for each expectation, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Expected {
    lines: Vec<String>,
}

impl Expected {
    pub(crate) fn at_least(&mut self, what: &str, value: f64, bound: f64) {
        self.note(what, value, &format!("≥ {bound}"), value >= bound);
    }

    pub(crate) fn at_most(&mut self, what: &str, value: f64, bound: f64) {
        self.note(what, value, &format!("≤ {bound}"), value <= bound);
    }

    fn note(&mut self, what: &str, value: f64, bound: &str, is_met: bool) {
        let verdict = if is_met { "met" } else { "**not met**" };
        self.lines
            .push(format!("| {what} | {bound} | {value:.2} | {verdict} |"));
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## What is expected, and whether this run met it\n")?;
        writeln!(f, "| | expected | here | |\n|---|--:|--:|---|")?;
        write!(f, "{}", self.lines.join("\n"))
    }
}
