//! `alertmanager.yml`, read unchanged: who is told of which alert, and when.
//!
//! ```text
//! text ─ yaml ─► tree with places ─ tables ─► checked sections ─ load ─► [AlertmanagerFile]
//! ```
//!
//! What a file leaves out is filled in here, so that a notifier never looks at two places: a
//! route holds the settings that it inherits, and an integration those that it takes from
//! `global`.
//!
//! Not here: whether an alert matches and what is sent. `notify` decides that.

mod globals;
mod integrations;
mod intervals;
mod load;
mod matchers;
mod scalars;
mod tables;

use std::path::PathBuf;

use tidewatch_model::Matcher;
use tidewatch_net::HttpClientConfig;
use tidewatch_yaml::Node;

use super::schema::Section;
use super::{Warning, print};

pub use integrations::Kind;
pub use intervals::{DayOfMonth, Schedule};
pub use load::{load, load_text};

/// A file that was checked.
#[derive(Debug, Clone)]
pub struct AlertmanagerFile {
    /// The text of the file, for `/api/v2/status`.
    pub text: String,
    /// An alert that is not sent again for so long counts as resolved.
    pub resolve_timeout_ms: i64,
    /// Globs, made absolute.
    pub templates: Vec<PathBuf>,
    /// The root of the tree. It matches every alert.
    pub route: Route,
    /// Names are unique, and each that a route uses is here.
    pub receivers: Vec<Receiver>,
    pub inhibit_rules: Vec<InhibitRule>,
    /// Names are unique, and each that a route uses is here.
    pub time_intervals: Vec<TimeInterval>,
    /// Valid sections that are not served yet.
    pub warnings: Vec<Warning>,
}

/// How a file's label names and matchers are read: Alertmanager's `--enable-feature`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Names {
    /// Any UTF-8; a matcher that only the classic syntax understands is read by that.
    #[default]
    Fallback,
    /// Any UTF-8, `utf8-strict-mode`.
    Strict,
    /// Letters, digits and underscores, `classic-mode`.
    Classic,
}

/// A node of the routing tree, with all that it inherits.
#[derive(Debug, Clone)]
pub struct Route {
    pub receiver: String,
    pub group_by: GroupBy,
    /// All have to hold; none at the root.
    pub matchers: Vec<Matcher>,
    /// Whether siblings after this one are asked too.
    pub continues: bool,
    pub group_wait_ms: i64,
    pub group_interval_ms: i64,
    pub repeat_interval_ms: i64,
    /// Names of time intervals. They concern this node alone and are not inherited.
    pub mute_time_intervals: Vec<String>,
    pub active_time_intervals: Vec<String>,
    pub routes: Vec<Route>,
    /// Where the node stands in the file.
    pub line: usize,
}

/// Which alerts are told of together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    /// `...`: each set of labels by itself.
    All,
    Labels(Vec<String>),
}

/// Somebody to tell, by any number of ways.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub integrations: Vec<Integration>,
}

/// One way to tell a receiver.
#[derive(Debug, Clone)]
pub struct Integration {
    pub kind: Kind,
    /// Its place among the receiver's integrations of this kind.
    pub index: usize,
    pub send_resolved: bool,
    pub http: HttpClientConfig,
    /// The section as written, with what it takes from `global`.
    node: Node,
}

impl Integration {
    /// The fields of the section. Each has the type that its table says.
    pub fn section(&self) -> Section<'_> {
        Section { node: &self.node }
    }
}

/// While all sources fire, targets stay silent.
#[derive(Debug, Clone)]
pub struct InhibitRule {
    pub name: String,
    /// For each of them an alert has to fire.
    pub sources: Vec<InhibitSource>,
    pub target: Vec<Matcher>,
}

#[derive(Debug, Clone)]
pub struct InhibitSource {
    pub matchers: Vec<Matcher>,
    /// Labels in which source and target agree.
    pub equal: Vec<String>,
}

/// A name for times; it covers those that any of its schedules covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeInterval {
    pub name: String,
    pub schedules: Vec<Schedule>,
}

impl AlertmanagerFile {
    pub fn receiver(&self, name: &str) -> Option<&Receiver> {
        self.receivers.iter().find(|receiver| receiver.name == name)
    }

    /// The file's text as YAML, secrets replaced by `<secret>`.
    pub fn masked_text(&self) -> String {
        let tree = tidewatch_yaml::parse(&self.text);
        tree.map_or_else(|_| String::new(), |tree| print::masked(&tree, &print::ALERTMANAGER_KEYS))
    }
}
