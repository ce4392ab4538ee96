//! Prometheus' own tables for matchers and durations.

use tidewatch_conformance::{cases, say};
use tidewatch_model::{MatchOp, Matcher, format_duration, parse_duration_ms, parse_signed_duration_ms};

#[test]
fn durations_are_read_and_printed_as_prometheus_does() {
    let cases = cases("model/duration.json");
    for case in &cases {
        let input = case["input"].as_str().expect("a text");
        let signed = case["negative_allowed"] == true;
        let parsed = if signed { parse_signed_duration_ms(input) } else { parse_duration_ms(input) };
        assert_eq!(parsed.is_ok(), case["valid"] == true, "{input}: {parsed:?}");
        if let Ok(ms) = parsed {
            assert_eq!(Some(ms), case["milliseconds"].as_i64(), "{input}");
            assert_eq!(Some(format_duration(ms).as_str()), case["printed"].as_str(), "{input}");
        }
    }
    say(&format!("model: {} durations as expected", cases.len()));
}

#[test]
fn matchers_match_as_in_prometheus() {
    let cases = cases("model/matcher.json");
    for case in &cases {
        let op = match case["matcher"]["op"].as_str().expect("an operator") {
            "MatchEqual" => MatchOp::Equal,
            "MatchNotEqual" => MatchOp::NotEqual,
            "MatchRegexp" => MatchOp::Regex,
            "MatchNotRegexp" => MatchOp::NotRegex,
            other => panic!("unknown operator {other}"),
        };
        let matcher =
            Matcher::new(op, "foo", case["matcher"]["value"].as_str().expect("a text")).expect("valid");
        let value = case["value"].as_str().expect("a text");
        assert_eq!(matcher.matches(value), case["match"] == true, "{matcher} on {value:?}");
    }
    say(&format!("model: {} matchers as expected", cases.len()));
}
