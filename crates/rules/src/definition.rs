//! What a rule file defines, after it was checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewatch_model::Labels;
use tidewatch_parser::Expr;

/// A rule file that was read and found valid.
#[derive(Debug, Clone)]
pub struct RuleFile {
    /// The path or name under which it was read; part of the identity of its groups.
    pub name: String,
    pub groups: Vec<RuleGroup>,
}

/// Rules that are evaluated together, in order.
#[derive(Debug, Clone)]
pub struct RuleGroup {
    pub name: String,
    /// Absent where the server's evaluation interval applies. Never 0.
    pub interval_ms: Option<i64>,
    /// How far in the past the rules look; absent where the server's default applies.
    pub query_offset_ms: Option<i64>,
    /// The most series or alerts that one rule may give; 0 for no limit.
    pub limit: usize,
    pub rules: Vec<Rule>,
}

/// A recording or alerting rule.
#[derive(Debug, Clone)]
pub struct Rule {
    pub kind: RuleKind,
    /// The expression as written and as read.
    pub query: Query,
    /// Labels of the rule, those of its group merged in. Texts are templates for an alert.
    /// Not [`Labels`], as an empty text is meaningful here: it removes a label.
    pub labels: BTreeMap<String, String>,
    /// Where the rule stands in its file.
    pub line: u64,
}

/// An expression that was parsed once, when its file was read.
#[derive(Debug, Clone)]
pub struct Query {
    /// As Prometheus prints the tree, which is how its API shows a rule's query.
    pub text: String,
    pub expr: Arc<Expr>,
}

#[derive(Debug, Clone)]
pub enum RuleKind {
    Recording { record: String },
    Alerting(AlertingFields),
}

#[derive(Debug, Clone)]
pub struct AlertingFields {
    pub alert: String,
    pub for_ms: i64,
    pub keep_firing_for_ms: i64,
    /// Texts are templates.
    pub annotations: BTreeMap<String, String>,
}

impl Rule {
    /// The name of the series or of the alert.
    pub fn name(&self) -> &str {
        match &self.kind {
            RuleKind::Recording { record } => record,
            RuleKind::Alerting(fields) => &fields.alert,
        }
    }

    pub fn is_alerting(&self) -> bool {
        matches!(self.kind, RuleKind::Alerting(_))
    }

    /// The rule's labels as a label set, templates unexpanded.
    pub fn label_set(&self) -> Labels {
        Labels::from_pairs(&self.labels)
    }
}
