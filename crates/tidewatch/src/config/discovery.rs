//! Service discovery sections: the schema of each kind that Prometheus knows, and the reading
//! of those that we serve (`static_configs`, `file_sd_configs`).

use tidewatch_scrape::{FileSdConfig, StaticConfig};

use super::Folder;
use super::http::{HTTP_CLIENT, TLS};
use super::schema::{Object, Problem, Section, Type, no_check};
use super::types::{DURATION, LABEL_NAME, TEXT_MAP, TEXTS, URL, scheme_and_host};

/// An object of this module: its fields, and whether an HTTP client's fields stand in it.
macro_rules! object {
    ($name:ident, $title:literal, [$($field:literal: $kind:expr),* $(,)?], $inline:expr, $check:expr) => {
        static $name: Object = Object { name: $title, fields: &[$(($field, $kind)),*], inline: $inline, check: $check };
    };
}

const SECRET: Type = Type::Text;
const PORT: Type = Type::Int;

/// A list of sections, none of which may be empty.
macro_rules! discovered {
    ($field:literal, $object:ident) => {
        ($field, Type::Items(&Type::Object(&$object), concat!("empty or null section in ", $field)))
    };
}

/// The fields of all kinds of discovery, as they stand in a scrape job and in an Alertmanager section.
pub(super) static DISCOVERY: Object = Object {
    name: "discovery.Configs",
    fields: &[
        discovered!("static_configs", STATIC),
        discovered!("file_sd_configs", FILE),
        discovered!("http_sd_configs", HTTP),
        discovered!("dns_sd_configs", DNS),
        discovered!("kubernetes_sd_configs", KUBERNETES),
        discovered!("consul_sd_configs", CONSUL),
        discovered!("aws_sd_configs", AWS),
        discovered!("azure_sd_configs", AZURE),
        discovered!("digitalocean_sd_configs", DIGITALOCEAN),
        discovered!("docker_sd_configs", DOCKER),
        discovered!("dockerswarm_sd_configs", DOCKERSWARM),
        discovered!("ec2_sd_configs", EC2),
        discovered!("eureka_sd_configs", EUREKA),
        discovered!("gce_sd_configs", GCE),
        discovered!("hetzner_sd_configs", HETZNER),
        discovered!("ionos_sd_configs", IONOS),
        discovered!("kuma_sd_configs", KUMA),
        discovered!("lightsail_sd_configs", LIGHTSAIL),
        discovered!("linode_sd_configs", LINODE),
        discovered!("marathon_sd_configs", MARATHON),
        discovered!("nerve_sd_configs", NERVE),
        discovered!("nomad_sd_configs", NOMAD),
        discovered!("oci_sd_configs", OCI),
        discovered!("openstack_sd_configs", OPENSTACK),
        discovered!("outscale_sd_configs", OUTSCALE),
        discovered!("ovhcloud_sd_configs", OVHCLOUD),
        discovered!("puppetdb_sd_configs", PUPPETDB),
        discovered!("scaleway_sd_configs", SCALEWAY),
        discovered!("serverset_sd_configs", SERVERSET),
        discovered!("stackit_sd_configs", STACKIT),
        discovered!("triton_sd_configs", TRITON),
        discovered!("uyuni_sd_configs", UYUNI),
        discovered!("vultr_sd_configs", VULTR),
    ],
    inline: &[],
    check: no_check,
};

object!(STATIC, "targetgroup.plain", ["targets": TEXTS, "labels": TEXT_MAP], &[], check_labels);
object!(FILE, "file.plain", ["files": TEXTS, "refresh_interval": DURATION], &[], check_file);
object!(HTTP, "http.plain", ["url": Type::Text, "refresh_interval": DURATION], &[&HTTP_CLIENT], |s, p| check_url(s, "url", p));
object!(
    DNS, "dns.plain",
    ["names": TEXTS, "refresh_interval": DURATION, "type": Type::Text, "port": PORT], &[], check_dns
);
object!(
    CONSUL, "consul.plain",
    [
        "server": Type::Text, "token": SECRET, "token_file": Type::Text, "datacenter": Type::Text,
        "namespace": Type::Text, "partition": Type::Text, "tag_separator": Type::Text, "scheme": Type::Text,
        "username": Type::Text, "password": SECRET, "path_prefix": Type::Text, "services": TEXTS, "tags": TEXTS,
        "node_meta": TEXT_MAP, "health_filter": Type::Text, "filter": Type::Text, "allow_stale": Type::Bool,
        "refresh_interval": DURATION,
    ],
    &[&HTTP_CLIENT], check_consul
);
object!(
    AZURE, "azure.plain",
    [
        "environment": Type::Text, "port": PORT, "subscription_id": Type::Text, "tenant_id": Type::Text,
        "client_id": Type::Text, "client_secret": SECRET, "refresh_interval": DURATION,
        "authentication_method": Type::Text, "resource_group": Type::Text,
    ],
    &[&HTTP_CLIENT], check_azure
);
object!(DIGITALOCEAN, "digitalocean.plain", ["port": PORT, "refresh_interval": DURATION], &[&HTTP_CLIENT], no_check);
object!(VULTR, "vultr.plain", ["port": PORT, "refresh_interval": DURATION], &[&HTTP_CLIENT], no_check);
object!(FILTER, "moby.Filter", ["name": Type::Text, "values": TEXTS], &[], no_check);
object!(
    DOCKER, "moby.plain",
    [
        "host": URL, "port": PORT, "filters": Type::List(&Type::Object(&FILTER)),
        "host_networking_host": Type::Text, "match_first_network": Type::Bool, "refresh_interval": DURATION,
    ],
    &[&HTTP_CLIENT], |s, p| require(s, &[("host", "host missing")], p)
);
object!(
    DOCKERSWARM, "moby.plain",
    [
        "host": URL, "role": Type::Text, "port": PORT, "filters": Type::List(&Type::Object(&FILTER)),
        "refresh_interval": DURATION,
    ],
    &[&HTTP_CLIENT],
    |s, p| {
        require(s, &[("host", "host missing"), ("role", "role missing (one of: tasks, services, nodes)")], p);
        one_of(s, "role", &["tasks", "services", "nodes"], |role| format!("invalid role {role}, expected tasks, services, or nodes"), p);
    }
);
object!(
    EC2, "aws.plain",
    [
        "endpoint": Type::Text, "region": Type::Text, "access_key": Type::Text, "secret_key": SECRET,
        "profile": Type::Text, "role_arn": Type::Text, "external_id": Type::Text, "refresh_interval": DURATION,
        "port": PORT, "filters": Type::List(&Type::Object(&FILTER)),
    ],
    &[&HTTP_CLIENT], check_ec2
);
object!(
    AWS, "aws.plain",
    [
        "role": Type::Text, "endpoint": Type::Text, "region": Type::Text, "access_key": Type::Text,
        "secret_key": SECRET, "profile": Type::Text, "role_arn": Type::Text, "external_id": Type::Text,
        "refresh_interval": DURATION, "port": PORT, "filters": Type::List(&Type::Object(&FILTER)),
        "clusters": TEXTS, "request_concurrency": Type::Int,
    ],
    &[&HTTP_CLIENT], check_ec2
);
object!(
    LIGHTSAIL, "aws.plain",
    [
        "endpoint": Type::Text, "region": Type::Text, "access_key": Type::Text, "secret_key": SECRET,
        "profile": Type::Text, "role_arn": Type::Text, "external_id": Type::Text, "refresh_interval": DURATION,
        "port": PORT,
    ],
    &[&HTTP_CLIENT], no_check
);
object!(
    EUREKA, "eureka.plain", ["server": Type::Text, "refresh_interval": DURATION], &[&HTTP_CLIENT],
    |s, p| {
        require(s, &[("server", "eureka_sd: empty or null eureka server")], p);
        if s.filled("server") && scheme_and_host(&s.string("server")).1.is_empty() {
            p.push(s.problem("server", "eureka_sd: invalid eureka server URL"));
        }
    }
);
object!(
    GCE, "gce.plain",
    [
        "project": Type::Text, "zone": Type::Text, "filter": Type::Text, "refresh_interval": DURATION,
        "port": PORT, "tag_separator": Type::Text,
    ],
    &[],
    |s, p| require(s, &[
        ("project", "GCE SD configuration requires a project"),
        ("zone", "GCE SD configuration requires a zone"),
    ], p)
);
object!(
    HETZNER, "hetzner.plain",
    ["role": Type::Text, "port": PORT, "refresh_interval": DURATION, "label_selector": Type::Text],
    &[&HTTP_CLIENT],
    |s, p| {
        require(s, &[("role", "role missing (one of: robot, hcloud)")], p);
        one_of(s, "role", &["", "robot", "hcloud"], |role| format!("unknown role {role:?}"), p);
    }
);
object!(
    IONOS, "ionos.plain",
    ["datacenter_id": Type::Text, "port": PORT, "refresh_interval": DURATION],
    &[&HTTP_CLIENT], |s, p| require(s, &[("datacenter_id", "datacenter id can't be empty")], p)
);
object!(
    KUMA, "xds.plain",
    ["server": Type::Text, "client_id": Type::Text, "refresh_interval": DURATION, "fetch_timeout": DURATION],
    &[&HTTP_CLIENT],
    |s, p| if !s.filled("server") {
        p.push(s.problem("server", "kuma SD server must not be empty"));
    } else if scheme_and_host(&s.string("server")).1.is_empty() {
        p.push(s.problem("server", "kuma SD server must be a URL with a host"));
    }
);
object!(
    LINODE, "linode.plain",
    ["port": PORT, "region": Type::Text, "refresh_interval": DURATION, "tag_separator": Type::Text],
    &[&HTTP_CLIENT], no_check
);
object!(
    MARATHON, "marathon.plain",
    ["servers": TEXTS, "refresh_interval": DURATION, "auth_token": SECRET, "auth_token_file": Type::Text],
    &[&HTTP_CLIENT], check_marathon
);
object!(
    NERVE, "zookeeper.plain", ["servers": TEXTS, "paths": TEXTS, "timeout": DURATION], &[],
    |s, p| check_zookeeper("nerve", s, p)
);
object!(
    SERVERSET, "zookeeper.plain", ["servers": TEXTS, "paths": TEXTS, "timeout": DURATION], &[],
    |s, p| check_zookeeper("serverset", s, p)
);
object!(
    NOMAD, "nomad.plain",
    [
        "allow_stale": Type::Bool, "namespace": Type::Text, "refresh_interval": DURATION, "region": Type::Text,
        "server": Type::Text, "tag_separator": Type::Text,
    ],
    &[&HTTP_CLIENT], |s, p| not_blank(s, "server", "nomad SD configuration requires a server address", p)
);
object!(
    OCI, "oci.plain",
    [
        "region": Type::Text, "tenancy": Type::Text, "user": Type::Text, "fingerprint": Type::Text,
        "key_file": Type::Text, "key_passphrase": SECRET, "compartments": TEXTS, "port": PORT,
        "refresh_interval": DURATION,
    ],
    &[&HTTP_CLIENT], no_check
);
object!(
    OPENSTACK, "openstack.plain",
    [
        "identity_endpoint": Type::Text, "username": Type::Text, "userid": Type::Text, "password": SECRET,
        "project_name": Type::Text, "project_id": Type::Text, "domain_name": Type::Text, "domain_id": Type::Text,
        "application_credential_name": Type::Text, "application_credential_id": Type::Text,
        "application_credential_secret": SECRET, "role": Type::Text, "region": Type::Text,
        "refresh_interval": DURATION, "port": PORT, "all_tenants": Type::Bool, "tls_config": Type::Object(&TLS),
        "availability": Type::Text,
    ],
    &[], check_openstack
);
object!(
    OUTSCALE, "outscale.plain",
    [
        "region": Type::Text, "access_key": Type::Text, "secret_key": SECRET, "secret_key_file": Type::Text,
        "port": PORT, "refresh_interval": DURATION, "endpoint": Type::Text,
    ],
    &[&HTTP_CLIENT],
    |s, p| {
        require(s, &[
            ("region", "outscale SD configuration requires a region"),
            ("access_key", "outscale SD configuration requires an access key"),
        ], p);
        check_secret_key(s, p);
    }
);
object!(
    OVHCLOUD, "ovhcloud.plain",
    [
        "endpoint": Type::Text, "application_key": Type::Text, "application_secret": SECRET,
        "consumer_key": SECRET, "refresh_interval": DURATION, "service": Type::Text,
    ],
    &[],
    |s, p| {
        require(s, &[
            ("endpoint", "endpoint can not be empty"),
            ("application_key", "application key can not be empty"),
            ("application_secret", "application secret can not be empty"),
            ("consumer_key", "consumer key can not be empty"),
        ], p);
        one_of(s, "service", &["vps", "dedicated_server"], |service| format!("unknown service: {service}"), p);
    }
);
object!(
    PUPPETDB, "puppetdb.plain",
    [
        "url": Type::Text, "query": Type::Text, "include_parameters": Type::Bool, "port": PORT,
        "refresh_interval": DURATION,
    ],
    &[&HTTP_CLIENT],
    |s, p| {
        check_url(s, "url", p);
        require(s, &[("query", "query missing")], p);
    }
);
object!(
    SCALEWAY, "scaleway.plain",
    [
        "project_id": Type::Text, "api_url": Type::Text, "access_key": Type::Text, "secret_key": SECRET,
        "secret_key_file": Type::Text, "name_filter": Type::Text, "tags_filter": TEXTS, "role": Type::Text,
        "zone": Type::Text, "port": PORT, "refresh_interval": DURATION,
    ],
    &[&HTTP_CLIENT],
    |s, p| {
        require(s, &[("role", "role missing (one of: instance, baremetal)"), ("project_id", "project_id is mandatory")], p);
        check_secret_key(s, p);
        require(s, &[("access_key", "access_key is mandatory")], p);
    }
);
object!(
    STACKIT, "stackit.plain",
    [
        "project": Type::Text, "region": Type::Text, "port": PORT, "endpoint": Type::Text,
        "refresh_interval": DURATION, "service_account_key": SECRET, "service_account_key_path": Type::Text,
        "private_key": SECRET, "private_key_path": Type::Text, "credentials_file_path": Type::Text,
        "service_account_email": Type::Text, "token_url": Type::Text,
    ],
    &[&HTTP_CLIENT],
    |s, p| if s.filled("endpoint") && scheme_and_host(&s.string("endpoint")).1.is_empty() {
        p.push(s.problem("endpoint", "stackit_sd: invalid endpoint"));
    }
);
object!(
    TRITON, "triton.plain",
    [
        "account": Type::Text, "role": Type::Text, "dns_suffix": Type::Text, "endpoint": Type::Text,
        "groups": TEXTS, "port": PORT, "refresh_interval": DURATION, "tls_config": Type::Object(&TLS),
        "version": Type::Int,
    ],
    &[],
    |s, p| {
        require(s, &[
            ("account", "triton SD configuration requires an account"),
            ("dns_suffix", "triton SD configuration requires a dns_suffix"),
            ("endpoint", "triton SD configuration requires an endpoint"),
        ], p);
        if s.duration_ms("refresh_interval").is_some_and(|ms| ms <= 0) {
            p.push(s.problem("refresh_interval", "triton SD configuration requires RefreshInterval to be a positive integer"));
        }
        let message = "triton SD configuration requires role to be 'container' or 'cn'";
        one_of(s, "role", &["container", "cn"], |_| message.to_owned(), p);
    }
);
object!(
    UYUNI, "uyuni.plain",
    [
        "server": URL, "username": Type::Text, "password": SECRET, "entitlement": Type::Text,
        "separator": Type::Text, "refresh_interval": DURATION,
    ],
    &[&HTTP_CLIENT],
    |s, p| require(s, &[
        ("server", "Uyuni SD configuration requires server host"),
        ("username", "Uyuni SD configuration requires a username"),
        ("password", "Uyuni SD configuration requires a password"),
    ], p)
);

object!(NAMESPACES, "kubernetes.plain", ["own_namespace": Type::Bool, "names": TEXTS], &[], no_check);
object!(SELECTOR, "kubernetes.SelectorConfig", ["role": Type::Text, "label": Type::Text, "field": Type::Text], &[], no_check);
object!(ATTACH, "kubernetes.AttachMetadataConfig", ["node": Type::Bool, "namespace": Type::Bool], &[], no_check);
object!(
    KUBERNETES, "kubernetes.plain",
    [
        "api_server": URL, "role": Type::Text, "kubeconfig_file": Type::Text,
        "namespaces": Type::Object(&NAMESPACES), "selectors": Type::List(&Type::Object(&SELECTOR)),
        "attach_metadata": Type::Object(&ATTACH),
    ],
    &[&HTTP_CLIENT], check_kubernetes
);

/// Names the first of `fields` that is missing.
fn require(section: &Section<'_>, fields: &[(&str, &str)], problems: &mut Vec<Problem>) {
    if let Some((field, message)) = fields.iter().find(|(field, _)| !section.filled(field)) {
        problems.push(section.problem(field, *message));
    }
}

/// A field that has a default, but that may not be given as nothing.
fn not_blank(section: &Section<'_>, field: &str, message: &str, problems: &mut Vec<Problem>) {
    if section.node.get(field).is_some_and(|node| node.text().unwrap_or_default().trim().is_empty()) {
        problems.push(section.problem(field, message));
    }
}

fn one_of(
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
fn check_url(section: &Section<'_>, field: &str, problems: &mut Vec<Problem>) {
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

pub(super) fn check_labels(section: &Section<'_>, problems: &mut Vec<Problem>) {
    for (name, _) in section.pairs("labels") {
        if let Type::Checked(check) = LABEL_NAME
            && let Err(message) = check(name)
        {
            problems.push(section.problem("labels", message));
        }
    }
}

fn check_file(section: &Section<'_>, problems: &mut Vec<Problem>) {
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

fn check_dns(section: &Section<'_>, problems: &mut Vec<Problem>) {
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

fn check_azure(section: &Section<'_>, problems: &mut Vec<Problem>) {
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

fn check_ec2(section: &Section<'_>, problems: &mut Vec<Problem>) {
    for filter in section.items("filters") {
        if !filter.filled("values") {
            problems.push(Problem::at(filter.node, "EC2 SD configuration filter values cannot be empty"));
        }
    }
}

fn check_marathon(section: &Section<'_>, problems: &mut Vec<Problem>) {
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

fn check_zookeeper(kind: &str, section: &Section<'_>, problems: &mut Vec<Problem>) {
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

fn check_consul(section: &Section<'_>, problems: &mut Vec<Problem>) {
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

fn check_secret_key(section: &Section<'_>, problems: &mut Vec<Problem>) {
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

fn check_openstack(section: &Section<'_>, problems: &mut Vec<Problem>) {
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

fn check_kubernetes(section: &Section<'_>, problems: &mut Vec<Problem>) {
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

fn check_selectors(section: &Section<'_>, role: &str, allowed: &[&str], problems: &mut Vec<Problem>) {
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

/// Kinds of discovery in a section that are valid but not served yet, with their lines.
pub(super) fn not_served(section: &Section<'_>) -> Vec<(&'static str, usize)> {
    DISCOVERY
        .fields
        .iter()
        .filter(|(name, _)| !matches!(*name, "static_configs" | "file_sd_configs"))
        .filter_map(|(name, _)| section.field(name).map(|node| (*name, node.line)))
        .collect()
}

pub(super) fn statics(section: &Section<'_>) -> Vec<StaticConfig> {
    let groups = section.items("static_configs");
    groups
        .iter()
        .map(|group| StaticConfig {
            targets: group.strings("targets"),
            labels: group.pairs("labels").iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        })
        .collect()
}

pub(super) fn files(section: &Section<'_>, folder: &Folder) -> Vec<FileSdConfig> {
    let configs = section.items("file_sd_configs");
    configs
        .iter()
        .map(|config| FileSdConfig {
            files: config.strings("files").iter().map(|file| folder.join(file)).collect(),
            refresh_interval_ms: config.duration_ms("refresh_interval").unwrap_or(300_000),
        })
        .collect()
}
