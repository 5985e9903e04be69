//! Which keys there are, what their defaults are, and what they mean. Each is named once, where it is read.

use super::alerts::alerts;
use super::certificates::certificates;
use super::field::{Complaint, Field};
use super::listener::listeners;
use super::meaning::is_loopback;
use super::meaning::{
    Account, Admin, ClientId, Cloud, Config, Delivery, Endpoint, Endpoints, FailuresTo, Grant, History,
    Limits, Log, LogFormat, LogLevel, OnUncertain, Pace, Premises, Provider, Report, SenderPattern, Spool,
    Tenant, Tls, Transport, Users,
};
use super::reader::Section;
use super::secret;
use crate::mail::Address;
use reqwest::Url;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest message for now: Graph refuses requests of more than 4 MB, and Base64 adds a third.
pub(super) const GRAPH_LIMIT: u64 = 2_900_000;

/// A pause of nothing would be a busy loop.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Who has sent something wants to hear of its failure before it is gone.
const SHORTEST_RETENTION: Duration = Duration::from_secs(3600);

/// A history that forgets at once is none.
const SHORTEST_HISTORY: Duration = Duration::from_secs(3600);

/// An empty one needs a tenth of this.
const SMALLEST_HISTORY: u64 = 1_000_000;

/// Keys of later versions, for a better message than "unknown".
pub(super) const LATER: &[&str] = &[
    "account.NAME.certificate",
    "account.NAME.endpoints.smtp",
    "account.NAME.limits.smtp_connections",
    "account.NAME.limits.smtp_messages_per_minute",
    "account.NAME.save_to_sent_items",
    "account.NAME.unknown_sender",
    "admin.listen",
    "route",
    "spool.store",
];

/// The meaning of the whole document; `None` if there was any problem.
pub(super) fn config(mut root: Section<'_>) -> Option<Config> {
    let hostname = hostname(&mut root);
    let state_dir = state_dir(&mut root);
    let listeners = listeners(&mut root);
    let accounts = accounts(&mut root);
    let tls = tls(root.section("tls"));
    let delivery = delivery(root.section("delivery"));
    let spool = spool(root.section("spool"));
    let report = report(root.section("report"));
    let admin = admin(root.section("admin"), state_dir.as_deref());
    let history = history(root.section("history"));
    let users = users(root.section("users"), state_dir.as_deref());
    let limits = limits(root.section("limits"));
    let log = log(root.section("log"));
    root.finish();
    Some(Config {
        hostname: hostname?,
        state_dir: state_dir?,
        listeners: listeners?,
        accounts: accounts?,
        tls: tls?,
        delivery: delivery?,
        spool: spool?,
        report: report?,
        admin: admin?,
        history: history?,
        users: users?,
        limits: limits?,
        log: log?,
    })
}

/// Where the bridge is. Everything else may be wrong, or not to be read by this user: secrets are not looked at.
pub(super) fn premises(mut root: Section<'_>) -> Option<Premises> {
    let hostname = hostname(&mut root);
    let state_dir = state_dir(&mut root);
    let spool = spool(root.section("spool"));
    let admin = admin(root.section("admin"), state_dir.as_deref());
    Some(Premises {
        hostname: hostname?,
        state_dir: state_dir?,
        spool: spool?,
        admin: admin?,
    })
}

fn state_dir(root: &mut Section<'_>) -> Option<PathBuf> {
    root.defaulted("state_dir", r#""/var/lib/smtp-oauth-bridge""#, |field| {
        field.path()
    })
}

fn admin(mut section: Section<'_>, state_dir: Option<&Path>) -> Option<Admin> {
    let control = section.optional("control", |field| field.path());
    section.finish();
    Some(Admin {
        control: match control? {
            Some(control) => control,
            None => state_dir?.join("control.sock"),
        },
    })
}

fn users(mut section: Section<'_>, state_dir: Option<&Path>) -> Option<Users> {
    let file = section.optional("file", |field| field.path());
    section.finish();
    let beside_the_spool = state_dir?.join("users");
    Some(Users {
        file: file?.unwrap_or(beside_the_spool),
    })
}

fn limits(mut section: Section<'_>) -> Option<Limits> {
    let max_connections = section.defaulted("max_connections", "5000", |field| {
        usize::try_from(field.integer(1..=1_000_000)?).ok()
    });
    section.finish();
    Some(Limits {
        max_connections: max_connections?,
    })
}

fn hostname(root: &mut Section<'_>) -> Option<String> {
    if let Some(hostname) = root.optional("hostname", |field| {
        field.parsed(|text| {
            let hint = "write a name such as \"bridge.example.lan\": letters, digits, hyphens and dots";
            is_host_name(text)
                .then(|| text.to_owned())
                .ok_or_else(|| Complaint::new("is not a host name", hint))
        })
    })? {
        return Some(hostname);
    }
    let machine = &root.context.surroundings.machine_name;
    if is_host_name(machine) {
        return Some(machine.clone());
    }
    root.warn(
        "hostname",
        "the name of this machine cannot stand in mail, so \"localhost\" is used",
        "set hostname = \"…\" at the top of the file",
    );
    Some("localhost".to_owned())
}

fn accounts(root: &mut Section<'_>) -> Option<Vec<Account>> {
    let sections = root.named("account");
    let count = sections.len();
    if count == 0 && !root.context.has_problem_below("account") {
        root.missing(
            "account",
            "add a section [account.office] with tenant, client_id, client_secret and mailbox",
        );
    }
    let mut read = Vec::new();
    for (n, (name, section)) in sections.into_iter().enumerate() {
        if n > 0 {
            section.refuse(
                "there is more than one account, and nothing says which mail goes out by which",
                "keep one account: routes between several come with a later version",
            );
        }
        read.push(account(name, section));
    }
    let accounts: Vec<Account> = read.into_iter().collect::<Option<_>>()?;
    (accounts.len() == 1).then_some(accounts)
}

fn account(name: String, mut section: Section<'_>) -> Option<Account> {
    let provider = section.defaulted("provider", r#""microsoft""#, |field| {
        field.choice(&[("microsoft", Provider::Microsoft)], &["google", "custom"])
    });
    let tenant = section.required(
        "tenant",
        "it is the \"Directory (tenant) ID\" on the overview page of the app registration, or your domain",
        |field| field.parsed(tenant),
    );
    let client_id = section.required(
        "client_id",
        "it is the \"Application (client) ID\" on the overview page of the app registration",
        |field| {
            let id = field.parsed(client_id)?;
            if tenant
                .as_ref()
                .is_some_and(|tenant| tenant.0.eq_ignore_ascii_case(&id.0))
            {
                field.warn(
                    "is the same as tenant: probably one ID was copied twice",
                    "client_id is the \"Application (client) ID\", tenant the \"Directory (tenant) ID\"",
                );
            }
            Some(id)
        },
    );
    let grant_is_known = section.defaulted("grant", r#""client_credentials""#, |field| {
        field.choice(
            &[("client_credentials", ())],
            &[
                "device_code",
                "authorization_code",
                "managed_identity",
                "workload_identity",
                "service_account",
            ],
        )
    });
    let secret = section.required(
        "client_secret",
        "write client_secret = { file = \"/path/of/the/file\" }; the file holds the secret's Value and nothing else",
        secret::read,
    );
    let transport = section.defaulted("transport", r#""auto""#, |field| {
        field.choice(
            &[("auto", Transport::Auto), ("graph", Transport::Graph)],
            &["smtp"],
        )
    });
    let mailbox = section.required("mailbox", "it is the address that mail goes out from", |field| {
        field.parsed(mailbox)
    });
    let send_as = section.defaulted("send_as", "[]", |field| {
        // Not collected as one Option: the problems of all elements are wanted.
        let patterns: Vec<Option<SenderPattern>> = field
            .items()?
            .into_iter()
            .map(|field| field.parsed(sender_pattern))
            .collect();
        patterns.into_iter().collect::<Option<Vec<_>>>()
    });
    let cloud = section.defaulted("cloud", r#""global""#, |field| {
        field.choice(
            &[
                ("global", Cloud::Global),
                ("gcc_high", Cloud::GccHigh),
                ("dod", Cloud::Dod),
                ("china", Cloud::China),
            ],
            &[],
        )
    });
    let endpoints = endpoints(section.section("endpoints"), cloud);
    let pace = pace(section.section("limits"));
    section.finish();
    grant_is_known?;
    Some(Account {
        name,
        provider: provider?,
        tenant: tenant?,
        client_id: client_id?,
        grant: Grant::ClientCredentials { secret: secret? },
        transport: transport?,
        mailbox: mailbox?,
        send_as: send_as?,
        cloud: cloud?,
        endpoints: endpoints?,
        pace: pace?,
    })
}

/// Microsoft's limits: Microsoft Graph, "Outlook service limits"; Exchange Online, "Sending limits".
fn pace(mut section: Section<'_>) -> Option<Pace> {
    let count = |field: Field<'_>| usize::try_from(field.integer(0..=1000)?).ok();
    let graph_requests = section.defaulted("graph_requests", "4", |field| {
        usize::try_from(field.integer(1..=64)?).ok()
    });
    let graph_upload = section.defaulted("graph_upload", r#""150MB""#, |field| field.size());
    let recipients_per_day = section.defaulted("recipients_per_day", "10000", |field| {
        u64::try_from(field.integer(0..=100_000_000)?).ok()
    });
    let max_in_flight = section.defaulted("max_in_flight", "0", count);
    section.finish();
    Some(Pace {
        graph_requests: graph_requests?,
        graph_upload: graph_upload?,
        recipients_per_day: recipients_per_day?,
        max_in_flight: max_in_flight?,
    })
}

fn endpoints(mut section: Section<'_>, cloud: Option<Cloud>) -> Option<Endpoints> {
    let authority = section.optional("authority", |field| field.parsed(endpoint));
    let graph = section.optional("graph", |field| field.parsed(endpoint));
    section.finish();
    let cloud = cloud?;
    Some(Endpoints {
        authority: authority?.unwrap_or_else(|| Endpoint(cloud.authority().to_owned())),
        graph: graph?.unwrap_or_else(|| Endpoint(cloud.graph().to_owned())),
        graph_resource: cloud.graph().to_owned(),
    })
}

fn endpoint(text: &str) -> Result<Endpoint, Complaint> {
    let hint = "write the start of a URL, as in \"https://graph.microsoft.com\"";
    let url = Url::parse(text).map_err(|_| Complaint::new("is not a URL", hint))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if host.is_empty() || !matches!(url.scheme(), "https" | "http") {
        return Err(Complaint::new("is not a URL of a web server", hint));
    }
    if url.scheme() == "http" && !is_loopback(host) {
        return Err(Complaint::new(
            "would send secrets without encryption",
            "begin it with https://; http:// is possible for this machine only (127.0.0.1, [::1], localhost)",
        ));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(Complaint::new("has more than a host, a port and a path", hint));
    }
    Ok(Endpoint(url.as_str().trim_end_matches('/').to_owned()))
}

fn tenant(text: &str) -> Result<Tenant, Complaint> {
    let hint =
        "write the \"Directory (tenant) ID\" or a domain of your organization, as in \"contoso.example\"";
    if ["common", "organizations", "consumers"].contains(&text) {
        return Err(Complaint::new(
            "must name one organization: the bridge signs in without a person",
            hint,
        ));
    }
    let is_domain = text.contains('.') && is_host_name(text);
    if is_guid(text) || is_domain {
        Ok(Tenant(text.to_ascii_lowercase()))
    } else {
        Err(Complaint::new("is neither an ID nor a domain", hint))
    }
}

fn client_id(text: &str) -> Result<ClientId, Complaint> {
    if is_guid(text) {
        return Ok(ClientId(text.to_ascii_lowercase()));
    }
    Err(Complaint::new(
        "is not an ID of the form 00000000-0000-0000-0000-000000000000",
        "copy the \"Application (client) ID\" from the overview page of the app registration",
    ))
}

fn mailbox(text: &str) -> Result<Address, Complaint> {
    let hint = "write one address without a name, as in \"scanner@contoso.example\"";
    let address: Address = text
        .parse()
        .map_err(|error| Complaint::new(format!("is not an address: {error}"), hint))?;
    if address.domain().is_empty() {
        return Err(Complaint::new("has no domain", hint));
    }
    Ok(address)
}

fn sender_pattern(text: &str) -> Result<SenderPattern, Complaint> {
    let hint =
        "write an address, as in \"scanner@contoso.example\", or a whole domain, as in \"*@contoso.example\"";
    match text.strip_prefix("*@") {
        Some(domain) if domain.contains('.') && is_host_name(domain) => {
            Ok(SenderPattern::Domain(domain.to_ascii_lowercase()))
        }
        Some(_) => Err(Complaint::new("is not a domain", hint)),
        None if text.contains('*') => Err(Complaint::new("has a * where none can be", hint)),
        None => mailbox(text)
            .map(SenderPattern::Address)
            .map_err(|complaint| Complaint::new(complaint.message, hint)),
    }
}

fn tls(mut section: Section<'_>) -> Option<Tls> {
    let extra_ca_file = section.optional("extra_ca_file", |field| {
        certificates(&field, "name the file with the certificate of your authority")
    });
    section.finish();
    Some(Tls {
        extra_ca_file: extra_ca_file?,
    })
}

fn delivery(mut section: Section<'_>) -> Option<Delivery> {
    let retry = section.defaulted("retry", r#"["30s", "2m", "5m", "15m", "30m", "1h"]"#, |field| {
        field.list(pause)
    });
    let give_up_after = section.defaulted("give_up_after", r#""5d""#, pause);
    let hold_for = section.defaulted("hold_for", r#""14d""#, pause);
    let on_uncertain = section.defaulted("on_uncertain", r#""retry""#, |field| {
        field.choice(&[("retry", OnUncertain::Retry), ("hold", OnUncertain::Hold)], &[])
    });
    let uncertain_wait = section.defaulted("uncertain_wait", r#""5m""#, pause);
    section.finish();
    Some(Delivery {
        retry: retry?,
        give_up_after: give_up_after?,
        hold_for: hold_for?,
        on_uncertain: on_uncertain?,
        uncertain_wait: uncertain_wait?,
    })
}

fn pause(field: Field<'_>) -> Option<Duration> {
    match field.duration()? {
        pause if pause < SHORTEST_PAUSE => field.refuse("must not be 0", "write at least \"1s\""),
        pause => Some(pause),
    }
}

fn spool(mut section: Section<'_>) -> Option<Spool> {
    let max_size = section.defaulted("max_size", r#""10GiB""#, |field| match field.size()? {
        size if size < GRAPH_LIMIT => field.refuse("is less than one message", "write at least \"3MB\""),
        size => Some(size),
    });
    let min_free = section.defaulted("min_free", r#""500MiB""#, |field| field.size());
    let failed_retention = section.defaulted("failed_retention", r#""30d""#, |field| {
        match field.duration()? {
            short if short < SHORTEST_RETENTION => field.refuse(
                "is too short to look at a failed message and send it again",
                "write at least \"1h\"",
            ),
            retention => Some(retention),
        }
    });
    section.finish();
    Some(Spool {
        max_size: max_size?,
        min_free: min_free?,
        failed_retention: failed_retention?,
    })
}

fn report(mut section: Section<'_>) -> Option<Report> {
    let failures_to = section.defaulted("failures_to", r#""sender""#, |field| {
        let choices = [
            ("sender", FailuresTo::Sender),
            ("admin", FailuresTo::Admin),
            ("none", FailuresTo::Nobody),
        ];
        field.choice(&choices, &[])
    });
    let admin = section.optional("admin", |field| field.parsed(mailbox));
    let nobody_is_admin = failures_to == Some(FailuresTo::Admin) && admin == Some(None);
    if nobody_is_admin {
        section.missing(
            "admin",
            "failures_to = \"admin\" needs the administrator's address, as in admin = \"it@contoso.example\"",
        );
    }
    let delay_warning = section.defaulted("delay_warning", r#""off""#, |field| {
        if field.says("off") {
            return Some(None);
        }
        pause(field).map(Some)
    });
    let alerts = alerts(&mut section);
    section.finish();
    if nobody_is_admin {
        return None;
    }
    Some(Report {
        failures_to: failures_to?,
        admin: admin?,
        delay_warning: delay_warning?,
        alerts: alerts?,
    })
}

fn history(mut section: Section<'_>) -> Option<History> {
    let keep = section.defaulted("keep", r#""90d""#, |field| match field.duration()? {
        keep if keep < SHORTEST_HISTORY => field.refuse("is less than an hour", "write at least \"1h\""),
        keep => Some(keep),
    });
    let max_size = section.defaulted("max_size", r#""1GiB""#, |field| match field.size()? {
        size if size < SMALLEST_HISTORY => field.refuse("is less than 1 MB", "write at least \"1MB\""),
        size => Some(size),
    });
    let subjects = section.defaulted("subjects", "true", |field| field.boolean());
    section.finish();
    Some(History {
        keep: keep?,
        max_size: max_size?,
        subjects: subjects?,
    })
}

fn log(mut section: Section<'_>) -> Option<Log> {
    let format = section.defaulted("format", r#""text""#, |field| {
        field.choice(
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            &["journald"],
        )
    });
    let levels = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];
    let level = section.defaulted("level", r#""info""#, |field| {
        field.choice(&levels.map(|level| (level.as_str(), level)), &[])
    });
    section.finish();
    Some(Log {
        format: format?,
        level: level?,
    })
}

/// True for what may follow HELO: labels of letters, digits, hyphens and underscores (machines have them).
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// True for the usual form only: [`uuid::Uuid::try_parse`] takes braces and forms without hyphens, too.
fn is_guid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}
