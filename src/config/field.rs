//! One value, read as the type that its key has.

use super::document::{self, Node, Value};
use super::key_path::KeyPath;
use super::problem::Place;
use super::reader::{Context, Section, nearest};
use super::units;
use std::path::PathBuf;
use std::time::Duration;

/// A value that is being read.
pub(super) struct Field<'c> {
    pub(super) context: &'c Context<'c>,
    pub(super) node: Node,
    pub(super) path: KeyPath,
}

/// Why a text is not a value of its key's type, and what to do. Neither repeats the text.
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) hint: String,
}

impl<'c> Field<'c> {
    /// Notes a problem of this value.
    pub(super) fn refuse<T>(&self, message: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        self.context
            .note(self.node.place.clone(), &self.path, message, hint);
        None
    }

    /// Notes a doubt about this value.
    pub(super) fn warn(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.context
            .warn(self.node.place.clone(), &self.path, message, hint);
    }

    /// The same key and place without the value: to note something about all of a list when it has been read.
    pub(super) fn clone_place(&self) -> Self {
        Self {
            context: self.context,
            node: Node {
                place: self.node.place.clone(),
                value: Value::Other("nothing"),
            },
            path: self.path.clone(),
        }
    }

    /// The text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.node.value {
            Value::String(text) | Value::Text(text) => Some(text),
            _ => self.wrong_type("a text", "write it in double quotes, as in key = \"value\""),
        }
    }

    /// True if it is this text.
    pub(super) fn says(&self, word: &str) -> bool {
        matches!(&self.node.value, Value::String(text) | Value::Text(text) if text == word)
    }

    /// A string that `parse` understands.
    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, Complaint>) -> Option<T> {
        match parse(self.text()?) {
            Ok(value) => Some(value),
            Err(complaint) => self.refuse(complaint.message, complaint.hint),
        }
    }

    /// One of some words. `later` are words that other versions know.
    pub(super) fn choice<T: Copy>(&self, allowed: &[(&str, T)], later: &[&str]) -> Option<T> {
        self.parsed(|text| {
            if let Some((_, value)) = allowed.iter().find(|(word, _)| *word == text) {
                return Ok(*value);
            }
            let words: Vec<&str> = allowed.iter().map(|(word, _)| *word).collect();
            let list = words
                .iter()
                .map(|word| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(", ");
            if let Some(word) = later.iter().find(|word| **word == text) {
                return Err(Complaint::new(
                    format!("\"{word}\" is not supported in this version"),
                    format!("supported: {list}"),
                ));
            }
            let hint = match nearest(text, words) {
                Some(word) => format!("did you mean \"{word}\"? possible: {list}"),
                None => format!("possible: {list}"),
            };
            Err(Complaint::new("is not one of the possible values", hint))
        })
    }

    /// A whole number within limits.
    pub(super) fn integer(&self, limits: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let number = match &self.node.value {
            Value::Integer(number) => Some(*number),
            Value::Text(text) => text.trim().parse().ok(),
            _ => return self.wrong_type("a whole number", "write it without quotes"),
        };
        let range = format!("write a whole number from {} to {}", limits.start(), limits.end());
        match number {
            Some(number) if limits.contains(&number) => Some(number),
            Some(_) => self.refuse("is outside of its limits", range),
            None => self.refuse("is not a whole number", range),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let text = match &self.node.value {
            Value::Boolean(boolean) => return Some(*boolean),
            Value::Text(text) => text.trim(),
            _ => "",
        };
        match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => self.wrong_type("true or false", "write true or false, without quotes"),
        }
    }

    /// A duration such as `1h30m`.
    pub(super) fn duration(&self) -> Option<Duration> {
        let hint = "write a number and its unit d, h, m or s, as in \"30s\", \"1h30m\" or \"5d\"";
        if matches!(self.node.value, Value::Integer(_)) {
            return self.refuse("has no unit", hint);
        }
        self.parsed(|text| units::parse_duration(text).map_err(|message| Complaint::new(message, hint)))
    }

    /// A size such as `10GiB`, or a number of octets.
    pub(super) fn size(&self) -> Option<u64> {
        let hint = "write bytes, or a number with KB, MB, GB, TB or KiB, MiB, GiB, TiB, as in \"10GiB\"";
        match &self.node.value {
            Value::Integer(number) => match u64::try_from(*number) {
                Ok(octets) => Some(octets),
                Err(_) => self.refuse("is negative", hint),
            },
            Value::Other(_) | Value::Boolean(_) => self.wrong_type("a size", hint),
            _ => self.parsed(|text| units::parse_size(text).map_err(|message| Complaint::new(message, hint))),
        }
    }

    /// A path; a relative one begins at the directory of the file.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self.text()? {
            "" => self.refuse("is empty", "write a path"),
            text => Some(self.context.directory.join(text)),
        }
    }

    /// The elements of a list. A single string counts as a list of one; a variable may hold several, separated
    /// by commas.
    pub(super) fn items(self) -> Option<Vec<Field<'c>>> {
        let numbered = self.is_numbered();
        let Self { context, node, path } = self;
        let place = node.place;
        let nodes = match node.value {
            Value::List(nodes) => nodes,
            Value::Text(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let node = |part: &str| Node {
                    place: place.clone(),
                    value: Value::Text(part.to_owned()),
                };
                parts.map(node).collect()
            }
            value @ Value::String(_) => vec![Node { place, value }],
            Value::Table(table) if numbered => match document::numbered(table) {
                Ok(nodes) => nodes,
                Err(place) => {
                    context.note(
                        place,
                        &path,
                        "has elements that are not numbered from 0 without gaps",
                        format!("the first one is {}", path.index(0).variable()),
                    );
                    return None;
                }
            },
            value => {
                let field = Self {
                    context,
                    node: Node { place, value },
                    path,
                };
                return field.wrong_type("a list", "write it in brackets, as in key = [\"one\", \"two\"]");
            }
        };
        let field = |(index, node)| Self {
            context,
            node,
            path: path.index(index),
        };
        Some(nodes.into_iter().enumerate().map(field).collect())
    }

    /// The elements of a list that may not be empty, all read.
    pub(super) fn list<T>(self, read: impl FnMut(Field<'c>) -> Option<T>) -> Option<Vec<T>> {
        let (context, place, path) = (self.context, self.node.place.clone(), self.path.clone());
        let items = self.items()?;
        if items.is_empty() {
            context.note(
                place,
                &path,
                "is an empty list",
                "write at least one element, or leave the key out",
            );
            return None;
        }
        // Not collected as one Option: the problems of all elements are wanted.
        let read: Vec<Option<T>> = items.into_iter().map(read).collect();
        read.into_iter().collect()
    }

    /// The value as a section.
    pub(super) fn section(self, hint: &str) -> Option<Section<'c>> {
        match self.node.value {
            Value::Table(entries) => Some(Section::new(self.context, self.node.place, self.path, entries)),
            _ => self.wrong_type("a section", hint),
        }
    }

    fn wrong_type<T>(&self, expected: &str, hint: &str) -> Option<T> {
        let found = match &self.node.value {
            Value::String(_) | Value::Text(_) => "a text",
            Value::Integer(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Other(what) => what,
            Value::List(_) => "a list",
            Value::Table(_) => "a section",
        };
        self.refuse(format!("must be {expected}, but is {found}"), hint)
    }

    /// True for a table that variables made: it may stand for a list.
    pub(super) fn is_numbered(&self) -> bool {
        matches!(
            (&self.node.place, &self.node.value),
            (Place::Variable(_), Value::Table(_))
        )
    }
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// Checks a name that the administrator chose: it becomes part of variables, file names and metrics.
pub(super) fn check_name(name: &str) -> Result<(), Complaint> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let separated = name.contains("__") || name.starts_with('_') || name.ends_with('_');
    if name.is_empty() || name.len() > 60 || !name.bytes().all(allowed) {
        Err(Complaint::new(
            "is not a possible name",
            "names consist of lower-case letters a to z, digits and underscores, and have at most 60 characters",
        ))
    } else if separated {
        Err(Complaint::new(
            "is not a possible name",
            "an underscore stands alone between letters or digits: two in a row separate keys in environment variables",
        ))
    } else {
        Ok(())
    }
}
