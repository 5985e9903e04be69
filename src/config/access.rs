//! The keys of `[[listener]]` that say who may do how much, and which networks make an open relay.

use super::field::Field;
use super::meaning::{Access, AuthMode, BareNewline, Bind, TlsMode};
use super::reader::Section;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::time::Duration;

/// What an administrator writes who really wants an open relay. Nobody writes it by accident.
const CONFIRMATION: &str = "anybody may send mail in our name";

/// So many public IPv4 addresses (a /8), or IPv6 addresses (a /16), are not somebody's devices any more.
const MANY_IPV4: u64 = 1 << 24;
const MANY_IPV6: u128 = 1 << 112;

/// The longest delay of a greeting.
const MAX_GREETING_DELAY: Duration = Duration::from_secs(30);

/// Networks that nobody can come from through the Internet (RFC 6890), in the order of their size.
const PRIVATE_IPV4: [Ipv4Net; 6] = [
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(169, 254, 0, 0), 16),
];
const PRIVATE_IPV6: [Ipv6Net; 2] = [
    Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// Reads these keys. What the others of the listener say is needed to judge them.
pub(super) fn access(
    section: &mut Section<'_>,
    bind: Option<&[Bind]>,
    tls: Option<TlsMode>,
) -> Option<Access> {
    let auth = section.defaulted("auth", r#""off""#, |field| auth(&field, bind, tls));
    let old_auth_line = section.defaulted("old_auth_line", "false", |field| field.boolean());
    let max_connections_per_client = section.defaulted("max_connections_per_client", "50", |field| {
        usize::try_from(field.integer(1..=100_000)?).ok()
    });
    let messages_per_minute = section.defaulted("messages_per_minute", "0", rate);
    let recipients_per_minute = section.defaulted("recipients_per_minute", "0", rate);
    let greeting_delay = section.defaulted("greeting_delay", r#""0s""#, greeting_delay);
    let bare_newline = section.defaulted("bare_newline", r#""normalize""#, |field| {
        field.choice(
            &[
                ("normalize", BareNewline::Normalize),
                ("reject", BareNewline::Reject),
            ],
            &[],
        )
    });
    Some(Access {
        auth: auth?,
        old_auth_line: old_auth_line?,
        max_connections_per_client: max_connections_per_client?,
        messages_per_minute: messages_per_minute?,
        recipients_per_minute: recipients_per_minute?,
        greeting_delay: greeting_delay?,
        bare_newline: bare_newline?,
    })
}

/// Reads `open_relay`; true if an open relay is wanted.
pub(super) fn open_relay(section: &mut Section<'_>) -> Option<bool> {
    let confirmed = section.optional("open_relay", |field| {
        if field.text()? == CONFIRMATION {
            return Some(true);
        }
        field.refuse(
            "is not the confirmation",
            "remove it; only who really wants a listener that anybody can send through writes it, word by word as \
             bridge.example.toml has it",
        )
    });
    confirmed.map(Option::unwrap_or_default)
}

/// Refuses networks that make an open relay: whoever can connect sends mail in the owner's name.
pub(super) fn refuse_open_relay(field: &Field<'_>, allow: &[IpNet]) -> Option<()> {
    if !is_open(allow) {
        return Some(());
    }
    field.refuse(
        "lets a large part of the Internet send mail in your name: this is an open relay",
        format!(
            "name only the networks of your devices, as in [\"10.0.3.0/24\"], or set auth = \"required\" in this \
             [[listener]]; if you really want it, add open_relay = \"{CONFIRMATION}\""
        ),
    )
}

/// Refuses networks of load balancers that are an open relay: whoever is believed can claim to be anybody in `allow`,
/// also without a login and whatever is confirmed about the devices.
pub(super) fn refuse_open_proxies(field: &Field<'_>, proxies: &[IpNet]) -> Option<()> {
    if !is_open(proxies) {
        return Some(());
    }
    field.refuse(
        "lets a large part of the Internet claim to be any address, one of `allow` too",
        "name only the addresses of your load balancers, as in [\"10.0.0.5\"]",
    )
}

/// True if these networks have as many public addresses together as a /8 of IPv4 or a /16 of IPv6.
fn is_open(allow: &[IpNet]) -> bool {
    let (mut public4, mut public6) = (0_u64, 0_u128);
    // Without overlaps, so that no address counts twice.
    for network in IpNet::aggregate(&allow.to_vec()) {
        match network {
            IpNet::V4(network) if PRIVATE_IPV4.iter().any(|private| private.contains(&network)) => {}
            IpNet::V4(network) => public4 = public4.saturating_add(1 << (32 - network.prefix_len())),
            IpNet::V6(network) if PRIVATE_IPV6.iter().any(|private| private.contains(&network)) => {}
            IpNet::V6(network) => {
                let addresses = 1_u128.checked_shl(u32::from(128 - network.prefix_len()));
                public6 = public6.saturating_add(addresses.unwrap_or(u128::MAX));
            }
        }
    }
    public4 >= MANY_IPV4 || public6 >= MANY_IPV6
}

fn auth(field: &Field<'_>, bind: Option<&[Bind]>, tls: Option<TlsMode>) -> Option<AuthMode> {
    let mode = field.choice(
        &[
            ("off", AuthMode::Off),
            ("optional", AuthMode::Optional),
            ("required", AuthMode::Required),
            ("any", AuthMode::Any),
        ],
        &[],
    )?;
    let crosses_a_network = bind.is_some_and(|bind| {
        bind.iter().any(|bind| match bind {
            Bind::Address(address) => !address.ip().to_canonical().is_loopback(),
            Bind::Systemd(_) => true,
            Bind::Unix(_) => false,
        })
    });
    if matches!(mode, AuthMode::Optional | AuthMode::Required)
        && tls == Some(TlsMode::Off)
        && crosses_a_network
    {
        field.warn(
            "passwords cross the network without encryption, because this listener has none",
            "set tls = \"starttls\" or \"implicit\" for devices that can do it, and keep passwords of this \
             listener that are used for nothing else",
        );
    }
    Some(mode)
}

fn greeting_delay(field: Field<'_>) -> Option<Duration> {
    let delay = field.duration()?;
    if delay > MAX_GREETING_DELAY {
        return field.refuse(
            "is more than 30 seconds",
            "write \"4s\" or less: devices wait only a few seconds for a greeting, and each client that waits \
             takes one of max_connections",
        );
    }
    Some(delay)
}

/// So many a minute; 0 is no limit.
fn rate(field: Field<'_>) -> Option<u32> {
    u32::try_from(field.integer(0..=1_000_000)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_open_relay() {
        for (networks, open) in [
            (&["0.0.0.0/0"][..], true),
            (&["::/0"], true),
            (&["0.0.0.0/1", "128.0.0.0/1"], true),
            (&["8.0.0.0/8"], true),
            (&["8.0.0.0/9", "9.0.0.0/9"], true),
            (&["8.0.0.0/9", "8.0.0.0/10"], false),
            (&["10.0.0.0/7"], true),
            (
                &[
                    "10.0.0.0/8",
                    "172.16.0.0/12",
                    "192.168.0.0/16",
                    "127.0.0.0/8",
                    "100.64.0.0/10",
                ],
                false,
            ),
            (&["192.0.2.0/24", "198.51.100.7"], false),
            (&["2000::/3"], true),
            (&["2001::/16"], true),
            (
                &["2001:db8::/32", "fd00::/8", "fc00::/7", "fe80::/10", "::1"],
                false,
            ),
        ] {
            let networks: Vec<IpNet> = networks
                .iter()
                .map(|text| {
                    text.parse()
                        .unwrap_or_else(|_| IpNet::from(text.parse::<std::net::IpAddr>().unwrap()))
                })
                .collect();
            assert_eq!(is_open(&networks), open, "{networks:?}");
        }
    }
}
