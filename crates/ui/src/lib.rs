//! The web page: HTML, script and style of our own, built into the binary.
//!
//! ```text
//! assets/* ─ include_bytes ─► asset(path) ─► server
//! ```
//!
//! One page serves every address that Prometheus' page has; its script looks at the address and
//! shows what belongs there, and asks the same API as everybody else.
//!
//! Invariants: no inline script or style, so that the strictest content security policy holds;
//! what comes from users reaches the page as text nodes only.
//!
//! Not here: HTTP (`server`), data of any kind, a build step.

#![forbid(unsafe_code)]

/// One file of the page.
#[derive(Debug, Clone)]
pub struct Asset {
    pub bytes: &'static [u8],
    pub content_type: &'static str,
    /// A quoted tag that changes with the content.
    pub etag: String,
}

const HTML: (&[u8], &str) = (include_bytes!("../assets/index.html"), "text/html; charset=utf-8");
const SCRIPT: (&[u8], &str) = (include_bytes!("../assets/app.js"), "text/javascript; charset=utf-8");
const GRAPH: (&[u8], &str) = (include_bytes!("../assets/graph.js"), "text/javascript; charset=utf-8");
const STYLE: (&[u8], &str) = (include_bytes!("../assets/style.css"), "text/css; charset=utf-8");
const ICON: (&[u8], &str) = (include_bytes!("../assets/icon.svg"), "image/svg+xml");

/// Addresses of the page, those of Prometheus' page among them.
const PAGES: &[&str] = &[
    "/",
    "/query",
    "/graph",
    "/alerts",
    "/targets",
    "/rules",
    "/status",
    "/config",
    "/flags",
    "/tsdb-status",
    "/service-discovery",
];

/// The file at `path`, if the page has one there.
pub fn asset(path: &str) -> Option<Asset> {
    let (bytes, content_type) = match path {
        "/ui/app.js" => SCRIPT,
        "/ui/graph.js" => GRAPH,
        "/ui/style.css" => STYLE,
        "/ui/icon.svg" | "/favicon.ico" | "/favicon.svg" => ICON,
        path if PAGES.contains(&path) => HTML,
        _ => return None,
    };
    Some(Asset { bytes, content_type, etag: format!("\"{:016x}\"", fingerprint(bytes)) })
}

/// FNV-1a: tells one version of a file from the next, and is no defence against anybody.
const fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}
