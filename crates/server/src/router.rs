//! Which handler answers which address: one table.

use hyper::Method;

/// Every handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Write,
    Query,
    QueryRange,
    QueryExemplars,
    FormatQuery,
    ParseQuery,
    Labels,
    LabelValues,
    Series,
    DropSeries,
    Targets,
    TargetMetadata,
    ScrapePools,
    Alertmanagers,
    Metadata,
    Rules,
    Alerts,
    BuildInfo,
    RuntimeInfo,
    Flags,
    Config,
    TsdbStatus,
    TsdbBlocks,
    WalReplay,
    DeleteSeries,
    CleanTombstones,
    Compact,
    Snapshot,
    Replicas,
    Notices,
    Explain,
    /// `OPTIONS` on any address of the API: a browser asks whether it may ask.
    Preflight,
    Federate,
    Metrics,
    Healthy,
    Ready,
    Reload,
    Quit,
    Page,
    /// The route prefix without its slash, below which relative addresses would be wrong, and the
    /// root above the prefix: both lead to the page.
    AddSlash,
}

/// Why no handler answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute {
    NotFound,
    /// The address exists for other methods.
    Method,
}

/// Methods of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepts {
    Get,
    Post,
    GetPost,
    PostPut,
    Delete,
}

impl Accepts {
    fn method(self, method: &Method) -> bool {
        let get = matches!(*method, Method::GET | Method::HEAD);
        match self {
            Accepts::Get => get,
            Accepts::Post => *method == Method::POST,
            Accepts::GetPost => get || *method == Method::POST,
            Accepts::PostPut => matches!(*method, Method::POST | Method::PUT),
            Accepts::Delete => *method == Method::DELETE,
        }
    }
}

/// Rows are tried in order. `:name` stands for one segment.
static ROUTES: &[(&str, Accepts, Route)] = &[
    ("/api/v1/write", Accepts::Post, Route::Write),
    ("/api/v1/query", Accepts::GetPost, Route::Query),
    ("/api/v1/query_range", Accepts::GetPost, Route::QueryRange),
    ("/api/v1/query_exemplars", Accepts::GetPost, Route::QueryExemplars),
    ("/api/v1/format_query", Accepts::GetPost, Route::FormatQuery),
    ("/api/v1/parse_query", Accepts::GetPost, Route::ParseQuery),
    ("/api/v1/labels", Accepts::GetPost, Route::Labels),
    ("/api/v1/label/:name/values", Accepts::Get, Route::LabelValues),
    ("/api/v1/series", Accepts::GetPost, Route::Series),
    ("/api/v1/series", Accepts::Delete, Route::DropSeries),
    ("/api/v1/targets", Accepts::Get, Route::Targets),
    ("/api/v1/targets/metadata", Accepts::Get, Route::TargetMetadata),
    ("/api/v1/scrape_pools", Accepts::Get, Route::ScrapePools),
    ("/api/v1/alertmanagers", Accepts::Get, Route::Alertmanagers),
    ("/api/v1/metadata", Accepts::Get, Route::Metadata),
    ("/api/v1/rules", Accepts::Get, Route::Rules),
    ("/api/v1/alerts", Accepts::Get, Route::Alerts),
    ("/api/v1/status/buildinfo", Accepts::Get, Route::BuildInfo),
    ("/api/v1/status/runtimeinfo", Accepts::Get, Route::RuntimeInfo),
    ("/api/v1/status/flags", Accepts::Get, Route::Flags),
    ("/api/v1/status/config", Accepts::Get, Route::Config),
    ("/api/v1/status/tsdb", Accepts::Get, Route::TsdbStatus),
    ("/api/v1/status/tsdb/blocks", Accepts::Get, Route::TsdbBlocks),
    ("/api/v1/status/walreplay", Accepts::Get, Route::WalReplay),
    ("/api/v1/admin/tsdb/delete_series", Accepts::PostPut, Route::DeleteSeries),
    ("/api/v1/admin/tsdb/clean_tombstones", Accepts::PostPut, Route::CleanTombstones),
    ("/api/v1/admin/tsdb/compact", Accepts::PostPut, Route::Compact),
    ("/api/v1/admin/tsdb/snapshot", Accepts::PostPut, Route::Snapshot),
    ("/api/tidewatch/notices", Accepts::Get, Route::Notices),
    ("/api/tidewatch/ha_tracker", Accepts::Get, Route::Replicas),
    ("/api/tidewatch/explain", Accepts::GetPost, Route::Explain),
    ("/federate", Accepts::Get, Route::Federate),
    ("/metrics", Accepts::Get, Route::Metrics),
    ("/-/healthy", Accepts::Get, Route::Healthy),
    ("/-/ready", Accepts::Get, Route::Ready),
    ("/-/reload", Accepts::PostPut, Route::Reload),
    ("/-/quit", Accepts::PostPut, Route::Quit),
];

/// A handler with the value of its `:name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match<'a> {
    pub(crate) route: Route,
    /// The address as the table has it: a name of bounded variety for metrics.
    pub(crate) pattern: &'static str,
    pub(crate) name: &'a str,
}

/// Finds the handler of `path`, which stands below `prefix` (`/`, or a path without a slash at
/// its end). What no row names is the page's business as long as the page has it.
pub(crate) fn find<'a>(prefix: &str, method: &Method, path: &'a str) -> Result<Match<'a>, NoRoute> {
    let path = match prefix {
        "/" | "" => path,
        prefix => match path.strip_prefix(prefix) {
            Some("") => return Ok(Match { route: Route::AddSlash, pattern: "/page", name: "" }),
            Some(rest) if rest.starts_with('/') => rest,
            _ if path == "/" && Accepts::Get.method(method) => {
                return Ok(Match { route: Route::AddSlash, pattern: "/page", name: "" });
            }
            _ => return Err(NoRoute::NotFound),
        },
    };
    if *method == Method::OPTIONS && path.starts_with("/api/v1/") {
        return Ok(Match { route: Route::Preflight, pattern: "/api/v1/*path", name: "" });
    }
    let mut found = false;
    for (pattern, accepts, route) in ROUTES {
        let Some(name) = matches(pattern, path) else { continue };
        found = true;
        if accepts.method(method) {
            return Ok(Match { route: *route, pattern, name });
        }
    }
    if found {
        return Err(NoRoute::Method);
    }
    if tidewatch_ui::asset(path).is_none() {
        return Err(NoRoute::NotFound);
    }
    if !Accepts::Get.method(method) {
        return Err(NoRoute::Method);
    }
    Ok(Match { route: Route::Page, pattern: "/page", name: path })
}

/// The part of `path` that stands for `:name`, or nothing where `path` is not of this pattern.
fn matches<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once(":name") else {
        return (pattern == path).then_some("");
    };
    let name = path.strip_prefix(before)?.strip_suffix(after)?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str, method: &Method, path: &str) -> Result<(Route, String), NoRoute> {
        find(prefix, method, path).map(|found| (found.route, found.name.to_owned()))
    }

    #[test]
    fn addresses_find_their_handlers() {
        let get = |path| route("/", &Method::GET, path);
        assert_eq!(get("/api/v1/query"), Ok((Route::Query, String::new())));
        assert_eq!(get("/api/v1/label/a.b%2F/values"), Ok((Route::LabelValues, "a.b%2F".to_owned())));
        assert_eq!(get("/api/v1/label//values"), Err(NoRoute::NotFound));
        assert_eq!(get("/api/v1/label/a/b/values"), Err(NoRoute::NotFound));
        assert_eq!(get("/api/v1/write"), Err(NoRoute::Method));
        assert_eq!(get("/nothing"), Err(NoRoute::NotFound));
        assert_eq!(get("/targets"), Ok((Route::Page, "/targets".to_owned())));
        assert_eq!(route("/", &Method::DELETE, "/targets"), Err(NoRoute::Method));
        assert_eq!(route("/", &Method::DELETE, "/api/v1/series"), Ok((Route::DropSeries, String::new())));
        assert_eq!(route("/", &Method::OPTIONS, "/api/v1/any"), Ok((Route::Preflight, String::new())));
    }

    #[test]
    fn a_route_prefix_is_taken_off() {
        let get = |path| route("/tide", &Method::GET, path);
        assert_eq!(get("/tide/api/v1/rules"), Ok((Route::Rules, String::new())));
        assert_eq!(get("/tide/"), Ok((Route::Page, "/".to_owned())));
        assert_eq!(get("/tide"), Ok((Route::AddSlash, String::new())));
        assert_eq!(get("/"), Ok((Route::AddSlash, String::new())));
        assert_eq!(route("/tide", &Method::POST, "/"), Err(NoRoute::NotFound));
        assert_eq!(get("/tidewatch"), Err(NoRoute::NotFound));
        assert_eq!(get("/api/v1/rules"), Err(NoRoute::NotFound));
    }
}
