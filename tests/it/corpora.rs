//! Every file of `fuzz/corpus` through the function of its fuzz target (tests/README.md, "Fuzzing").

#[path = "../../fuzz/checks/mod.rs"]
pub(crate) mod checks;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// What must hold for an input.
type Check = fn(&[u8]);

/// The targets, each with its function.
const TARGETS: [(&str, Check); 5] = [
    ("command", checks::command),
    ("data", checks::data),
    ("envelope", checks::envelope),
    ("proxy", checks::proxy),
    ("session", checks::session),
];

#[test]
fn what_was_found_by_fuzzing_stays_mended() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut failed = Vec::new();
    for (target, check) in TARGETS {
        let files = files(&corpus.join(target));
        assert!(files.len() > 5, "the corpus of {target} is missing");
        for file in files {
            let input = fs::read(&file).unwrap();
            if catch_unwind(|| check(&input)).is_err() {
                failed.push(file);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Nothing lies about that no target reads.
#[test]
fn every_corpus_has_its_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let expected: Vec<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    let names = |folder: &str| -> Vec<String> {
        let name = |file: &std::path::PathBuf| file.file_stem().unwrap().to_string_lossy().into_owned();
        files(&fuzz.join(folder)).iter().map(name).collect()
    };
    assert_eq!(names("corpus"), expected);
    assert_eq!(names("fuzz_targets"), expected);
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}
