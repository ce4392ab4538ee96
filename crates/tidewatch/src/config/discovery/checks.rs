//! What the sections of discovery must say beyond the kinds of their fields, with Prometheus' words.

use super::super::schema::{Problem, Section, Type};
use super::super::types::{LABEL_NAME, scheme_and_host};

/// Names the first of `fields` that is missing.
pub(super) fn require(section: &Section<'_>, fields: &[(&str, &str)], problems: &mut Vec<Problem>) {
    if let Some((field, message)) = fields.iter().find(|(field, _)| !section.filled(field)) {
        problems.push(section.problem(field, *message));
    }
}

/// A field that has a default, but that may not be given as nothing.
pub(super) fn not_blank(section: &Section<'_>, field: &str, message: &str, problems: &mut Vec<Problem>) {
    if section.node.get(field).is_some_and(|node| node.text().unwrap_or_default().trim().is_empty()) {
        problems.push(section.problem(field, message));
    }
}

pub(super) fn one_of(
    section: &Section<'_>,
    field: &str,
    allowed: &[&str],
    message: impl Fn(&str) -> String,
    problems: &mut Vec<Problem>,
) {
    if let Some(text) = section.text(field).filter(|text| !allowed.contains(text)) {
        problems.push(section.problem(field, message(text)));
    }
}

/// A URL that is required, with scheme and host.
pub(super) fn check_url(section: &Section<'_>, field: &str, problems: &mut Vec<Problem>) {
    let url = section.string(field);
    let message = if url.is_empty() {
        "URL is missing"
    } else if !url.starts_with("http://") && !url.starts_with("https://") {
        "URL scheme must be 'http' or 'https'"
    } else if scheme_and_host(&url).1.is_empty() {
        "host is missing in URL"
    } else {
        return;
    };
    problems.push(section.problem(field, message));
}

pub(in super::super) fn check_labels(section: &Section<'_>, problems: &mut Vec<Problem>) {
    for (name, _) in section.pairs("labels") {
        if let Type::Checked(check) = LABEL_NAME
            && let Err(message) = check(name)
        {
            problems.push(section.problem("labels", message));
        }
    }
}

pub(super) fn check_file(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let files = section.strings("files");
    if files.is_empty() {
        problems.push(
            section.problem("files", "file service discovery config must contain at least one path name"),
        );
    }
    for file in files {
        let (folder, name) = file.rsplit_once('/').unwrap_or(("", &file));
        let known =
            [".json", ".yml", ".yaml", ".JSON", ".YML", ".YAML"].iter().any(|end| name.ends_with(end));
        if !known || folder.contains('*') || name.matches('*').count() > 1 {
            problems.push(
                section.problem("files", format!("path name {file:?} is not valid for file discovery")),
            );
        }
    }
}

pub(super) fn check_dns(section: &Section<'_>, problems: &mut Vec<Problem>) {
    if !section.filled("names") {
        problems.push(section.problem("names", "DNS-SD config must contain at least one SRV record name"));
    }
    match section.text("type").unwrap_or("SRV").to_ascii_uppercase().as_str() {
        "SRV" => {}
        "A" | "AAAA" | "MX" | "NS" if section.number::<i64>("port").unwrap_or(0) != 0 => {}
        "A" | "AAAA" | "MX" | "NS" => {
            problems.push(
                section
                    .problem("type", "a port is required in DNS-SD configs for all record types except SRV"),
            );
        }
        other => problems.push(section.problem("type", format!("invalid DNS-SD records type {other}"))),
    }
}

pub(super) fn check_azure(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let requires: &[(&str, &str)] = match section.text("authentication_method").unwrap_or("OAuth") {
        "OAuth" => &[
            ("subscription_id", "azure SD configuration requires a subscription_id"),
            ("tenant_id", "azure SD configuration requires a tenant_id"),
            ("client_id", "azure SD configuration requires a client_id"),
            ("client_secret", "azure SD configuration requires a client_secret"),
        ],
        "ManagedIdentity" | "SDK" | "WorkloadIdentity" => {
            &[("subscription_id", "azure SD configuration requires a subscription_id")]
        }
        other => {
            let message = format!(
                "unknown authentication_type {other:?}. Supported types are \"OAuth\", \"ManagedIdentity\", \"SDK\" or \
                 \"WorkloadIdentity\""
            );
            problems.push(section.problem("authentication_method", message));
            return;
        }
    };
    require(section, requires, problems);
}

pub(super) fn check_ec2(section: &Section<'_>, problems: &mut Vec<Problem>) {
    for filter in section.items("filters") {
        if !filter.filled("values") {
            problems.push(Problem::at(filter.node, "EC2 SD configuration filter values cannot be empty"));
        }
    }
}

pub(super) fn check_marathon(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let tokens = section.count_filled(&["auth_token", "auth_token_file"]);
    let message = if !section.filled("servers") {
        "marathon_sd: must contain at least one Marathon server"
    } else if tokens > 1 {
        "marathon_sd: at most one of auth_token & auth_token_file must be configured"
    } else if tokens > 0 && section.has("basic_auth") {
        "marathon_sd: at most one of basic_auth, auth_token & auth_token_file must be configured"
    } else if tokens > 0 && section.count_filled(&["bearer_token", "bearer_token_file"]) > 0 {
        "marathon_sd: at most one of bearer_token, bearer_token_file, auth_token & auth_token_file must be configured"
    } else if tokens > 0 && section.has("authorization") {
        "marathon_sd: at most one of auth_token, auth_token_file & authorization must be configured"
    } else {
        return;
    };
    problems.push(section.problem("auth_token", message));
}

pub(super) fn check_zookeeper(kind: &str, section: &Section<'_>, problems: &mut Vec<Problem>) {
    for (field, what) in [("servers", "Zookeeper server"), ("paths", "path")] {
        if !section.filled(field) {
            let message = format!("{kind} SD config must contain at least one {what}");
            problems.push(section.problem(field, message));
        }
    }
    for path in section.strings("paths").iter().filter(|path| !path.starts_with('/')) {
        problems
            .push(section.problem("paths", format!("{kind} SD config paths must begin with '/': {path}")));
    }
}

pub(super) fn check_consul(section: &Section<'_>, problems: &mut Vec<Problem>) {
    not_blank(section, "server", "consul SD configuration requires a server address", problems);
    if section.count_filled(&["username", "password"]) > 0 && section.has("basic_auth") {
        let message =
            "at most one of consul SD configuration username and password and basic auth can be configured";
        problems.push(section.problem("username", message));
    }
    let tokens = section.count_filled(&["token", "token_file"]);
    if tokens > 1 || (tokens > 0 && (section.has("authorization") || section.has("oauth2"))) {
        let message =
            "at most one of consul SD token, token_file, authorization, or oauth2 can be configured";
        problems.push(section.problem("token", message));
    }
}

pub(super) fn check_secret_key(section: &Section<'_>, problems: &mut Vec<Problem>) {
    match section.count_filled(&["secret_key", "secret_key_file"]) {
        0 => problems
            .push(section.problem("secret_key", "one of secret_key & secret_key_file must be configured")),
        1 => {}
        _ => {
            let message = "at most one of secret_key & secret_key_file must be configured";
            problems.push(section.problem("secret_key", message));
        }
    }
}

pub(super) fn check_openstack(section: &Section<'_>, problems: &mut Vec<Problem>) {
    if let Some(availability) = section.text("availability")
        && !matches!(availability, "admin" | "internal" | "public")
    {
        let message =
            format!("unknown availability {availability}, must be one of admin, internal or public");
        problems.push(section.problem("availability", message));
    }
    let role = section.string("role");
    if role.is_empty() {
        problems.push(section.problem("role", "role missing (one of: instance, hypervisor, loadbalancer)"));
    } else if !matches!(role.as_str(), "instance" | "hypervisor" | "loadbalancer") {
        problems.push(section.problem("role", format!("unknown OpenStack SD role {role:?}")));
    } else {
        require(section, &[("region", "openstack SD configuration requires a region")], problems);
    }
}

/// What each role may select.
const SELECTABLE: [(&str, &[&str]); 6] = [
    ("pod", &["pod", "node"]),
    ("service", &["service"]),
    ("endpointslice", &["pod", "service", "endpointslice"]),
    ("endpoints", &["pod", "service", "endpoints"]),
    ("node", &["node"]),
    ("ingress", &["ingress"]),
];

/// What a client section must not have beside a kubeconfig file, or without an API server.
const CLIENT_FIELDS: [&str; 10] = [
    "basic_auth",
    "authorization",
    "oauth2",
    "bearer_token",
    "bearer_token_file",
    "tls_config",
    "follow_redirects",
    "enable_http2",
    "http_headers",
    "proxy_url",
];

pub(super) fn check_kubernetes(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let role = section.string("role");
    let custom_client = section.count_filled(&CLIENT_FIELDS) > 0;
    let Some((_, allowed)) = SELECTABLE.iter().find(|(name, _)| *name == role) else {
        let message = if role.is_empty() {
            "role missing (one of: pod, service, endpoints, endpointslice, node, ingress)".to_owned()
        } else {
            format!("unknown Kubernetes SD role {role:?}")
        };
        problems.push(section.problem("role", message));
        return;
    };
    let message = if section.filled("kubeconfig_file") && section.filled("api_server") {
        "cannot use 'kubeconfig_file' and 'api_server' simultaneously"
    } else if section.filled("kubeconfig_file") && custom_client {
        "cannot use a custom HTTP client configuration together with 'kubeconfig_file'"
    } else if !section.filled("api_server") && !section.filled("kubeconfig_file") && custom_client {
        "to use custom HTTP client configuration please provide the 'api_server' URL explicitly"
    } else {
        ""
    };
    if !message.is_empty() {
        problems.push(section.problem("role", message));
    }
    check_selectors(section, &role, allowed, problems);
}

pub(super) fn check_selectors(
    section: &Section<'_>,
    role: &str,
    allowed: &[&str],
    problems: &mut Vec<Problem>,
) {
    let mut seen = Vec::new();
    for selector in section.items("selectors") {
        let of = selector.string("role");
        if seen.contains(&of) {
            problems.push(Problem::at(selector.node, format!("duplicated selector role: {of}")));
        }
        if !allowed.contains(&of.as_str()) {
            let message = format!("{role} role supports only {} selectors", allowed.join(", "));
            problems.push(Problem::at(selector.node, message));
        }
        for field in ["field", "label"] {
            let text = selector.string(field);
            let bad = text
                .split(',')
                .map(str::trim)
                .find(|term| field == "field" && !term.is_empty() && !term.contains('='));
            if let Some(term) = bad {
                let message = format!("invalid selector: '{text}'; can't understand '{term}'");
                problems.push(selector.problem(field, message));
            }
        }
        seen.push(of);
    }
}
