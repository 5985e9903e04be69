//! Reads the table of envelope and header (README.md beside this file).

/// One case of the table.
#[derive(Debug, Default)]
pub(crate) struct Case {
    /// `file/name`, with nothing in it that a file name cannot have.
    pub(crate) name: String,
    /// The RCPT addresses.
    pub(crate) envelope: Vec<String>,
    /// `changed`, `unchanged` or `misfit …`.
    pub(crate) expect: String,
    /// Names of fields that go out octet for octet.
    pub(crate) stay: Vec<String>,
    /// Names of fields that do not go out.
    pub(crate) gone: Vec<String>,
    /// What the log says, if the case cares.
    pub(crate) log: Option<Vec<String>>,
    /// The message with CRLF.
    pub(crate) message: Vec<u8>,
}

/// All cases of all `*.txt` in `tests/envelope`.
pub(crate) fn all() -> Vec<Case> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/envelope");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("the table is part of the repository")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("the table is UTF-8");
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        cases.extend(text.split("=== ").skip(1).map(|case| parse(&stem, case)));
    }
    cases
}

fn parse(file: &str, text: &str) -> Case {
    let (head, message) = text.split_once("\n---\n").expect("a case has a line ---");
    let mut lines = head.lines();
    let title = lines.next().unwrap_or_default();
    let mut case = Case {
        name: format!(
            "{file}-{}",
            title.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        ),
        expect: "changed".to_owned(),
        message: octets(message),
        ..Case::default()
    };
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once(':').expect("key: value");
        let list = |separator: &str| value.split(separator).map(|v| v.trim().to_owned()).collect();
        match key {
            "envelope" => case.envelope = value.split(", ").flat_map(expand).collect(),
            "expect" => case.expect = value.trim().to_owned(),
            "stay" => case.stay = list(", "),
            "gone" => case.gone = list(", "),
            "log" => case.log = Some(list("; ")),
            other => panic!("{}: unknown key {other}", case.name),
        }
    }
    case
}

fn expand(text: &str) -> Vec<String> {
    match text.split_once(" * ") {
        Some((pattern, count)) => (1..=count.trim().parse::<u32>().expect("a count"))
            .map(|n| pattern.trim().replace('#', &n.to_string()))
            .collect(),
        None => vec![text.trim().to_owned()],
    }
}

fn octets(text: &str) -> Vec<u8> {
    let text = text.split_once("{end}").map_or(text, |(message, _)| message);
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.extend_from_slice(before.replace('\n', "\r\n").as_bytes());
        let (code, after) = after.split_once('}').expect("a closing brace");
        match code.split_once('*') {
            Some((piece, count)) => out.extend(piece.repeat(count.parse().expect("a count")).bytes()),
            None if code == "lf" => out.push(b'\n'),
            None => out.push(u8::from_str_radix(code, 16).expect("an octet in hexadecimal")),
        }
        rest = after;
    }
    out.extend_from_slice(rest.replace('\n', "\r\n").as_bytes());
    out
}
