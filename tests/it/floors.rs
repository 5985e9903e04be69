//! House rule 1: a room uses only what stands on a lower floor. ARCHITECTURE.md draws the floors; this test is what
//! makes the drawing true.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. Rooms on one floor are strangers to each other.
const FLOORS: &[&[&str]] = &[
    &["mail"],
    &["clock"],
    &[
        "config",
        "db",
        "explain",
        "files",
        "http",
        "shutdown",
        "telemetry",
    ],
    &["oauth", "policy", "report", "spool", "users"],
    &["history", "upstream"],
    &["delivery", "smtp"],
    &["admin", "alert", "sandbox"],
    &["daemon"],
    &["cli"],
];

/// The sandbox is written from Microsoft's documentation, not from our client: both sides must not share a mistake.
const FORBIDDEN_TO_SANDBOX: &[&str] = &[
    "upstream",
    "oauth",
    "policy",
    "explain",
    "delivery",
    "smtp",
    "spool",
    "config",
    "mail::header",
];

/// Lines a file may have before it needs a reason in its first comment.
const MAX_LINES: usize = 600;

#[test]
fn every_room_uses_only_lower_floors() {
    let mut wrong = Vec::new();
    for (room, path, source) in sources() {
        let Some(floor) = floor_of(&room) else {
            wrong.push(format!(
                "{}: the room {room:?} stands on no floor; add it to FLOORS",
                path.display()
            ));
            continue;
        };
        for (line, used) in used_rooms(&source) {
            match floor_of(&used) {
                _ if used == room => {}
                Some(other) if other < floor => {}
                _ => wrong.push(format!("{}:{line}: {room} must not use {used}", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_sandbox_shares_nothing_with_the_client_that_it_judges() {
    let mut wrong = Vec::new();
    for (_, path, source) in sources().into_iter().filter(|(room, ..)| room == "sandbox") {
        for (number, line) in code_lines(&source) {
            for forbidden in FORBIDDEN_TO_SANDBOX {
                if line.contains(&format!("crate::{forbidden}")) {
                    wrong.push(format!("{}:{number}: {forbidden}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_in_lib_stands_on_a_floor_and_no_floor_is_empty() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut declared: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    let mut placed: Vec<&str> = FLOORS.iter().flat_map(|floor| floor.iter().copied()).collect();
    declared.sort_unstable();
    placed.sort_unstable();
    assert_eq!(declared, placed);
}

#[test]
fn no_file_is_too_long_without_a_reason() {
    let mut wrong = Vec::new();
    for (_, path, source) in sources() {
        let lines = source.lines().count();
        if lines > MAX_LINES && !source.lines().take(12).any(|line| line.contains("long because")) {
            wrong.push(format!(
                "{}: {lines} lines; split it, or say \"long because …\"",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_database_room_speaks_sql() {
    for (room, path, source) in sources() {
        let sql = code_lines(&source).any(|(_, line)| line.contains("rusqlite"));
        assert!(
            !sql || room == "db",
            "{}: SQL belongs into src/db",
            path.display()
        );
    }
}

/// The scanner itself is checked, so that a change of style cannot blind it.
#[test]
fn the_scanner_sees_what_it_must_see() {
    let source = "use crate::spool::Store; // crate::cli\n//! crate::cli\nlet x = crate::http::chain(e);\n";
    let found: BTreeMap<usize, String> = used_rooms(source).into_iter().collect();
    assert_eq!(
        found,
        BTreeMap::from([(1, "spool".to_owned()), (3, "http".to_owned())])
    );
    assert!(sources().len() > 30);
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

fn used_rooms(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in code_lines(source) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            assert!(
                !rest.starts_with('{'),
                "line {number}: write one `use crate::room::…;` per room"
            );
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            found.push((number, name));
        }
    }
    found
}

fn code_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    source
        .lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default()))
}

/// Room, path and text of every source file inside a room.
fn sources() -> Vec<(String, PathBuf, String)> {
    let src = root().join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    files
        .into_iter()
        .filter_map(|path| {
            let first = path
                .strip_prefix(&src)
                .ok()?
                .components()
                .next()?
                .as_os_str()
                .to_str()?
                .to_owned();
            let room = first.strip_suffix(".rs").unwrap_or(&first).to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (room != "lib" && room != "main").then_some((room, path, text))
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
