//! From a file's name to an [`AlertmanagerFile`].

use std::collections::HashSet;
use std::path::Path;

use tidewatch_model::{MatchOp, Matcher, is_valid_legacy_name};
use tidewatch_net::HttpClientConfig;
use tidewatch_yaml::{Kind as Shape, Node};

use super::super::schema::{Problem, Section, check};
use super::super::{ConfigError, Folder, Warning, http, load as files};
use super::integrations::Kind;
use super::tables::FILE;
use super::{
    AlertmanagerFile, GroupBy, InhibitRule, InhibitSource, Integration, Names, Receiver, Route, TimeInterval,
    globals, intervals, matchers,
};

/// Reads and checks a file.
pub fn load(file: &Path, names: Names) -> Result<AlertmanagerFile, ConfigError> {
    load_text(&files::read(file)?, file, names)
}

/// The same for a text that has been read already; `file` names it and roots relative paths.
pub fn load_text(text: &str, file: &Path, names: Names) -> Result<AlertmanagerFile, ConfigError> {
    let tree = files::parse(text, file)?;
    let mut problems = check(&tree, &FILE);
    if problems.is_empty() {
        let root = Section { node: &tree };
        let mut loader = Loader { names, folder: Folder::of(file), problems: Vec::new() };
        let loaded = loader.file(&root, text, file);
        problems = loader.problems;
        if let Some(loaded) = loaded.filter(|_| problems.is_empty()) {
            return Ok(loaded);
        }
    }
    Err(ConfigError::Invalid { file: file.to_owned(), problems })
}

/// Reads sections whose fields have the right types, and gathers what is wrong between them.
struct Loader {
    names: Names,
    folder: Folder,
    problems: Vec<Problem>,
}

impl Loader {
    /// Absent only where there is a problem.
    fn file(&mut self, root: &Section<'_>, text: &str, file: &Path) -> Option<AlertmanagerFile> {
        let empty = Node::empty_map();
        let global = root.section("global").unwrap_or(Section { node: &empty });
        let receivers = self.receivers(root, &global);
        let time_intervals = self.time_intervals(root);
        let inhibit_rules = root.items("inhibit_rules").iter().map(|rule| self.inhibit_rule(rule)).collect();
        let Some(route) = root.section("route") else {
            self.problems.push(root.problem("route", "no routes provided"));
            return None;
        };
        self.check_root(&route);
        self.check_names(&route, &receivers, &time_intervals);
        Some(AlertmanagerFile {
            text: text.to_owned(),
            resolve_timeout_ms: global.duration_ms("resolve_timeout").unwrap_or(300_000),
            templates: root.strings("templates").iter().map(|name| self.folder.join(name)).collect(),
            route: self.route(&route, None),
            receivers,
            inhibit_rules,
            time_intervals,
            warnings: warnings(root, &global, file),
        })
    }

    fn receivers(&mut self, root: &Section<'_>, global: &Section<'_>) -> Vec<Receiver> {
        let mut names = HashSet::new();
        let mut receivers = Vec::new();
        for section in root.items("receivers") {
            let name = section.string("name");
            if !names.insert(name.clone()) {
                let message = format!("notification config name {name:?} is not unique");
                self.problems.push(section.problem("name", message));
            }
            let labels = self.receiver_labels(&section, &name);
            let integrations =
                Kind::ALL.iter().flat_map(|kind| self.integrations(*kind, &section, global)).collect();
            receivers.push(Receiver { name, labels, integrations });
        }
        receivers
    }

    fn receiver_labels(&mut self, section: &Section<'_>, receiver: &str) -> Vec<(String, String)> {
        for (name, value) in section.pairs("labels") {
            if !matchers::is_name(name, self.names) {
                self.problems.push(section.problem("labels", format!("invalid label name {name:?}")));
            }
            if name == "name" && value != receiver {
                let message = format!("label \"name\" of receiver {receiver:?} must be the receiver's name");
                self.problems.push(section.problem("labels", message));
            }
        }
        section.pairs("labels").iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    fn integrations(&mut self, kind: Kind, receiver: &Section<'_>, global: &Section<'_>) -> Vec<Integration> {
        let mut integrations = Vec::new();
        for (index, section) in receiver.items(kind.field()).iter().enumerate() {
            match globals::complete(kind, section, global) {
                Ok(node) => integrations.push(Integration {
                    kind,
                    index,
                    send_resolved: section.bool("send_resolved", kind.sends_resolved()),
                    http: self.client(kind, section, global),
                    node,
                }),
                Err(problem) => self.problems.push(problem),
            }
        }
        integrations
    }

    /// The section's own client, or else the global one; never a mixture, as in Alertmanager,
    /// which makes an exception for one kind of integration and the proxy.
    fn client(&self, kind: Kind, section: &Section<'_>, global: &Section<'_>) -> HttpClientConfig {
        let [own, shared] = [section, global].map(|of| {
            let client = of.section("http_config");
            client.map(|client| http::client(&client, &self.folder))
        });
        let Some(mut own) = own else { return shared.unwrap_or_default() };
        if kind == Kind::Msteamsv2 && own.proxy.url.is_none() && !own.proxy.from_environment {
            own.proxy = shared.unwrap_or_default().proxy;
        }
        own
    }

    fn time_intervals(&mut self, root: &Section<'_>) -> Vec<TimeInterval> {
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        for (field, what) in
            [("mute_time_intervals", "mute time interval"), ("time_intervals", "time interval")]
        {
            for section in root.items(field) {
                let name = section.string("name");
                if !seen.insert(name.clone()) {
                    let message = format!("{what} {name:?} is not unique");
                    self.problems.push(section.problem("name", message));
                }
                let schedules = section.items("time_intervals").iter().map(intervals::schedule).collect();
                all.push(TimeInterval { name, schedules });
            }
        }
        all
    }

    fn inhibit_rule(&mut self, section: &Section<'_>) -> InhibitRule {
        let sources = section.items("sources");
        let sources = if sources.is_empty() {
            let matchers = self.matchers(section, ["source_match", "source_match_re", "source_matchers"]);
            vec![InhibitSource { matchers, equal: self.equal(section, "equal") }]
        } else {
            sources.iter().enumerate().map(|(index, source)| self.inhibit_source(index, source)).collect()
        };
        let target = self.matchers(section, ["target_match", "target_match_re", "target_matchers"]);
        InhibitRule { name: section.string("name"), sources, target }
    }

    fn inhibit_source(&mut self, index: usize, section: &Section<'_>) -> InhibitSource {
        let before = self.problems.len();
        let matchers = self.lines(section, "matchers");
        if self.problems.len() == before && matchers.iter().all(Matcher::matches_empty) {
            let message = if matchers.is_empty() {
                format!("source {index}: matchers must not be empty")
            } else {
                format!("source {index}: at least one matcher must not match the empty string")
            };
            self.problems.push(section.problem("matchers", message));
        }
        InhibitSource { matchers, equal: self.equal(section, "source equal") }
    }

    fn equal(&mut self, section: &Section<'_>, list: &str) -> Vec<String> {
        self.label_names(section, "equal", list)
    }

    /// The labels that a field lists.
    fn label_names(&mut self, section: &Section<'_>, field: &str, list: &str) -> Vec<String> {
        let items = section.items(field);
        let names = items.iter().map(|item| (item.node, item.node.text().unwrap_or_default()));
        for (node, name) in names.clone().filter(|(_, name)| *name != "...") {
            if !matchers::is_name(name, self.names) {
                let message = format!("invalid label name {name:?} in {list} list");
                self.problems.push(Problem::at(node, message));
            }
        }
        names.map(|(_, name)| name.to_owned()).collect()
    }

    /// The conditions of three fields: equal texts, regular expressions, and matchers.
    fn matchers(&mut self, section: &Section<'_>, fields: [&str; 3]) -> Vec<Matcher> {
        let [equal, regex, lines] = fields;
        let mut matchers = self.pairs(section, equal, MatchOp::Equal);
        matchers.extend(self.pairs(section, regex, MatchOp::Regex));
        matchers.extend(self.lines(section, lines));
        matchers
    }

    fn pairs(&mut self, section: &Section<'_>, field: &str, op: MatchOp) -> Vec<Matcher> {
        let Some(Node { kind: Shape::Map(entries), .. }) = section.field(field) else { return Vec::new() };
        let mut matchers = Vec::new();
        for (key, value) in entries {
            let name = key.text().unwrap_or_default();
            if !is_valid_legacy_name(name) {
                self.problems.push(Problem::at(key, format!("invalid label name {name:?}")));
            } else if op == MatchOp::Regex && value.text().is_none() {
                self.problems.push(Problem::at(key, format!("invalid regexp value for {name:?}")));
            } else {
                match Matcher::new(op, name, value.text().unwrap_or_default()) {
                    Ok(matcher) => matchers.push(matcher),
                    Err(error) => self.problems.push(Problem::at(value, error.message)),
                }
            }
        }
        matchers
    }

    fn lines(&mut self, section: &Section<'_>, field: &str) -> Vec<Matcher> {
        let mut all = Vec::new();
        for item in section.items(field) {
            match matchers::parse(item.node.text().unwrap_or_default(), self.names) {
                Ok(matchers) => all.extend(matchers),
                Err(message) => self.problems.push(Problem::at(item.node, message)),
            }
        }
        all
    }

    fn check_root(&mut self, route: &Section<'_>) {
        let conditions = ["match", "match_re", "matchers"];
        let refused = [
            ("mute_time_intervals", "root route must not have any mute time intervals"),
            ("active_time_intervals", "root route must not have any active time intervals"),
        ];
        if !route.filled("receiver") {
            self.problems.push(Problem::at(route.node, "root route must specify a default receiver"));
        }
        if let Some(field) = conditions.into_iter().find(|field| has_entries(route, field)) {
            self.problems.push(route.problem(field, "root route must not have any matchers"));
        }
        for (field, message) in refused.into_iter().filter(|(field, _)| route.filled(field)) {
            self.problems.push(route.problem(field, message));
        }
        if route.bool("continue", false) {
            self.problems.push(route.problem("continue", "cannot have continue in root route"));
        }
    }

    /// Looks for receivers and time intervals that a route names and nobody defines. The depth of
    /// the tree is bounded by that of the document.
    fn check_names(&mut self, route: &Section<'_>, receivers: &[Receiver], time_intervals: &[TimeInterval]) {
        for child in route.items("routes") {
            self.check_names(&child, receivers, time_intervals);
        }
        let receiver = route.string("receiver");
        if !receiver.is_empty() && !receivers.iter().any(|known| known.name == receiver) {
            let message = format!("undefined receiver {receiver:?} used in route");
            self.problems.push(route.problem("receiver", message));
        }
        for field in ["active_time_intervals", "mute_time_intervals"] {
            for name in route.strings(field) {
                if !time_intervals.iter().any(|known| known.name == name) {
                    let message = format!("undefined time interval {name:?} used in route");
                    self.problems.push(route.problem(field, message));
                }
            }
        }
    }

    fn route(&mut self, section: &Section<'_>, parent: Option<&Route>) -> Route {
        let duration = |field: &str, inherited: Option<i64>| {
            section.duration_ms(field).or(inherited).unwrap_or_default()
        };
        let receiver = section.filled("receiver").then(|| section.string("receiver"));
        let mut route = Route {
            receiver: receiver.or_else(|| Some(parent?.receiver.clone())).unwrap_or_default(),
            group_by: self.group_by(section, parent),
            matchers: self.matchers(section, ["match", "match_re", "matchers"]),
            continues: section.bool("continue", false),
            group_wait_ms: duration("group_wait", Some(parent.map_or(30_000, |p| p.group_wait_ms))),
            group_interval_ms: duration(
                "group_interval",
                Some(parent.map_or(300_000, |p| p.group_interval_ms)),
            ),
            repeat_interval_ms: duration(
                "repeat_interval",
                Some(parent.map_or(14_400_000, |p| p.repeat_interval_ms)),
            ),
            mute_time_intervals: section.strings("mute_time_intervals"),
            active_time_intervals: section.strings("active_time_intervals"),
            routes: Vec::new(),
            line: section.node.line,
        };
        route.routes = section.items("routes").iter().map(|child| self.route(child, Some(&route))).collect();
        route
    }

    /// An empty list is a list: it groups everything together, whatever the parent does.
    fn group_by(&mut self, section: &Section<'_>, parent: Option<&Route>) -> GroupBy {
        if !section.has("group_by") {
            return parent.map_or(GroupBy::Labels(Vec::new()), |parent| parent.group_by.clone());
        }
        let labels = self.label_names(section, "group_by", "group_by");
        let all = labels.iter().any(|label| label == "...");
        if all && labels.iter().any(|label| label != "...") {
            let message = "cannot have wildcard group_by (`...`) and other labels at the same time";
            self.problems.push(section.problem("group_by", message));
        }
        if all {
            return GroupBy::All;
        }
        for (i, label) in labels.iter().enumerate() {
            if labels[..i].contains(label) {
                let message = format!("duplicated label {label:?} in group_by");
                self.problems.push(section.problem("group_by", message));
            }
        }
        GroupBy::Labels(labels)
    }
}

/// Whether a list or map has anything in it.
fn has_entries(section: &Section<'_>, field: &str) -> bool {
    match section.field(field).map(|node| &node.kind) {
        Some(Shape::Map(entries)) => !entries.is_empty(),
        _ => section.filled(field),
    }
}

/// Valid sections that have no effect yet.
fn warnings(root: &Section<'_>, global: &Section<'_>, file: &Path) -> Vec<Warning> {
    let mut clients = vec![*global];
    for receiver in root.items("receivers") {
        clients.extend(Kind::ALL.iter().flat_map(|kind| receiver.items(kind.field())));
    }
    let unserved = clients.iter().filter_map(|of| of.section("http_config"));
    let mut sections: Vec<(&str, usize)> = unserved.flat_map(|client| http::not_served(&client)).collect();
    sections.extend(root.field("tracing").map(|node| ("tracing", node.line)));
    let warning =
        |(section, line): (&str, usize)| Warning { file: file.to_owned(), line, section: section.to_owned() };
    sections.into_iter().map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<AlertmanagerFile, String> {
        load_text(text, Path::new("/etc/am.yml"), Names::Fallback).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = file(text).expect_err("is refused");
        assert_eq!(error.replace("parsing YAML file /etc/am.yml: ", ""), expected);
    }

    #[test]
    fn problems_name_their_line_and_column() {
        refused(
            "route: {receiver: a}\nreceivers:\n  - name: a\n    webhook_configs:\n      - urll: http://x\n",
            "unmarshal errors: field urll not found in type webhook.plain (line 5, column 9)",
        );
        refused(
            "route:\n  receiver: a\n  routes:\n    - receiver: b\n      matchers: ['=']\nreceivers: [{name: a}]\n",
            "undefined receiver \"b\" used in route (line 4, column 17)\n\
             expected label name or value, got '=' (line 5, column 18)",
        );
        refused("", "no routes provided (line 1, column 1)");
    }

    #[test]
    fn routes_hold_what_they_inherit() {
        let text = "route:\n  receiver: a\n  group_by: [x]\n  group_wait: 1s\n  routes:\n    - matchers: [k=v]\n      \
                    repeat_interval: 1h\n      routes: [{group_by: [], continue: true}]\n    - group_by: ['...']\n\
                    receivers: [{name: a}]\n";
        let root = file(text).expect("valid").route;
        let child = &root.routes[0];
        assert_eq!(
            (child.receiver.as_str(), child.group_wait_ms, child.repeat_interval_ms),
            ("a", 1_000, 3_600_000)
        );
        assert_eq!(child.group_by, GroupBy::Labels(vec!["x".to_owned()]));
        let grandchild = &child.routes[0];
        assert_eq!((grandchild.repeat_interval_ms, grandchild.continues), (3_600_000, true));
        assert_eq!(grandchild.group_by, GroupBy::Labels(Vec::new()));
        assert_eq!(root.routes[1].group_by, GroupBy::All);
        assert_eq!((root.group_interval_ms, root.repeat_interval_ms), (300_000, 14_400_000));
    }

    #[test]
    fn integrations_hold_what_they_take_from_global() {
        let text = "global:\n  smtp_smarthost: h:25\n  smtp_from: me@x\n  http_config: {proxy_url: 'http://p'}\n\
                    route: {receiver: a}\nreceivers:\n  - name: a\n    email_configs: [{to: you@x, from: other@x}]\n    \
                    pagerduty_configs: [{routing_key: k}]\n    msteamsv2_configs:\n      - webhook_url: http://t\n        \
                    http_config: {follow_redirects: false}\n";
        let file = file(text).expect("valid");
        let [email, pagerduty, teams] = &file.receiver("a").expect("a").integrations[..] else {
            panic!("three")
        };
        let email_fields = ["smarthost", "from", "hello", "require_tls"].map(|f| email.section().string(f));
        assert_eq!(email_fields, ["h:25", "other@x", "localhost", "true"]);
        assert_eq!((email.kind.as_str(), email.send_resolved), ("email", false));
        assert_eq!(pagerduty.section().text("url"), Some("https://events.pagerduty.com/v2/enqueue"));
        assert_eq!(pagerduty.http.proxy.url.as_deref(), Some("http://p"));
        assert_eq!(teams.http.proxy.url.as_deref(), Some("http://p"));
        assert!(!teams.http.follow_redirects && teams.send_resolved);
    }

    // A Slack app's token and a webhook's address exclude each other, in whatever mixture they come.
    #[test]
    fn a_slack_section_takes_a_token_or_an_address() {
        let slack = |global: &str, own: &str| {
            let text = format!(
                "global: {{{global}}}\nroute: {{receiver: a}}\nreceivers: [{{name: a, slack_configs: [{{{own}}}]}}]\n"
            );
            file(&text).map(|file| {
                let section = &file.receivers[0].integrations[0].section();
                ["api_url", "app_token"].map(|field| section.string(field)).join(" ")
            })
        };
        assert_eq!(slack("slack_app_token: t", ""), Ok(" t".to_owned()));
        assert_eq!(slack("slack_app_token: t", "api_url: 'http://h'"), Ok("http://h ".to_owned()));
        assert_eq!(slack("slack_api_url: 'http://g'", ""), Ok("http://g ".to_owned()));
        let error = slack("slack_app_token: t, http_config: {authorization: {credentials: c}}", "");
        assert!(
            error.expect_err("both").contains("http authorization can't be set when using Slack App tokens")
        );
    }

    #[test]
    fn label_names_are_read_as_the_mode_says() {
        let text = "route: {receiver: a, group_by: ['service.name']}\nreceivers: [{name: a}]\n";
        assert!(load_text(text, Path::new("am.yml"), Names::Fallback).is_ok());
        let error = load_text(text, Path::new("am.yml"), Names::Classic).expect_err("classic").to_string();
        assert!(
            error.contains("invalid label name \"service.name\" in group_by list (line 1, column 33)"),
            "{error}"
        );
    }

    #[test]
    fn addresses_that_are_secrets_do_not_show() {
        let text = "global: {slack_api_url: http://s}\nroute: {receiver: a}\n\
                    receivers: [{name: a, webhook_configs: [{url: http://w}]}]\n";
        let shown = file(text).expect("valid").masked_text();
        assert_eq!(
            shown,
            "global:\n  slack_api_url: <secret>\nroute:\n  receiver: a\nreceivers:\n  - name: a\n    \
             webhook_configs:\n      - url: <secret>\n"
        );
    }

    #[test]
    fn inhibit_sources_have_conditions_of_their_own() {
        let rule = |rule: &str| {
            file(&format!("route: {{receiver: a}}\nreceivers: [{{name: a}}]\ninhibit_rules: [{rule}]\n"))
        };
        let good =
            rule("{sources: [{matchers: [a=b], equal: [x]}, {matchers: [c=d]}], target_match: {t: u}}");
        assert_eq!(good.expect("valid").inhibit_rules[0].sources.len(), 2);
        let error = rule("{sources: [{matchers: ['a=~.*']}], target_match_re: {t: }}").expect_err("bad");
        assert!(error.contains("source 0: at least one matcher must not match the empty string"), "{error}");
        assert!(error.contains("invalid regexp value for \"t\""), "{error}");
    }
}
