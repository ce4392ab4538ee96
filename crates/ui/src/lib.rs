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
const STYLE: (&[u8], &str) = (include_bytes!("../assets/style.css"), "text/css; charset=utf-8");
const ICON: (&[u8], &str) = (include_bytes!("../assets/icon.svg"), "image/svg+xml");

/// The modules of the script by their names below `/ui/`.
const SCRIPTS: &[(&str, &[u8])] = &[
    ("alerts.js", include_bytes!("../assets/alerts.js")),
    ("api.js", include_bytes!("../assets/api.js")),
    ("app.js", include_bytes!("../assets/app.js")),
    ("dom.js", include_bytes!("../assets/dom.js")),
    ("graph.js", include_bytes!("../assets/graph.js")),
    ("overview.js", include_bytes!("../assets/overview.js")),
    ("query.js", include_bytes!("../assets/query.js")),
    ("rules.js", include_bytes!("../assets/rules.js")),
    ("status.js", include_bytes!("../assets/status.js")),
    ("suggest.js", include_bytes!("../assets/suggest.js")),
    ("targets.js", include_bytes!("../assets/targets.js")),
];

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
        "/ui/style.css" => STYLE,
        "/ui/icon.svg" | "/favicon.ico" | "/favicon.svg" => ICON,
        path if PAGES.contains(&path) => HTML,
        path => {
            let name = path.strip_prefix("/ui/")?;
            let (_, bytes) = SCRIPTS.iter().find(|(known, _)| *known == name)?;
            (*bytes, "text/javascript; charset=utf-8")
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> String {
        String::from_utf8(asset(path).expect(path).bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn every_address_of_the_page_is_the_page_and_all_that_it_names_exists() {
        for page in PAGES {
            assert_eq!(text(page), text("/"), "{page}");
        }
        assert!(asset("/ui/../Cargo.toml").is_none());
        let mut sources = vec![text("/")];
        sources.extend(SCRIPTS.iter().map(|(name, _)| text(&format!("/ui/{name}"))));
        let mut named = 0;
        for source in &sources {
            for part in source.split('"').filter(|part| part.starts_with("./") && part.ends_with(".js")) {
                assert!(asset(&part.replacen("./", "/ui/", 1)).is_some(), "{part}");
                named += 1;
            }
            for part in source.split('"').filter(|part| part.starts_with("ui/")) {
                assert!(asset(&format!("/{part}")).is_some(), "{part}");
                named += 1;
            }
        }
        assert!(named >= SCRIPTS.len(), "the sources name each other");
    }

    // The policy that the server sends would break such a page without a word.
    #[test]
    fn nothing_stands_inline_and_nothing_makes_markup_of_text() {
        let html = text("/");
        assert!(
            !html.contains("<style") && !html.contains(" style=") && !html.contains(" on"),
            "inline in the page"
        );
        assert!(html.matches("<script").count() == html.matches("<script type=\"module\" src=").count());
        for (name, _) in SCRIPTS {
            let script = text(&format!("/ui/{name}"));
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "\"style\"",
                "style:",
            ] {
                assert!(!script.contains(word), "{name}: {word}");
            }
        }
    }

    #[test]
    fn a_tag_follows_the_content() {
        assert_eq!(asset("/").map(|a| a.etag), asset("/graph").map(|a| a.etag));
        assert_ne!(asset("/").map(|a| a.etag), asset("/ui/app.js").map(|a| a.etag));
    }
}
