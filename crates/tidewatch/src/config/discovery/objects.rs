//! What may stand in a section of each kind of discovery.

use super::super::http::{HTTP_CLIENT, TLS};
use super::super::schema::{Object, Type, no_check};
use super::super::types::{DURATION, TEXT_MAP, TEXTS, URL, scheme_and_host};
use super::checks::*;

/// An object of this module: its fields, and whether an HTTP client's fields stand in it.
macro_rules! object {
    ($name:ident, $title:literal, [$($field:literal: $kind:expr),* $(,)?], $inline:expr, $check:expr) => {
        pub(super) static $name: Object = Object { name: $title, fields: &[$(($field, $kind)),*], inline: $inline, check: $check };
    };
}

const SECRET: Type = Type::Text;
const PORT: Type = Type::Int;

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
