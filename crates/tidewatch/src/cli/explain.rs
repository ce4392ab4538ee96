//! `query explain`: the plan of a query as a tree, with what each part of it has cost.

use std::io::Write;

use anyhow::Result;
use serde_json::Value;

use super::Explain;
use super::check::OK;
use super::query::{ask, at_form, client, span_form};

pub fn run(arguments: &Explain, out: &mut dyn Write) -> Result<u8> {
    let Explain { output, time, start, end, step, server, expr } = arguments;
    let mut form = vec![("query", expr.clone())];
    match start.is_some() || end.is_some() || step.is_some() {
        true => form.extend(span_form(start, end, step)?),
        false => form.push(at_form(time)?),
    }
    let data = ask(&client(output)?, server, "/api/tidewatch/explain", &form, &[])?;
    if output.format == "json" {
        writeln!(out, "{data}")?;
    } else {
        write!(out, "{}", render(&data))?;
    }
    Ok(OK)
}

const HEADER: [&str; 8] = ["time", "series", "samples", "read", "rows", "points", "held", "plan"];

/// The tree beside its columns, numbers to the right.
fn render(data: &Value) -> String {
    let mut rows = vec![HEADER.map(str::to_owned)];
    collect(&data["plan"], "", "", &mut rows);
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row[..HEADER.len() - 1].iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            text.push_str(&format!("{cell:>width$}  "));
        }
        text.push_str(&row[HEADER.len() - 1]);
        text.push('\n');
    }
    let stats = &data["stats"];
    let counted = |name: &str| match count(&stats["samples"][name]) {
        none if none.is_empty() => "0".to_owned(),
        some => some,
    };
    text.push_str(&format!(
        "\n{} in all, of them {} in the queue; {} samples looked at, at most {} held\n",
        span(stats["timings"]["execTotalTime"].as_f64().unwrap_or(0.0)),
        span(stats["timings"]["execQueueTime"].as_f64().unwrap_or(0.0)),
        counted("totalQueryableSamples"),
        counted("peakSamples"),
    ));
    text
}

/// A node and those below it; `lead` stands before its own line, `below` before theirs.
fn collect(node: &Value, lead: &str, below: &str, rows: &mut Vec<[String; 8]>) {
    let operation = node["operation"].as_str().unwrap_or("");
    let subject = node["subject"].as_str().map_or_else(String::new, |subject| format!(" {subject}"));
    let once = match (&node["once"], &node["repeated"]) {
        (_, repeated) if *repeated == true => " (as above)",
        (once, _) if *once == true => " (once)",
        _ => "",
    };
    rows.push([
        span(node["busySeconds"].as_f64().unwrap_or(0.0)),
        count(&node["series"]),
        count(&node["samplesRead"]),
        bytes(&node["bytesRead"]),
        count(&node["rows"]),
        count(&node["points"]),
        bytes(&node["bytesHeld"]),
        format!("{lead}{operation}{subject}{once}"),
    ]);
    let children: Vec<&Value> = node["children"].as_array().into_iter().flatten().collect();
    for (index, child) in children.iter().enumerate() {
        let last = index + 1 == children.len();
        let (branch, bar) = if last { ("└ ", "  ") } else { ("├ ", "│ ") };
        collect(child, &format!("{below}{branch}"), &format!("{below}{bar}"), rows);
    }
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}

/// `42,800`; nothing for 0, so that what matters stands out.
fn count(number: &Value) -> String {
    let digits = match number.as_u64() {
        None | Some(0) => return String::new(),
        Some(number) => number.to_string(),
    };
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(number: &Value) -> String {
    match number.as_u64().unwrap_or(0) {
        0 => String::new(),
        n if n >= 1 << 20 => format!("{:.1} MiB", n as f64 / f64::from(1 << 20)),
        n if n >= 1 << 10 => format!("{:.1} KiB", n as f64 / f64::from(1 << 10)),
        n => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_tree_beside_its_columns() {
        let leaf = |operation: &str, series: u64| {
            serde_json::json!({
                "operation": operation, "subject": "up", "once": series == 3, "busySeconds": 0.0123, "series": series,
                "samplesRead": 1_234_567, "bytesRead": 2048, "rows": series, "points": 10, "bytesHeld": 0,
                "children": [],
            })
        };
        let data = serde_json::json!({
            "plan": {
                "operation": "/ on (job)", "once": false, "busySeconds": 1.5, "series": 0, "samplesRead": 0,
                "bytesRead": 0, "rows": 1, "points": 5, "bytesHeld": 100, "children": [leaf("rate[5m]", 2), leaf("select", 3)],
            },
            "stats": {
                "timings": {"execTotalTime": 1.6, "execQueueTime": 0.00001},
                "samples": {"totalQueryableSamples": 1000, "peakSamples": 7},
            },
        });
        // Not a continued line, which would lose its leading blanks.
        let expected = "   time  series    samples     read  rows  points   held  plan
 1.50 s                                 1       5  100 B  / on (job)
12.3 ms       2  1,234,567  2.0 KiB     2      10         ├ rate[5m] up
12.3 ms       3  1,234,567  2.0 KiB     3      10         └ select up (once)

1.60 s in all, of them 10 µs in the queue; 1,000 samples looked at, at most 7 held
";
        assert_eq!(render(&data), expected);
    }
}
