//! The records on one page of a database, without regard to the pages around it.

use super::pages::{Pages, number};

/// A value as SQLite stores it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// One row, of a table or of an index.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// Of a table that has row numbers.
    pub(super) rowid: Option<i64>,
    pub(super) values: Vec<Value>,
}

/// Octets of a record at most: bodies have 64 KiB, and a length that is damaged must not take all memory.
const MAX_RECORD: usize = 4 * 1024 * 1024;

/// The records of page `page`, which is in `pages` under `at`. What makes no sense is left out; the second number says
/// how many those were.
pub(super) fn records(pages: &Pages, at: u32, page: &[u8]) -> (Vec<Record>, usize) {
    let start = if at == 1 { 100 } else { 0 };
    let kind = page.get(start).copied().unwrap_or(0);
    let pointers = match kind {
        LEAF_OF_TABLE | LEAF_OF_INDEX => start + 8,
        NODE_OF_INDEX => start + 12,
        _ => return (Vec::new(), 0),
    };
    let count = short(page, start + 3).min(page.len() / 4);
    let mut found = Vec::new();
    let mut broken = 0;
    for n in 0..count {
        match record(pages, page, kind, short(page, pointers + 2 * n)) {
            Some(record) => found.push(record),
            None => broken += 1,
        }
    }
    (found, broken)
}

const NODE_OF_INDEX: u8 = 2;
const LEAF_OF_INDEX: u8 = 10;
const LEAF_OF_TABLE: u8 = 13;

fn record(pages: &Pages, page: &[u8], kind: u8, cell: usize) -> Option<Record> {
    // A node's cell begins with the page that is left of it.
    let mut at = if kind == NODE_OF_INDEX { cell + 4 } else { cell };
    let length = usize::try_from(varint(page, &mut at)?).ok()?;
    let rowid = (kind == LEAF_OF_TABLE).then(|| varint(page, &mut at)).flatten();
    if length > MAX_RECORD || (kind == LEAF_OF_TABLE && rowid.is_none()) {
        return None;
    }
    let usable = pages.usable();
    let most = if kind == LEAF_OF_TABLE {
        usable - 35
    } else {
        (usable - 12) * 64 / 255 - 23
    };
    let least = (usable - 12) * 32 / 255 - 23;
    let local = if length <= most {
        length
    } else {
        let wanted = least + (length.checked_sub(least)?) % (usable - 4);
        if wanted <= most { wanted } else { least }
    };
    let mut payload = page.get(at..at + local)?.to_vec();
    let mut next = if local < length {
        number(page, at + local)
    } else {
        0
    };
    while payload.len() < length {
        let overflow = pages.page(next).filter(|_| next > 1)?;
        let piece = (length - payload.len()).min(usable - 4);
        payload.extend_from_slice(overflow.get(4..4 + piece)?);
        next = number(&overflow, 0);
    }
    Some(Record {
        rowid,
        values: values(&payload)?,
    })
}

fn values(payload: &[u8]) -> Option<Vec<Value>> {
    let mut at = 0;
    let head = usize::try_from(varint(payload, &mut at)?).ok()?;
    let mut content = head;
    let mut values = Vec::new();
    while at < head {
        let kind = varint(payload, &mut at)?;
        let mut take = |length: usize| {
            let taken = payload.get(content..content.checked_add(length)?)?;
            content += length;
            Some(taken)
        };
        values.push(match kind {
            0 => Value::Null,
            1..=4 => Value::Integer(integer(take(usize::try_from(kind).ok()?)?)),
            5 => Value::Integer(integer(take(6)?)),
            6 => Value::Integer(integer(take(8)?)),
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            12.. if kind % 2 == 0 => Value::Blob(take(usize::try_from((kind - 12) / 2).ok()?)?.to_vec()),
            13.. => {
                Value::Text(String::from_utf8(take(usize::try_from((kind - 13) / 2).ok()?)?.to_vec()).ok()?)
            }
            // We store no numbers with a point.
            _ => return None,
        });
    }
    (at == head && content == payload.len()).then_some(values)
}

fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    bytes.iter().fold(if negative { -1 } else { 0 }, |value, byte| {
        value << 8 | i64::from(*byte)
    })
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let mut value = 0i64;
    for n in 0..9 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if n == 8 {
            return Some(value << 8 | i64::from(byte));
        }
        value = value << 7 | i64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

fn short(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) => usize::from(u16::from_be_bytes([a, b])),
        _ => 0,
    }
}
