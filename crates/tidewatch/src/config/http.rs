//! `http_config`: how a client reaches its peers. Stands inline in scrape jobs, discovery,
//! Alertmanagers and remote write.

use std::path::Path;

use tidewatch_net::{Authorization, BasicAuth, HttpClientConfig, ProxyConfig, Secret, TlsConfig, TlsVersion};

use super::schema::{Object, Problem, Section, Type, no_check};
use super::types::{TEXT_MAP, TEXTS, URL};
use super::{ConfigError, Folder, load, schema};

pub(super) static HTTP_CLIENT: Object = Object {
    name: "config.HTTPClientConfig",
    fields: &[
        ("basic_auth", Type::Object(&BASIC_AUTH)),
        ("authorization", Type::Object(&AUTHORIZATION)),
        ("oauth2", Type::Object(&OAUTH2)),
        ("bearer_token", Type::Text),
        ("bearer_token_file", Type::Text),
        ("tls_config", Type::Object(&TLS)),
        ("follow_redirects", Type::Bool),
        ("enable_http2", Type::Bool),
        ("http_headers", Type::Map(&Type::Object(&HEADER))),
    ],
    inline: &[&PROXY],
    check: check_client,
};

static PROXY: Object = Object {
    name: "config.ProxyConfig",
    fields: &[
        ("proxy_url", URL),
        ("no_proxy", Type::Text),
        ("proxy_from_environment", Type::Bool),
        ("proxy_connect_header", Type::Map(&Type::List(&Type::Text))),
    ],
    inline: &[],
    check: check_proxy,
};

pub(super) static BASIC_AUTH: Object = Object {
    name: "config.BasicAuth",
    fields: &[
        ("username", Type::Text),
        ("username_file", Type::Text),
        ("username_ref", Type::Text),
        ("password", Type::Text),
        ("password_file", Type::Text),
        ("password_ref", Type::Text),
    ],
    inline: &[],
    check: no_check,
};

pub(super) static AUTHORIZATION: Object = Object {
    name: "config.Authorization",
    fields: &[
        ("type", Type::Text),
        ("credentials", Type::Text),
        ("credentials_file", Type::Text),
        ("credentials_ref", Type::Text),
    ],
    inline: &[],
    check: no_check,
};

static OAUTH2: Object = Object {
    name: "config.OAuth2",
    fields: &[
        ("client_id", Type::Text),
        ("client_secret", Type::Text),
        ("client_secret_file", Type::Text),
        ("client_secret_ref", Type::Text),
        ("client_certificate_key_id", Type::Text),
        ("client_certificate_key", Type::Text),
        ("client_certificate_key_file", Type::Text),
        ("client_certificate_key_ref", Type::Text),
        ("grant_type", Type::Text),
        ("signature_algorithm", Type::Text),
        ("iss", Type::Text),
        ("audience", Type::Text),
        ("claims", Type::Map(&Type::Any)),
        ("scopes", TEXTS),
        ("token_url", Type::Text),
        ("endpoint_params", TEXT_MAP),
        ("tls_config", Type::Object(&TLS)),
    ],
    inline: &[&PROXY],
    check: no_check,
};

pub(super) static TLS: Object = Object {
    name: "config.TLSConfig",
    fields: &[
        ("ca", Type::Text),
        ("cert", Type::Text),
        ("key", Type::Text),
        ("ca_file", Type::Text),
        ("cert_file", Type::Text),
        ("key_file", Type::Text),
        ("ca_ref", Type::Text),
        ("cert_ref", Type::Text),
        ("key_ref", Type::Text),
        ("server_name", Type::Text),
        ("insecure_skip_verify", Type::Bool),
        ("min_version", Type::Checked(tls_version)),
        ("max_version", Type::Checked(tls_version)),
    ],
    inline: &[],
    check: check_tls,
};

static HEADER: Object = Object {
    name: "config.Header",
    fields: &[("values", TEXTS), ("secrets", TEXTS), ("files", TEXTS)],
    inline: &[],
    check: no_check,
};

/// Headers that the client sets itself.
const RESERVED_HEADERS: [&str; 15] = [
    "Authorization",
    "Host",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "User-Agent",
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Www-Authenticate",
    "Accept-Encoding",
    "X-Prometheus-Remote-Write-Version",
    "X-Prometheus-Remote-Read-Version",
    "X-Prometheus-Scrape-Timeout-Seconds",
];

fn check_client(section: &Section<'_>, problems: &mut Vec<Problem>) {
    if let Some((field, message)) = first_conflict(section) {
        problems.push(section.problem(field, message));
    }
    for (name, _) in section.pairs("http_headers") {
        if let Some(reserved) = RESERVED_HEADERS.iter().find(|reserved| reserved.eq_ignore_ascii_case(name)) {
            problems
                .push(section.problem("http_headers", format!("setting header {reserved:?} is not allowed")));
        }
    }
}

/// Ways to say who we are that exclude each other, in the order in which Prometheus looks.
fn first_conflict(section: &Section<'_>) -> Option<(&'static str, &'static str)> {
    let bearer = section.count_filled(&["bearer_token", "bearer_token_file"]);
    if bearer > 1 {
        return Some(("bearer_token", "at most one of bearer_token & bearer_token_file must be configured"));
    }
    if bearer > 0 && (section.has("basic_auth") || section.has("oauth2")) {
        let message =
            "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured";
        return Some(("bearer_token", message));
    }
    if let Some(auth) = section.section("basic_auth") {
        if auth.count_filled(&["username", "username_file", "username_ref"]) > 1 {
            let message =
                "at most one of basic_auth username, username_file & username_ref must be configured";
            return Some(("basic_auth", message));
        }
        if auth.count_filled(&["password", "password_file", "password_ref"]) > 1 {
            let message =
                "at most one of basic_auth password, password_file & password_ref must be configured";
            return Some(("basic_auth", message));
        }
    }
    if let Some(authorization) = section.section("authorization") {
        if bearer > 0 {
            return Some((
                "authorization",
                "authorization is not compatible with bearer_token & bearer_token_file",
            ));
        }
        if authorization.count_filled(&["credentials", "credentials_file", "credentials_ref"]) > 1 {
            let message = "at most one of authorization credentials & credentials_file must be configured";
            return Some(("authorization", message));
        }
        if authorization.string("type").trim().eq_ignore_ascii_case("basic") {
            return Some((
                "authorization",
                "authorization type cannot be set to \"basic\", use \"basic_auth\" instead",
            ));
        }
    }
    if section.count_filled(&["basic_auth", "oauth2", "authorization"]) > 1 {
        return Some((
            "authorization",
            "at most one of basic_auth, oauth2 & authorization must be configured",
        ));
    }
    section.section("oauth2").and_then(|oauth2| oauth2_conflict(&oauth2)).map(|message| ("oauth2", message))
}

fn oauth2_conflict(oauth2: &Section<'_>) -> Option<&'static str> {
    if !oauth2.filled("client_id") {
        Some("oauth2 client_id must be configured")
    } else if oauth2.count_filled(&["client_secret", "client_secret_file", "client_secret_ref"]) > 1 {
        Some("at most one of oauth2 client_secret, client_secret_file & client_secret_ref must be configured")
    } else if oauth2.count_filled(&[
        "client_certificate_key",
        "client_certificate_key_file",
        "client_certificate_key_ref",
    ]) > 1
    {
        Some(
            "at most one of oauth2 client_certificate_key, client_certificate_key_file & client_certificate_key_ref \
             must be configured using grant-type=urn:ietf:params:oauth:grant-type:jwt-bearer",
        )
    } else if !oauth2.filled("token_url") {
        Some("oauth2 token_url must be configured")
    } else {
        None
    }
}

fn check_proxy(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let from_environment = section.bool("proxy_from_environment", false);
    let message = if section.filled("proxy_connect_header")
        && !from_environment
        && !section.filled("proxy_url")
    {
        "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be configured"
    } else if from_environment && section.filled("proxy_url") {
        "if proxy_from_environment is configured, proxy_url must not be configured"
    } else if from_environment && section.filled("no_proxy") {
        "if proxy_from_environment is configured, no_proxy must not be configured"
    } else if !section.filled("proxy_url") && section.filled("no_proxy") {
        "if no_proxy is configured, proxy_url must also be configured"
    } else {
        return;
    };
    problems.push(section.problem("proxy_url", message));
}

fn check_tls(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let [cas, certs, keys] = ["ca", "cert", "key"].map(|part| {
        let names = [part.to_owned(), format!("{part}_file"), format!("{part}_ref")];
        section.count_filled(&names.each_ref().map(String::as_str))
    });
    let message = if cas > 1 {
        "at most one of ca, ca_file & ca_ref must be configured"
    } else if certs > 1 {
        "at most one of cert, cert_file & cert_ref must be configured"
    } else if keys > 1 {
        "at most one of key, key_file & key_ref must be configured"
    } else if certs > keys {
        "exactly one of key or key_file must be configured when a client certificate is configured"
    } else if keys > certs {
        "exactly one of cert or cert_file must be configured when a client key is configured"
    } else if matches!((version(section, "min_version"), version(section, "max_version")), (Some(min), Some(max)) if min > max)
    {
        "tls_config.max_version must be greater than or equal to tls_config.min_version if both are specified"
    } else {
        return;
    };
    problems.push(Problem::at(section.node, message));
}

fn tls_version(text: &str) -> Result<(), String> {
    parse_tls_version(text).map(drop).ok_or_else(|| format!("unknown TLS version: {text}"))
}

fn parse_tls_version(text: &str) -> Option<TlsVersion> {
    Some(match text {
        "TLS10" => TlsVersion::Tls10,
        "TLS11" => TlsVersion::Tls11,
        "TLS12" => TlsVersion::Tls12,
        "TLS13" => TlsVersion::Tls13,
        _ => return None,
    })
}

fn version(section: &Section<'_>, name: &str) -> Option<TlsVersion> {
    parse_tls_version(section.text(name)?)
}

/// What of a client's configuration is valid but not served yet, for the log and the page.
pub(super) fn not_served(section: &Section<'_>) -> Vec<(&'static str, usize)> {
    ["oauth2", "sigv4", "azuread", "google_iam"]
        .into_iter()
        .filter_map(|name| section.field(name).map(|node| (name, node.line)))
        .collect()
}

/// Reads a checked section. Relative file names are taken from the configuration's folder.
pub(super) fn client(section: &Section<'_>, folder: &Folder) -> HttpClientConfig {
    let secret = |section: &Section<'_>, inline: &str, file: &str| {
        if section.filled(file) {
            Some(Secret::File(folder.join(&section.string(file))))
        } else {
            section.has(inline).then(|| Secret::Inline(section.string(inline)))
        }
    };
    let bearer = secret(section, "bearer_token", "bearer_token_file")
        .map(|credentials| Authorization { scheme: "Bearer".to_owned(), credentials });
    let authorization = section.section("authorization").and_then(|auth| {
        let scheme = auth.text("type").map_or("Bearer", str::trim).to_owned();
        let credentials = secret(&auth, "credentials", "credentials_file")?;
        Some(Authorization { scheme, credentials })
    });
    let basic_auth = section.section("basic_auth").map(|auth| BasicAuth {
        username: secret(&auth, "username", "username_file").unwrap_or(Secret::Inline(String::new())),
        password: secret(&auth, "password", "password_file"),
    });
    let tls = section.section("tls_config").map_or_else(TlsConfig::default, |tls| TlsConfig {
        ca: secret(&tls, "ca", "ca_file"),
        cert: secret(&tls, "cert", "cert_file"),
        key: secret(&tls, "key", "key_file"),
        server_name: tls.filled("server_name").then(|| tls.string("server_name")),
        insecure_skip_verify: tls.bool("insecure_skip_verify", false),
        min_version: version(&tls, "min_version"),
        max_version: version(&tls, "max_version"),
    });
    HttpClientConfig {
        basic_auth,
        authorization: authorization.or(bearer),
        tls,
        proxy: proxy(section),
        follow_redirects: section.bool("follow_redirects", true),
        enable_http2: section.bool("enable_http2", true),
        headers: headers(section, folder),
    }
}

fn proxy(section: &Section<'_>) -> ProxyConfig {
    let connect_headers = section.section("proxy_connect_header").map_or_else(Vec::new, |map| {
        let names = section.pairs("proxy_connect_header");
        names
            .iter()
            .flat_map(|(name, _)| {
                map.strings(name).into_iter().map(|v| ((*name).to_owned(), Secret::Inline(v)))
            })
            .collect()
    });
    ProxyConfig {
        url: section.filled("proxy_url").then(|| section.string("proxy_url")),
        no_proxy: section.string("no_proxy"),
        from_environment: section.bool("proxy_from_environment", false),
        connect_headers,
    }
}

fn headers(section: &Section<'_>, folder: &Folder) -> Vec<(String, Secret)> {
    let Some(map) = section.section("http_headers") else { return Vec::new() };
    let mut headers = Vec::new();
    for (name, _) in section.pairs("http_headers") {
        let Some(header) = map.section(name) else { continue };
        let inline =
            header.strings("values").into_iter().chain(header.strings("secrets")).map(Secret::Inline);
        let files = header.strings("files").into_iter().map(|file| Secret::File(folder.join(&file)));
        headers.extend(inline.chain(files).map(|value| (name.to_owned(), value)));
    }
    headers
}

/// Reads a file that holds nothing but a client's configuration, as `--http.config.file` names it.
pub fn load_http_client(file: &Path) -> Result<HttpClientConfig, ConfigError> {
    let tree = load::parse(&load::read(file)?, file)?;
    let problems = schema::check(&tree, &HTTP_CLIENT);
    if !problems.is_empty() {
        return Err(ConfigError::Invalid { file: file.to_owned(), problems });
    }
    Ok(client(&Section { node: &tree }, &Folder::of(file)))
}

/// Files that a client's configuration names.
pub fn secret_files(config: &HttpClientConfig) -> Vec<&Path> {
    let auth = config.authorization.iter().map(|a| &a.credentials);
    let basic = config.basic_auth.iter().flat_map(|b| std::iter::once(&b.username).chain(&b.password));
    let tls = [&config.tls.ca, &config.tls.cert, &config.tls.key].into_iter().flatten();
    let headers = config.headers.iter().map(|(_, value)| value);
    auth.chain(basic)
        .chain(tls)
        .chain(headers)
        .filter_map(|secret| match secret {
            Secret::File(path) => Some(path.as_path()),
            Secret::Inline(_) => None,
        })
        .collect()
}
