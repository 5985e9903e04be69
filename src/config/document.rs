//! The document as written: a tree of values, each with the place it comes from.
//!
//! The tree is made of a TOML text and of environment variables, which override it:
//! `SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__TENANT` stands for `account.office.tenant`, numbers for elements of a
//! list (`…__LISTENER__0__BIND`).
//!
//! These types have no `Debug` on purpose: any value may be a secret that was put into the wrong place.

use super::excerpt::Lines;
use super::problem::{Place, Problem};
use std::collections::BTreeMap;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What the names of our variables begin with.
pub(super) const PREFIX: &str = "SMTP_OAUTH_BRIDGE__";

/// A value and where it comes from.
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A key's place and its value.
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) node: Node,
}

pub(super) type Table = BTreeMap<String, Entry>;

pub(super) enum Value {
    /// A string of the file.
    String(String),
    /// A whole number that fits.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// What no key has for a type, in words.
    Other(&'static str),
    List(Vec<Node>),
    Table(Table),
    /// What a variable says: text, number or list, whatever the key is.
    Text(String),
}

/// Reads a TOML text, or says everything that is wrong with its notation.
pub(super) fn from_toml(text: &str, file: &Path) -> Result<Table, Vec<Problem>> {
    let lines = Lines::new(text, file);
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table(root.into_inner(), &lines));
    }
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| lines.syntax_problem(error.span().map_or(0, |span| span.start), error.message()))
        .collect();
    problems.sort();
    // One mistake often breaks the rest of its line: the first thing said about a line is the useful one.
    problems.dedup_by_key(|problem| match problem.place {
        Place::Position { line, .. } => line,
        _ => 0,
    });
    Err(problems)
}

/// Reads a default, written as a TOML value; it stands for a key that is missing at `place`.
pub(super) fn default_value(text: &str, place: &Place) -> Option<Node> {
    let value = DeValue::parse(text).ok()?.into_inner();
    let lines = Lines::of_default(place);
    Some(Node {
        place: place.clone(),
        value: convert(value, &lines),
    })
}

/// Lays the variables with our prefix over `root`. What cannot be placed is returned as problems.
pub(super) fn overlay(root: &mut Table, variables: &BTreeMap<String, String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut tree = Table::new();
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        if path.iter().any(String::is_empty) {
            problems.push(variable_problem(
                name,
                "has an empty part",
                "keys are separated by exactly two underscores, as in SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__TENANT",
            ));
        } else if let Err(other) = plant(&mut tree, &path, name, text) {
            problems.push(variable_problem(
                name,
                &format!("contradicts {other}: one sets the whole key, the other a part of it"),
                "remove one of them",
            ));
        }
    }
    merge_tables(root, tree, &mut problems);
    problems
}

/// True if any variable is meant for us.
pub(super) fn has_variables(variables: &BTreeMap<String, String>) -> bool {
    variables.keys().any(|name| name.starts_with(PREFIX))
}

/// The entries of a table made of variables as a list, if all its keys are numbers from 0 without a gap.
pub(super) fn numbered(table: Table) -> Result<Vec<Node>, Place> {
    let mut list = Vec::new();
    for (index, entry) in by_number(table).into_iter().enumerate() {
        match entry {
            (Some(number), entry) if number == index => list.push(entry.node),
            (_, entry) => return Err(entry.place),
        }
    }
    Ok(list)
}

fn table(table: DeTable<'_>, lines: &Lines<'_>) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let place = lines.place(key.span().start);
            (
                key.into_inner().into_owned(),
                Entry {
                    place,
                    node: node(value, lines),
                },
            )
        })
        .collect()
}

fn node(value: Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Node {
    Node {
        place: lines.place(value.span().start),
        value: convert(value.into_inner(), lines),
    }
}

fn convert(value: DeValue<'_>, lines: &Lines<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Value::Other("a number that is too large"), Value::Integer),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(array) => Value::List(array.into_iter().map(|item| node(item, lines)).collect()),
        DeValue::Table(inner) => Value::Table(table(inner, lines)),
    }
}

/// Puts a variable into the tree of variables, or names the variable that is in the way.
fn plant(tree: &mut Table, path: &[String], name: &str, text: &str) -> Result<(), String> {
    let Some((key, rest)) = path.split_first() else {
        return Ok(());
    };
    let place = Place::Variable(name.to_owned());
    if rest.is_empty() {
        return match tree.get(key) {
            Some(entry) => Err(entry.place.to_string()),
            None => {
                let value = Value::Text(text.to_owned());
                let node = Node {
                    place: place.clone(),
                    value,
                };
                tree.insert(key.clone(), Entry { place, node });
                Ok(())
            }
        };
    }
    let entry = tree.entry(key.clone()).or_insert_with(|| Entry {
        place: place.clone(),
        node: Node {
            place,
            value: Value::Table(Table::new()),
        },
    });
    match &mut entry.node.value {
        Value::Table(inner) => plant(inner, rest, name, text),
        _ => Err(entry.place.to_string()),
    }
}

fn merge_tables(below: &mut Table, above: Table, problems: &mut Vec<Problem>) {
    for (key, entry) in above {
        match below.get_mut(&key) {
            Some(existing) => merge(existing, entry, problems),
            None => {
                below.insert(key, entry);
            }
        }
    }
}

fn merge(below: &mut Entry, above: Entry, problems: &mut Vec<Problem>) {
    match (&mut below.node.value, above.node.value) {
        (Value::Table(file), Value::Table(variables)) => merge_tables(file, variables, problems),
        (Value::List(list), Value::Table(variables)) => merge_list(list, variables, problems),
        (_, value) => {
            *below = Entry {
                place: above.place,
                node: Node {
                    place: above.node.place,
                    value,
                },
            };
        }
    }
}

fn merge_list(list: &mut Vec<Node>, variables: Table, problems: &mut Vec<Problem>) {
    for (number, entry) in by_number(variables) {
        match number {
            Some(number) if number < list.len() => {
                let node = list.remove(number);
                let mut below = Entry {
                    place: node.place.clone(),
                    node,
                };
                merge(&mut below, entry, problems);
                list.insert(number, below.node);
            }
            Some(number) if number == list.len() => list.push(entry.node),
            _ => problems.push(Problem {
                place: entry.place,
                key: String::new(),
                message: format!("names an element of a list that has {} in the file", list.len()),
                hint: Some(format!(
                    "elements are numbered from 0 without gaps; {} adds one",
                    list.len()
                )),
                excerpt: None,
            }),
        }
    }
}

/// The entries in the order of their numbers; those without one last.
fn by_number(table: Table) -> Vec<(Option<usize>, Entry)> {
    let mut entries: Vec<(Option<usize>, Entry)> = table
        .into_iter()
        .map(|(key, entry)| (key.parse().ok(), entry))
        .collect();
    entries.sort_by_key(|(number, _)| number.unwrap_or(usize::MAX));
    entries
}

fn variable_problem(name: &str, message: &str, hint: &str) -> Problem {
    Problem {
        place: Place::Variable(name.to_owned()),
        key: String::new(),
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
        excerpt: None,
    }
}
