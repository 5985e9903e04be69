//! Typed reading of a document: every key is taken once, everything that is wrong is noted, and what nobody
//! took is unknown.
//!
//! A reading function answers `None` after it has noted a problem, so that reading goes on and all problems
//! are reported together. Each key is named, with its default, where it is taken and nowhere else.

use super::Surroundings;
use super::document::{self, Entry, Node, Table, Value};
use super::field::{Field, check_name};
use super::key_path::KeyPath;
use super::problem::{Place, Problem, Warning};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

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

/// A table that is being read.
pub(super) struct Section<'c> {
    pub(super) context: &'c Context<'c>,
    pub(super) place: Place,
    path: KeyPath,
    entries: Table,
    known: Vec<&'static str>,
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
        Section::new(self, self.whole.clone(), KeyPath::default(), entries)
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
    pub(super) fn new(context: &'c Context<'c>, place: Place, path: KeyPath, entries: Table) -> Self {
        Self {
            context,
            place,
            path,
            entries,
            known: Vec::new(),
        }
    }

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
            None => match document::default_value(default, &self.place) {
                Some(node) => read(self.field(key, node)),
                None => {
                    let path = self.path.key(key);
                    self.context.note(
                        self.place.clone(),
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

    /// True if the key is written with this text; another key's meaning may depend on it.
    pub(super) fn says(&self, key: &str, text: &str) -> bool {
        self.entries.get(key).is_some_and(
            |entry| matches!(&entry.node.value, Value::String(found) | Value::Text(found) if found == text),
        )
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
        read.flatten()
            .unwrap_or_else(|| Section::new(self.context, self.place.clone(), path, Table::new()))
    }

    /// The sections of a list such as `[[listener]]`; one empty section if it is left out.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'c>> {
        self.known.push(key);
        let path = self.path.key(key);
        let Some(entry) = self.entries.remove(key) else {
            return vec![Section::new(
                self.context,
                self.place.clone(),
                path.index(0),
                Table::new(),
            )];
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
pub(super) fn nearest<'w>(typed: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let typed = typed.to_lowercase().replace('-', "_");
    let distances = words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&typed, word), word));
    let (distance, word) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (word.len() / 3).max(1)).then_some(word)
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
