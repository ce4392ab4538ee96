//! Service discovery sections: the schema of each kind that Prometheus knows, and the reading
//! of those that we serve (`static_configs`, `file_sd_configs`).

mod checks;
mod objects;

use tidewatch_scrape::{FileSdConfig, StaticConfig};

pub(super) use self::checks::check_labels;
use self::objects::*;
use super::Folder;
use super::schema::{Object, Section, Type, no_check};

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
