//! The keys of `[[listener]]`.

use super::access;
use super::certificates;
use super::field::{Complaint, Field, check_name};
use super::meaning::{Bind, CertificateFiles, Listener, TlsMode};
use super::reader::Section;
use super::sections::GRAPH_LIMIT;
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, SocketAddr};

pub(super) fn listeners(root: &mut Section<'_>) -> Option<Vec<Listener>> {
    let mut names: Vec<String> = Vec::new();
    let mut binds: Vec<Bind> = Vec::new();
    let read = root
        .sections("listener")
        .into_iter()
        .map(|section| listener(section, &mut names, &mut binds));
    let read: Vec<Option<Listener>> = read.collect();
    // An empty list means that a problem with the whole of it was noted.
    let listeners: Vec<Listener> = read.into_iter().collect::<Option<_>>()?;
    (!listeners.is_empty()).then_some(listeners)
}

fn listener(mut section: Section<'_>, names: &mut Vec<String>, binds: &mut Vec<Bind>) -> Option<Listener> {
    let name = section.defaulted("name", r#""local""#, |field| {
        let name = field.parsed(|text| check_name(text).map(|()| text.to_owned()))?;
        if names.contains(&name) {
            return field.refuse(
                "is the name of another listener",
                "give each [[listener]] a name of its own",
            );
        }
        names.push(name.clone());
        Some(name)
    });
    let allow_is_written = section.has("allow");
    let bind = section.defaulted("bind", r#"["127.0.0.1:2525", "[::1]:2525"]"#, |field| {
        field.list(|field| bind_to(&field, allow_is_written, binds))
    });
    let unix_mode = section.defaulted("unix_mode", r#""0666""#, |field| field.parsed(mode));
    let open_relay = access::open_relay(&mut section);
    let login_is_required = section.says("auth", "required");
    let allow = section.defaulted("allow", r#"["127.0.0.0/8", "::1"]"#, |field| {
        let whole = field.clone_place();
        let allow = field.list(|field| field.parsed(network))?;
        if open_relay != Some(true) && !login_is_required {
            access::refuse_open_relay(&whole, &allow)?;
        }
        Some(allow)
    });
    let proxy_protocol = section.optional("proxy_protocol", |field| {
        let whole = field.clone_place();
        let proxies = field.list(|field| field.parsed(network))?;
        access::refuse_open_proxies(&whole, &proxies)?;
        Some(proxies)
    });
    let tls = section.defaulted("tls", r#""off""#, |field| {
        field.choice(
            &[
                ("off", TlsMode::Off),
                ("starttls", TlsMode::StartTls),
                ("implicit", TlsMode::Implicit),
            ],
            &[],
        )
    });
    let certificate = certificate(&mut section, tls);
    let max_message_size = section.defaulted("max_message_size", "2900000", |field| {
        let hint = "leave the key out: the default is the most that is possible, 2900000";
        match field.size()? {
            0 => field.refuse("must not be 0", hint),
            size if size > GRAPH_LIMIT => field.refuse(
                format!(
                    "is more than {GRAPH_LIMIT} bytes: Microsoft Graph accepts requests of up to 4 MB, and a \
                     message grows by a third on the way"
                ),
                hint,
            ),
            size => Some(size),
        }
    });
    let lenient = section.defaulted("lenient", "true", |field| field.boolean());
    let max_connections = section.defaulted("max_connections", "1000", |field| {
        usize::try_from(field.integer(1..=100_000)?).ok()
    });
    let access = access::access(&mut section, bind.as_deref(), tls);
    section.finish();
    open_relay?;
    Some(Listener {
        name: name?,
        bind: bind?,
        unix_mode: unix_mode?,
        allow: allow?,
        proxy_protocol: proxy_protocol?.unwrap_or_default(),
        tls: tls?,
        certificate: certificate?,
        max_message_size: max_message_size?,
        lenient: lenient?,
        max_connections: max_connections?,
        access: access?,
    })
}

/// `certificate` and `key`, which only go together.
fn certificate(section: &mut Section<'_>, tls: Option<TlsMode>) -> Option<Option<CertificateFiles>> {
    let (certificate, key) = (section.take("certificate"), section.take("key"));
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Some(None),
        (Some(field), None) => {
            return field.refuse(
                "needs the private key that belongs to it",
                "add key = \"FILE\" to this [[listener]]; it may be the same file if both are in it",
            );
        }
        (None, Some(field)) => {
            return field.refuse(
                "needs the certificate that it belongs to",
                "add certificate = \"FILE\" to this [[listener]]",
            );
        }
    };
    if tls == Some(TlsMode::Off) {
        certificate.warn(
            "has no effect, because this listener has no encryption",
            "set tls = \"starttls\" or \"implicit\", or remove certificate and key",
        );
    }
    let right_file =
        "name the file with the certificate of this listener, followed by those of its authority";
    let (certificate, key) = (
        certificates::certificates(&certificate, right_file),
        certificates::private_key(&key),
    );
    Some(Some(CertificateFiles {
        certificate: certificate?,
        key: key?,
    }))
}

fn bind_to(field: &Field<'_>, allow_is_written: bool, others: &mut Vec<Bind>) -> Option<Bind> {
    let text = field.text()?;
    let bind = if let Some(name) = text.strip_prefix("systemd:") {
        systemd(field, name)?
    } else if let Some(path) = text.strip_prefix("unix:") {
        unix(field, path)?
    } else {
        Bind::Address(field.parsed(address)?)
    };
    let others_can_connect = match &bind {
        Bind::Address(address) => !address.ip().to_canonical().is_loopback(),
        // Only the unit knows the address.
        Bind::Systemd(_) => true,
        Bind::Unix(_) => false,
    };
    if others_can_connect && !allow_is_written {
        return field.refuse(
            "other machines can connect to this address, and nothing says which of them may",
            "add allow = [\"10.0.3.0/24\"] with the networks of your devices to this [[listener]]: unless it asks \
             for a login, whoever may connect sends mail in your name",
        );
    }
    let free_port = matches!(&bind, Bind::Address(address) if address.port() == 0);
    if !free_port && others.contains(&bind) {
        return field.refuse("is listed twice", "remove one of them");
    }
    others.push(bind.clone());
    Some(bind)
}

fn address(text: &str) -> Result<SocketAddr, Complaint> {
    let hint = "write an IP address and a port, as in \"127.0.0.1:2525\", \"[::1]:2525\" or, for all \
                addresses of this machine, \"0.0.0.0:2525\"; \"unix:/path\" and \"systemd:NAME\" are possible too";
    text.parse::<SocketAddr>().map_err(|_| {
        if text.parse::<IpAddr>().is_ok() {
            Complaint::new("has no port", hint)
        } else {
            Complaint::new("is not an IP address with a port", hint)
        }
    })
}

/// The name of a socket that systemd opens: what FileDescriptorName= says (systemd.socket(5)).
fn systemd(field: &Field<'_>, name: &str) -> Option<Bind> {
    // systemd.exec(5): no control characters and no colon, at most 255 characters.
    let possible = (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if !possible {
        return field.refuse(
            "does not name a socket of systemd",
            "write \"systemd:NAME\" with the name from FileDescriptorName= of the .socket unit, or the unit's name",
        );
    }
    Some(Bind::Systemd(name.to_owned()))
}

fn unix(field: &Field<'_>, path: &str) -> Option<Bind> {
    if !cfg!(unix) {
        return field.refuse("this system has no Unix sockets", "use an address of 127.0.0.1");
    }
    // sun_path of sockaddr_un, with its final NUL, is 108 octets on Linux and 104 elsewhere.
    if path.is_empty() || path.len() > 103 {
        return field.refuse(
            "is not the path of a socket",
            "write \"unix:/run/smtp-oauth-bridge/smtp\", with a path of at most 103 characters",
        );
    }
    Some(Bind::Unix(field.context.directory.join(path)))
}

/// The mode of a file, as chmod takes it.
fn mode(text: &str) -> Result<u32, Complaint> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if digits && mode <= 0o777 => Ok(mode),
        _ => Err(Complaint::new(
            "is not the mode of a file",
            "write three digits as chmod takes them, as in \"660\" for owner and group, \"666\" for everybody",
        )),
    }
}

fn network(text: &str) -> Result<IpNet, Complaint> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let network = text.parse::<IpNet>().map_err(|_| {
        Complaint::new(
            "is not a network",
            "write an address or a network, as in \"10.0.3.17\", \"10.0.3.0/24\" or \"fd00::/8\"",
        )
    })?;
    canonical(network).ok_or_else(|| {
        Complaint::new(
            "reaches beyond the IPv4 addresses that are written as IPv6 (::ffff:0:0/96)",
            "write IPv4 networks as such, as in \"10.0.3.0/24\"",
        )
    })
}

/// Clients with IPv4 addresses are known by these in any case, so a network of mapped ones (RFC 4291 §2.5.5.2) means
/// the IPv4 network. `None` if it reaches beyond them.
fn canonical(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(mapped) = network else {
        return Some(network.trunc());
    };
    let Some(ipv4) = mapped.addr().to_ipv4_mapped() else {
        return Some(network.trunc());
    };
    let prefix = mapped.prefix_len().checked_sub(96)?;
    Ipv4Net::new(ipv4, prefix)
        .ok()
        .map(|network| IpNet::V4(network).trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_networks_are_those_of_ipv4() {
        for (text, expected) in [
            ("::ffff:10.0.3.0/120", Some("10.0.3.0/24")),
            ("::ffff:10.0.3.7", Some("10.0.3.7/32")),
            ("::ffff:10.0.3.7/128", Some("10.0.3.7/32")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("::ffff:10.0.3.0/95", None),
            ("::ffff:10.0.3.0/88", None),
            ("::ffff:0:0/80", None),
            ("::/0", Some("::/0")),
            ("::1", Some("::1/128")),
            ("fd00::1/8", Some("fd00::/8")),
            ("10.0.3.7/24", Some("10.0.3.0/24")),
        ] {
            let network = network(text).ok().map(|network| network.to_string());
            assert_eq!(network.as_deref(), expected, "{text}");
        }
    }
}
