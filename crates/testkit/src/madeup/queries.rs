//! Queries made up from the grammar.
//!
//! Where a result depends on something that PromQL leaves open, the query is not made: `topk`,
//! `limitk` and `count_values` take selectors and functions of them only, since the order of a
//! joined vector and the last digit of a computed number are nobody's promise.

use super::Dice;

/// What queries may be made of.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Native histograms are among the data.
    pub histograms: bool,
    /// What the oracle leaves out, too.
    pub everything: bool,
    /// `start()`, `end()`, `step()` and `range()`, by which a range differs from its instants.
    pub range_calls: bool,
}

/// Makes queries from a seed.
#[derive(Debug, Clone)]
pub struct QueryMaker {
    dice: Dice,
    scope: Scope,
}

const OVER_TIME: [&str; 33] = [
    "rate",
    "increase",
    "delta",
    "rate",
    "increase",
    "irate",
    "idelta",
    "resets",
    "changes",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "first_over_time",
    "present_over_time",
    "absent_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "mad_over_time",
    "deriv",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
    "quantile_over_time(0.3, ",
    "quantile_over_time(1.5, ",
    "quantile_over_time(0.99, ",
    "predict_linear(, 60",
    "predict_linear(, -30",
    "double_exponential_smoothing(, 0.3, 0.6",
    "double_exponential_smoothing(, 0.9, 0.1",
];

const PLAIN: [&str; 36] = [
    "abs",
    "ceil",
    "floor",
    "exp",
    "ln",
    "log2",
    "log10",
    "sqrt",
    "sgn",
    "round",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "deg",
    "rad",
    "histogram_count",
    "histogram_sum",
    "histogram_avg",
    "absent",
    "timestamp",
    "-",
    "-",
    "+",
    "sort",
    "sort_desc",
    "histogram_count",
    "histogram_sum",
];

const DATES: [&str; 8] =
    ["minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"];

impl QueryMaker {
    pub fn new(seed: u64, scope: Scope) -> QueryMaker {
        QueryMaker { dice: Dice::new(seed), scope }
    }

    pub fn query(&mut self) -> String {
        match self.dice.below(20) {
            0 => self.scalar(),
            1 => self.vector(1),
            2 => self.matrix(1),
            _ => {
                let depth = 1 + self.dice.below(4);
                self.vector(depth)
            }
        }
    }

    fn scalar(&mut self) -> String {
        match self.dice.below(14) {
            0..=4 => format!("{}", self.dice.below(60)),
            5 => format!("{}.5", self.dice.below(10)),
            6 => "time()".to_owned(),
            7 => format!("scalar({})", self.selector("")),
            8 => self.dice.pick(&["NaN", "Inf", "-Inf", "0", "-1"]).to_owned(),
            9 => "(1 - 0.7)".to_owned(),
            10 if self.scope.range_calls => {
                self.dice.pick(&["start()", "end()", "step()", "range()"]).to_owned()
            }
            11 => format!("({} {} {})", self.scalar(), self.operator(), self.scalar()),
            12 => format!("{}({}, {})", self.dice.pick(&["min_of", "max_of"]), self.scalar(), self.scalar()),
            _ => format!("0.{}", self.dice.below(100)),
        }
    }

    /// An operator between scalars, where comparisons need `bool`.
    fn operator(&mut self) -> &'static str {
        self.dice.pick(&["+", "-", "*", "/", "%", "^", "atan2", "> bool", "== bool", "<= bool"])
    }

    fn metric(&mut self) -> &'static str {
        let floats = [
            "m",
            "m",
            "m",
            "c_total",
            "c_total",
            "odd",
            "one",
            "b_bucket",
            "none",
            "{i=\"1\",__name__=~\"m|c_total\"}",
            "m{i!=\"0\"}",
            "m{g=\"x\"}",
            "c_total{i=~\"[12]\"}",
            "m{p=\"\"}",
            "{__name__=~\"m|one\"}",
            "b_bucket{i=\"0\"}",
        ];
        if self.scope.histograms && self.dice.one_in(3) {
            return self.dice.pick(&[
                "h",
                "h",
                "n",
                "mixed",
                "h{i=\"1\"}",
                "{__name__=~\"h|m\"}",
                "{__name__=~\"h|n\",i=\"0\"}",
            ]);
        }
        self.dice.pick(&floats)
    }

    /// Floats only, of one metric.
    fn float_metric(&mut self) -> &'static str {
        self.dice.pick(&[
            "m",
            "m",
            "c_total",
            "c_total",
            "odd",
            "one",
            "none",
            "m{g=\"x\"}",
            "c_total{i=~\"[12]\"}",
        ])
    }

    fn shift(&mut self) -> &'static str {
        match self.dice.below(16) {
            0 => " offset 45s",
            1 => " offset -45s",
            2 => " @ 300",
            3 => " @ 700.5 offset 1m",
            4 if self.scope.range_calls => self.dice.pick(&[
                " @ start()",
                " @ end() offset 1m",
                " offset step()",
                " offset -min_of(range(), 90s)",
            ]),
            _ => "",
        }
    }

    fn selector(&mut self, range: &str) -> String {
        let (metric, shift) = (self.metric(), self.shift());
        format!("{metric}{range}{shift}")
    }

    fn window(&mut self) -> &'static str {
        match self.dice.below(12) {
            0 if self.scope.range_calls => self.dice.pick(&["[step() + 1m]", "[max_of(range() / 2, 1m)]"]),
            1 => "[10s]",
            2 => "[6m]",
            _ => self.dice.pick(&["[2m]", "[90s]", "[1m]", "[3m]", "[1m * 2]"]),
        }
    }

    /// A range vector: a selector, or a subquery of a vector of some depth.
    fn matrix(&mut self, depth: usize) -> String {
        if depth == 0 || !self.dice.one_in(3) {
            let window = self.window();
            return self.selector(window);
        }
        let inner = self.vector(depth - 1);
        let window = self.dice.pick(&["[3m:40s]", "[2m:]", "[5m:1m]", "[90s:10s]", "[200s:45s]"]);
        format!("({inner}){window}{}", self.shift())
    }

    fn windowed(&mut self, function: &str, matrix: &str) -> String {
        if let Some(rest) = function.strip_suffix(", ") {
            return format!("{rest}, {matrix})");
        }
        if let Some((name, arguments)) = function.split_once("(, ") {
            return format!("{name}({matrix}, {arguments})");
        }
        format!("{function}({matrix})")
    }

    fn over_time(&mut self, depth: usize) -> String {
        let function = self.dice.pick(&OVER_TIME);
        let window = self.window();
        if !self.scope.everything && matches!(function, "irate" | "idelta") {
            return format!("{function}({}{window}{})", self.float_metric(), self.shift());
        }
        if matches!(function, "rate" | "increase" | "delta" | "changes" | "resets") && self.dice.one_in(6) {
            let smoothed = self.dice.one_in(2) && !matches!(function, "changes" | "resets");
            let modifier = if smoothed { "smoothed" } else { "anchored" };
            return format!("{function}({}{window} {modifier}{})", self.float_metric(), self.shift());
        }
        let matrix = self.matrix(depth);
        self.windowed(function, &matrix)
    }

    /// What has an order and digits that all evaluators share.
    fn simple(&mut self) -> String {
        let over_time = [
            "sum_over_time",
            "max_over_time",
            "min_over_time",
            "last_over_time",
            "count_over_time",
            "changes",
            "resets",
        ];
        match self.dice.below(3) {
            0 => {
                let window = self.window();
                format!("{}({})", self.dice.pick(&over_time), self.selector(window))
            }
            _ => self.selector(""),
        }
    }

    fn grouping(&mut self) -> &'static str {
        self.dice.pick(&[
            "",
            "by (g)",
            "without (i)",
            "by (i, g)",
            "without (g, le)",
            "by (__name__)",
            "by (none)",
        ])
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return match self.dice.below(8) {
                0..=2 => self.selector(""),
                3 => format!("vector({})", self.scalar()),
                4 => format!("{} smoothed", self.float_metric()),
                _ => self.over_time(0),
            };
        }
        let below = depth - 1;
        match self.dice.below(26) {
            0..=2 => format!("{}({})", self.dice.pick(&PLAIN), self.vector(below)),
            3..=5 => self.over_time(below),
            6..=8 => self.joined(below),
            9 => format!("({} {} {})", self.vector(below), self.element_operator(), self.scalar()),
            10 => format!("({} {} {})", self.scalar(), self.element_operator(), self.vector(below)),
            11..=12 => {
                let op = self.dice.pick(&[
                    "and",
                    "or",
                    "unless",
                    "and on (i)",
                    "or on (g)",
                    "unless ignoring (g)",
                    "or ignoring (p)",
                ]);
                format!("({} {op} {})", self.vector(below), self.vector(below))
            }
            13..=16 => self.aggregated(below),
            17 => {
                let op = self.dice.pick(&["topk", "bottomk", "limitk"]);
                let k = self.dice.below(5);
                format!("{op} {} ({k}, {})", self.grouping(), self.simple())
            }
            18 => {
                let ratio = self.dice.pick(&["0.5", "-0.3", "1", "-1", "0", "2"]);
                format!("limit_ratio {} ({ratio}, {})", self.grouping(), self.simple())
            }
            19 => format!(
                "count_values {} (\"{}\", {})",
                self.grouping(),
                self.dice.pick(&["v", "g"]),
                self.selector("")
            ),
            20 => self.of_histogram(),
            21 => match self.dice.below(4) {
                0 => format!("clamp({}, {}, {})", self.vector(below), self.scalar(), self.scalar()),
                1 => format!("clamp_min({}, {})", self.vector(below), self.scalar()),
                2 => format!("clamp_max({}, {})", self.vector(below), self.scalar()),
                _ => format!("round({}, {})", self.vector(below), self.dice.pick(&["0.5", "10", "3", "0.1"])),
            },
            22 => match self.dice.below(4) {
                0 => format!("label_replace({}, \"x\", \"$1\", \"i\", \"(.)\")", self.vector(below)),
                1 => format!("label_replace({}, \"i\", \"a${{1}}b\", \"g\", \"(x)?.*\")", self.vector(below)),
                2 => format!("label_replace({}, \"g\", \"\", \"i\", \"[01]\")", self.vector(below)),
                _ => format!("label_join({}, \"i\", \"-\", \"g\", \"p\", \"i\")", self.vector(below)),
            },
            23 => format!("{}({})", self.dice.pick(&DATES), self.date()),
            24 if self.scope.everything => self.beyond(below),
            _ => format!("timestamp({})", self.selector("")),
        }
    }

    fn element_operator(&mut self) -> &'static str {
        if self.scope.everything && self.dice.one_in(8) {
            return self.dice.pick(&["</", ">/"]);
        }
        self.dice.pick(&[
            "+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", "<=", ">=", "> bool", "!= bool", "atan2",
        ])
    }

    fn joined(&mut self, depth: usize) -> String {
        let matching = self.dice.pick(&[
            "",
            "",
            "on (i)",
            "ignoring (g)",
            "on (g) group_left ()",
            "on (i) group_right ()",
            "on (i, g) group_left (p)",
            "ignoring (p) group_right (g)",
            "on (i) group_left (none)",
            "on (i) fill (1)",
            "fill_left (0)",
            "on (i, g) fill_right (7)",
            "on (i, g) group_left () fill (2)",
            "on ()",
        ]);
        let operator = self.element_operator();
        format!("({} {operator} {matching} {})", self.vector(depth), self.vector(depth))
    }

    fn aggregated(&mut self, depth: usize) -> String {
        let op = self.dice.pick(&[
            "sum",
            "sum",
            "avg",
            "avg",
            "min",
            "max",
            "count",
            "group",
            "stddev",
            "stdvar",
            "quantile(0.3, ",
            "quantile(2, ",
        ]);
        let (grouping, vector) = (self.grouping(), self.vector(depth));
        match op.strip_suffix(", ") {
            Some(_) => format!("{op}{vector}) {grouping}"),
            None => format!("{op} {grouping} ({vector})"),
        }
    }

    fn of_histogram(&mut self) -> String {
        let window = self.window();
        let buckets = match self.dice.below(4) {
            0 => format!("b_bucket{}", self.shift()),
            1 => format!("rate(b_bucket{window})"),
            2 => format!("sum by (le, g) (rate(b_bucket{window}))"),
            _ => format!("sum by (le) (increase(b_bucket{window}))"),
        };
        let native = match self.dice.below(4) {
            0 => format!("h{}", self.shift()),
            1 => format!("rate(h{window})"),
            2 => "sum by (g) (h)".to_owned(),
            _ => "n".to_owned(),
        };
        if self.dice.one_in(3) {
            let histogram = if self.scope.everything && self.scope.histograms { native } else { buckets };
            return format!("histogram_fraction({}, {}, {histogram})", self.scalar(), self.scalar());
        }
        let histogram = if self.scope.histograms && self.dice.one_in(2) { native } else { buckets };
        let q = self.dice.pick(&["0", "0.1", "0.5", "0.9", "0.99", "1", "1.1", "-0.1", "NaN"]);
        format!("histogram_quantile({q}, {histogram})")
    }

    /// Times that have a date.
    fn date(&mut self) -> String {
        match self.dice.below(4) {
            0 => String::new(),
            1 => "timestamp(m)".to_owned(),
            2 => format!("vector({})", self.dice.below(4_000_000_000)),
            _ => format!("vector(-{})", self.dice.below(2_000_000_000)),
        }
    }

    /// What the oracle leaves out.
    fn beyond(&mut self, depth: usize) -> String {
        let vector = self.vector(depth);
        match self.dice.below(6) {
            0 => format!("histogram_stddev({vector})"),
            1 => format!("histogram_stdvar({vector})"),
            2 => format!("sort_by_label({vector}, \"i\", \"g\")"),
            3 => format!("sort_by_label_desc({vector}, \"g\")"),
            4 => format!("histogram_fraction({}, {}, {vector})", self.scalar(), self.scalar()),
            _ => format!("info({vector}, {{__name__=\"one\"}})"),
        }
    }
}
