//! Typed reading of a document: every key is taken once, everything that is wrong is noted, and what nobody
//! took is unknown.
//!
//! A reading function answers `None` after it has noted a problem, so that reading goes on and all problems
//! are reported together. Each key is named, with its default, where it is taken and nowhere else.

use super::Surroundings;
use super::document::{self, Entry, Node, PREFIX, Table, Value};
use super::problem::{Place, Problem, Warning};
use super::units;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What all readers of one document share.
pub(super) struct Context<'a> {
    pub(super) surroundings: &'a Surroundings,
    /// What relative paths are relative to.
    pub(super) directory: PathBuf,
    /// The document as a whole.
    whole: Place,
    findings: RefCell<Findings>,
}

/// What reading brought to light besides the values.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
    /// Every key that was asked for, with its default in TOML notation: `account.NAME.tenant`.
    pub(super) known: BTreeMap<String, Option<&'static str>>,
    unknown: Vec<Unknown>,
}

struct Unknown {
    place: Place,
    parent: KeyPath,
    key: String,
    siblings: Vec<&'static str>,
}

/// Why a text is not a value of its key's type, and what to do. Neither repeats the text.
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) hint: String,
}

/// The full path of a key.
#[derive(Clone, Default)]
pub(super) struct KeyPath(Vec<Segment>);

#[derive(Clone)]
enum Segment {
    Key(String),
    /// A name that the administrator chose.
    Name(String),
    Index(usize),
}

/// A table that is being read.
pub(super) struct Section<'c> {
    pub(super) context: &'c Context<'c>,
    pub(super) place: Place,
    path: KeyPath,
    entries: Table,
    known: Vec<&'static str>,
}

/// A value that is being read.
pub(super) struct Field<'c> {
    pub(super) context: &'c Context<'c>,
    pub(super) node: Node,
    path: KeyPath,
}

impl<'a> Context<'a> {
    pub(super) fn new(surroundings: &'a Surroundings, whole: Place, directory: PathBuf) -> Self {
        Self {
            surroundings,
            directory,
            whole,
            findings: RefCell::default(),
        }
    }

    pub(super) fn root(&self, entries: Table) -> Section<'_> {
        Section {
            context: self,
            place: self.whole.clone(),
            path: KeyPath::default(),
            entries,
            known: Vec::new(),
        }
    }

    /// Everything found, with the unknown keys explained (`later`: keys that other versions have).
    pub(super) fn finish(self, later: &[&str]) -> Findings {
        let mut findings = self.findings.into_inner();
        for unknown in std::mem::take(&mut findings.unknown) {
            let problem = unknown.into_problem(&findings.known, later);
            findings.problems.push(problem);
        }
        findings.problems.sort();
        findings.warnings.sort();
        findings
    }

    /// True if a problem with a key of this section was noted.
    pub(super) fn has_problem_below(&self, section: &str) -> bool {
        self.findings
            .borrow()
            .problems
            .iter()
            .any(|problem| problem.key.starts_with(section))
    }

    pub(super) fn note(
        &self,
        place: Place,
        key: &KeyPath,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let problem = problem(place, key, message.into(), hint.into());
        self.findings.borrow_mut().problems.push(problem);
    }

    pub(super) fn warn(
        &self,
        place: Place,
        key: &KeyPath,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let warning = Warning(problem(place, key, message.into(), hint.into()));
        self.findings.borrow_mut().warnings.push(warning);
    }
}

impl<'c> Section<'c> {
    /// The value of a key, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Field<'c>> {
        self.know(key, None);
        let node = self.entries.remove(key)?.node;
        Some(self.field(key, node))
    }

    /// A value that may be left out.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Field<'c>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.take(key) {
            Some(field) => read(field).map(Some),
            None => Some(None),
        }
    }

    /// A value without which there is no meaning.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        read: impl FnOnce(Field<'c>) -> Option<T>,
    ) -> Option<T> {
        if let Some(field) = self.take(key) {
            return read(field);
        }
        self.missing(key, hint);
        None
    }

    /// Notes that a key or section is missing.
    pub(super) fn missing(&self, key: &str, hint: &str) {
        if self.entries.keys().any(|typed| nearest(typed, [key]).is_some()) {
            // It is there, misspelt: that is reported as unknown, and once is enough.
            return;
        }
        let path = self.path.key(key);
        // A variable that made the section says little about one that is missing in it.
        let (place, hint) = match &self.place {
            Place::Variable(_) | Place::Environment => (
                self.context.whole.clone(),
                format!("{hint}; the variable is {}", path.variable()),
            ),
            place => (place.clone(), hint.to_owned()),
        };
        self.context.note(place, &path, "is missing", hint);
    }

    /// A value with a default, which is written in TOML notation and read like any other.
    pub(super) fn defaulted<T>(
        &mut self,
        key: &'static str,
        default: &'static str,
        read: impl FnOnce(Field<'c>) -> Option<T>,
    ) -> Option<T> {
        let field = self.take(key);
        self.know(key, Some(default));
        match field {
            Some(field) => read(field),
            None => match document::default_value(default) {
                Some(node) => read(self.field(key, node)),
                None => {
                    let path = self.path.key(key);
                    self.context.note(
                        Place::Default,
                        &path,
                        "has an unreadable default",
                        "report this as a bug",
                    );
                    None
                }
            },
        }
    }

    /// True if the key is written, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// True if something was not taken yet.
    pub(super) fn has_more(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Forgets what the file says if variables say anything: for sections that hold one of several things.
    pub(super) fn prefer_variables(&mut self) {
        if self
            .entries
            .values()
            .any(|entry| matches!(entry.place, Place::Variable(_)))
        {
            self.entries
                .retain(|_, entry| matches!(entry.place, Place::Variable(_)));
        }
    }

    /// A section, empty if it is left out.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'c> {
        let path = self.path.key(key);
        let read = self.entries.remove(key).map(|entry| {
            let field = Field {
                context: self.context,
                node: entry.node,
                path: path.clone(),
            };
            field.section(&format!("write a line [{path}] and the keys below it"))
        });
        self.known.push(key);
        read.flatten().unwrap_or_else(|| Section {
            context: self.context,
            place: self.place.clone(),
            path,
            entries: Table::new(),
            known: Vec::new(),
        })
    }

    /// The sections of a list such as `[[listener]]`; one empty section if it is left out.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'c>> {
        self.known.push(key);
        let path = self.path.key(key);
        let Some(entry) = self.entries.remove(key) else {
            return vec![Section {
                context: self.context,
                place: self.place.clone(),
                path: path.index(0),
                entries: Table::new(),
                known: Vec::new(),
            }];
        };
        let hint = format!("write a line [[{path}]], with two brackets, above each {path}");
        let field = Field {
            context: self.context,
            node: entry.node,
            path,
        };
        if !matches!(&field.node.value, Value::List(_)) && !field.is_numbered() {
            field.refuse::<()>("must be a list of sections", &hint);
            return Vec::new();
        }
        let items = field.items().unwrap_or_default();
        items.into_iter().filter_map(|item| item.section(&hint)).collect()
    }

    /// The sections that the administrator named, such as `[account.office]`.
    pub(super) fn named(&mut self, key: &'static str) -> Vec<(String, Section<'c>)> {
        let path = self.path.key(key);
        let hint = format!(
            "each {path} has a name of your choice: write a line [{path}.office] and the keys below it"
        );
        let mut named = Vec::new();
        for (name, entry) in self.section(key).entries {
            let path = path.name(&name);
            let place = entry.place;
            let field = Field {
                context: self.context,
                node: entry.node,
                path,
            };
            let Some(section) = field.section(&hint) else {
                continue;
            };
            match check_name(&name) {
                Ok(()) => named.push((name, section)),
                Err(complaint) => {
                    self.context
                        .note(place, &section.path, complaint.message, complaint.hint);
                }
            }
        }
        named
    }

    /// Notes a problem of the section as a whole.
    pub(super) fn refuse(&self, message: &str, hint: &str) {
        self.context.note(self.place.clone(), &self.path, message, hint);
    }

    /// Notes a doubt about a key that is not written.
    pub(super) fn warn(&self, key: &str, message: &str, hint: &str) {
        self.context
            .warn(self.place.clone(), &self.path.key(key), message, hint);
    }

    /// Notes that everything was taken that is known; the rest is unknown.
    pub(super) fn finish(self) {
        let mut findings = self.context.findings.borrow_mut();
        for (key, entry) in self.entries {
            findings.unknown.push(Unknown {
                place: innermost(entry),
                parent: self.path.clone(),
                key,
                siblings: self.known.clone(),
            });
        }
    }

    fn know(&mut self, key: &'static str, default: Option<&'static str>) {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let pattern = self.path.key(key).pattern();
        self.context.findings.borrow_mut().known.insert(pattern, default);
    }

    fn field(&self, key: &str, node: Node) -> Field<'c> {
        Field {
            context: self.context,
            node,
            path: self.path.key(key),
        }
    }
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

    /// The text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.node.value {
            Value::String(text) | Value::Text(text) => Some(text),
            _ => self.wrong_type("a text", "write it in double quotes, as in key = \"value\""),
        }
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
            Value::Other(_) => self.wrong_type("a size", hint),
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
            Value::Table(entries) => Some(Section {
                context: self.context,
                place: self.node.place,
                path: self.path,
                entries,
                known: Vec::new(),
            }),
            _ => self.wrong_type("a section", hint),
        }
    }

    fn wrong_type<T>(&self, expected: &str, hint: &str) -> Option<T> {
        let found = match &self.node.value {
            Value::String(_) | Value::Text(_) => "a text",
            Value::Integer(_) => "a number",
            Value::Other(what) => what,
            Value::List(_) => "a list",
            Value::Table(_) => "a section",
        };
        self.refuse(format!("must be {expected}, but is {found}"), hint)
    }

    /// True for a table that variables made: it may stand for a list.
    fn is_numbered(&self) -> bool {
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

impl KeyPath {
    fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    fn name(&self, name: &str) -> Self {
        self.with(Segment::Name(name.to_owned()))
    }

    fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.0.push(segment);
        path
    }

    fn variable(&self) -> String {
        let parts = self.0.iter().map(|segment| match segment {
            Segment::Key(key) | Segment::Name(key) => key.to_ascii_uppercase(),
            Segment::Index(index) => index.to_string(),
        });
        format!("{PREFIX}{}", parts.collect::<Vec<_>>().join("__"))
    }

    /// The path without what the administrator chose.
    fn pattern(&self) -> String {
        let parts = self.0.iter().filter_map(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Name(_) => Some("NAME"),
            Segment::Index(_) => None,
        });
        parts.collect::<Vec<_>>().join(".")
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, segment) in self.0.iter().enumerate() {
            let dot = if n > 0 { "." } else { "" };
            match segment {
                Segment::Key(key) | Segment::Name(key) if is_showable(key) => write!(f, "{dot}{key}")?,
                Segment::Key(_) | Segment::Name(_) => write!(f, "{dot}(…)")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Unknown {
    fn into_problem(self, known: &BTreeMap<String, Option<&'static str>>, later: &[&str]) -> Problem {
        let path = self.parent.key(&self.key);
        if later.contains(&path.pattern().as_str()) {
            return problem(
                self.place,
                &path,
                "is not supported in this version".to_owned(),
                "remove it".to_owned(),
            );
        }
        let in_file = !matches!(self.place, Place::Variable(_));
        let hint = if let Some(key) = nearest(&self.key, self.siblings.iter().copied()) {
            match in_file {
                true => format!("did you mean `{key}`?"),
                false => format!("did you mean {}?", self.parent.key(key).variable()),
            }
        } else if let Some(home) = home(&self.key, known) {
            format!("`{}` belongs {home}", self.key)
        } else {
            let siblings: Vec<String> = self
                .siblings
                .iter()
                .map(|key| match in_file {
                    true => (*key).to_owned(),
                    false => self.parent.key(key).variable(),
                })
                .collect();
            format!("known here: {}", siblings.join(", "))
        };
        problem(self.place, &path, "unknown key".to_owned(), hint)
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

/// Where a key belongs that is unknown where it stands.
fn home(key: &str, known: &BTreeMap<String, Option<&'static str>>) -> Option<String> {
    let mut homes = known.keys().filter_map(|pattern| match pattern.rsplit_once('.') {
        Some((section, last)) if last == key => Some(match section {
            "listener" => "below [[listener]]".to_owned(),
            section => format!("below [{section}]"),
        }),
        None if pattern == key => Some("at the top of the file, before the first [section]".to_owned()),
        _ => None,
    });
    homes.next()
}

/// The word that was probably meant.
fn nearest<'w>(typed: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let typed = typed.to_lowercase().replace('-', "_");
    let distances = words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&typed, word), word));
    let (distance, word) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (word.len() / 3).max(1)).then_some(word)
}

/// True for what can be a key and cannot be a secret of Microsoft's, which has 40 characters.
fn is_showable(key: &str) -> bool {
    key.len() <= 30
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_- ".contains(&b))
}

/// For a section made of variables, the name of the first whole variable in it.
fn innermost(entry: Entry) -> Place {
    match (entry.place, entry.node.value) {
        (place @ Place::Variable(_), Value::Table(table)) => {
            table.into_values().next().map_or(place, innermost)
        }
        (place, _) => place,
    }
}

fn problem(place: Place, key: &KeyPath, message: String, hint: String) -> Problem {
    Problem {
        place,
        key: key.to_string(),
        message,
        hint: Some(hint),
        excerpt: None,
    }
}
