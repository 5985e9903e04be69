//! Positions in a TOML text, and the line of a mistake as it may be shown: with its values masked.

use super::problem::{Place, Problem};
use std::path::{Path, PathBuf};

/// The lines of a text.
pub(super) struct Lines<'t> {
    text: &'t str,
    file: Result<PathBuf, Place>,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str, file: &Path) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            file: Ok(file.to_owned()),
            starts: std::iter::once(0).chain(ends).collect(),
        }
    }

    /// For the text of a default, which stands for something that is missing at `place`.
    pub(super) fn of_default(place: &Place) -> Self {
        Self {
            text: "",
            file: Err(place.clone()),
            starts: vec![0],
        }
    }

    /// The place of the octet at `offset`.
    pub(super) fn place(&self, offset: usize) -> Place {
        let file = match &self.file {
            Ok(file) => file,
            Err(place) => return place.clone(),
        };
        let (line, column, _) = self.locate(offset);
        Place::Position {
            file: file.clone(),
            line,
            column,
        }
    }

    /// A mistake in the notation, with the line and a caret under the mistake.
    pub(super) fn syntax_problem(&self, offset: usize, message: &str) -> Problem {
        let (line, column, content) = self.locate(offset);
        let margin = " ".repeat(line.to_string().len());
        let masked = mask(content);
        let indent: String = masked
            .chars()
            .take(column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        Problem {
            place: self.place(offset),
            key: String::new(),
            message: format!("this is not TOML: {message}"),
            hint: Some(syntax_hint(content, message).to_owned()),
            excerpt: Some(format!("    {line} | {masked}\n    {margin} | {indent}^")),
        }
    }

    /// Line and column from 1, and the content of the line.
    fn locate(&self, offset: usize) -> (usize, usize, &'t str) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let content = self.text[start..].lines().next().unwrap_or_default();
        let column = self.text[start..offset].chars().count() + 1;
        (line, column, content)
    }
}

/// The line with every letter and digit of its values replaced, because a value may be a secret.
///
/// Only what looks like one of our keys before a `=`, and a section's header, stays readable.
fn mask(line: &str) -> String {
    let readable = match line.split_once('=') {
        Some((key, _)) if is_key(key.trim()) => key.len(),
        None if line.trim_start().starts_with('[') && is_key(line.trim().trim_matches(['[', ']'])) => {
            line.len()
        }
        _ => 0,
    };
    let (shown, hidden) = line.split_at(readable);
    let hidden = hidden.chars().map(|c| match c {
        '=' | '"' | '\'' | '[' | ']' | '{' | '}' | ',' | '#' | ' ' | '\t' => c,
        _ => '*',
    });
    shown.chars().chain(hidden).collect()
}

/// True for lower-case words with dots and underscores: Microsoft's secrets have capitals.
fn is_key(text: &str) -> bool {
    text.len() <= 60
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._ ".contains(&b))
}

fn syntax_hint(line: &str, message: &str) -> &'static str {
    let value = line.split_once('=').map(|(_, value)| value.trim());
    if message.contains("duplicate key") {
        return "this stands in the file twice: remove one of them";
    }
    match value {
        Some("") => "write a value after the `=`",
        Some(value) if value.contains('\\') && value.contains('"') => {
            "write Windows paths in single quotes, as in 'C:\\bridge\\office.secret'"
        }
        Some(value) if !value.starts_with(['"', '\'', '[', '{']) => {
            "texts, durations and sizes stand in double quotes, as in key = \"value\""
        }
        Some(_) if message.contains("string, expected") => "the quote at the end of the value is missing",
        Some(_) => {
            "look for a missing or superfluous quote, bracket or comma at the caret (values are masked here)"
        }
        None if line.trim_start().starts_with('[') => "a section begins with a line such as [account.office]",
        None => {
            "every line is a section such as [account.office] or a pair such as key = \"value\"; comments begin with #"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_masked_and_the_caret_stands_below_the_mistake() {
        let text = "a = 1\n\tclient_secret = \"Ab~8\u{e9}\n";
        let problem = Lines::new(text, Path::new("x.toml")).syntax_problem(text.len() - 1, "unclosed");
        assert_eq!(
            problem.to_string(),
            "x.toml:2:24: this is not TOML: unclosed\n    2 | \tclient_secret = \"*****\n      | \t                      ^\n    \
             hint: look for a missing or superfluous quote, bracket or comma at the caret (values are masked here)"
        );
    }

    #[test]
    fn a_line_that_is_no_pair_is_masked_whole() {
        for line in ["Ab8Q~x=Y", "Ab8Q~x", "[\"Ab8Q\"", "x\u{feff}=1"] {
            assert!(!mask(line).contains(char::is_alphanumeric), "{line}");
        }
        assert_eq!(mask("[account.office"), "[account.office");
    }
}
