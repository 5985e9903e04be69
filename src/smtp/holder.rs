//! Which program holds a port that we want: read from `/proc`, where there is one (Linux).

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The program that listens on `address` or on all addresses with its port, if it may be seen: other users' programs
/// only show themselves to root.
pub(super) fn holder(address: SocketAddr) -> Option<String> {
    let inodes = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| {
        let table = fs::read_to_string(file).unwrap_or_default();
        listening(&table, address)
    });
    program(&inodes.concat())
}

/// The program that listens on the Unix socket `path`.
pub(super) fn holder_of_unix(path: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    program(&listening_unix(&table, path))
}

/// The inodes of the sockets that stand in the way of `address`.
fn listening(table: &str, address: SocketAddr) -> Vec<String> {
    // sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
    let inode = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (local, state) = (words.nth(1)?, words.nth(1)?);
        let (ip, port) = local.split_once(':')?;
        let in_the_way = state == LISTEN
            && u16::from_str_radix(port, 16) == Ok(address.port())
            && read_address(ip)
                .is_some_and(|ip| ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified());
        words.nth(5).filter(|_| in_the_way).map(str::to_owned)
    };
    table.lines().filter_map(inode).collect()
}

/// An address as the kernel prints it: words of 32 bits, each in the machine's order.
fn read_address(text: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = text
        .as_bytes()
        .chunks(8)
        .map(|word| {
            let word = std::str::from_utf8(word).ok()?;
            Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
        })
        .collect::<Option<_>>()?;
    match words[..] {
        [four] => Some(four.into()),
        [..] => <[u8; 16]>::try_from(words.concat()).ok().map(IpAddr::from),
    }
}

fn listening_unix(table: &str, path: &Path) -> Vec<String> {
    // Num RefCount Protocol Flags Type St Inode Path
    let inode = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let inode = words.nth(6)?;
        (Path::new(words.next()?) == path).then(|| inode.to_owned())
    };
    table.lines().filter_map(inode).collect()
}

/// The first program that has one of these sockets open.
fn program(inodes: &[String]) -> Option<String> {
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    if links.is_empty() {
        return None;
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(id) = name
            .to_str()
            .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let is_open = |link: &Path| links.iter().any(|wanted| Path::new(wanted) == link);
        if files
            .flatten()
            .any(|file| fs::read_link(file.path()).is_ok_and(|link| is_open(&link)))
        {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {id})", command.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn what_stands_in_the_way() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:09DD 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1 0 100\n   \
            1: 00000000:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22 1 0 100\n   \
            2: 0100007F:09DD 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 33 1 0 100\n";
        for (address, inodes) in [
            ("127.0.0.1:2525", vec!["11"]),
            ("0.0.0.0:2525", vec!["11"]),
            ("127.0.0.2:2525", vec![]),
            ("192.0.2.1:25", vec!["22"]),
            ("127.0.0.1:26", vec![]),
        ] {
            assert_eq!(listening(table, address.parse().unwrap()), inodes, "{address}");
        }
        let six = "   0: 00000000000000000000000001000000:09DD 00000000000000000000000000000000:0000 0A \
                   00000000:00000000 00:00000000 00000000 0 0 44 1 0 100\n";
        assert_eq!(listening(six, "[::1]:2525".parse().unwrap()), ["44"]);
        assert!(listening("broken\n\n0: x:y z 0A\n", "[::1]:1".parse().unwrap()).is_empty());
        let unix = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                    ffff: 00000002 00000000 00010000 0001 01 55 /run/x\nffff: 00000002 00000000 00010000 0001 01 66\n";
        assert_eq!(listening_unix(unix, Path::new("/run/x")), ["55"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_program_finds_itself() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = holder(socket.local_addr().unwrap()).unwrap();
        assert!(
            found.ends_with(&format!("(process {})", std::process::id())),
            "{found}"
        );
    }
}
