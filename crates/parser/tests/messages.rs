//! What is refused, with which words and where: one case for each rule that can refuse.

use tidewatch_parser::{ParserOptions, parse_expr, parse_metric_selector, parse_series_description};

/// Checks that `query` is refused as `expected` says, `start..end message`.
#[track_caller]
fn check(query: &str, expected: &str) {
    check_with(&ParserOptions::experimental(), query, expected);
}

#[track_caller]
fn check_with(options: &ParserOptions, query: &str, expected: &str) {
    let errors = parse_expr(query, options).expect_err(query);
    let first = errors.first();
    assert_eq!(format!("{}..{} {}", first.pos.start, first.pos.end, first.message), expected, "{query}");
}

#[test]
fn mistakes_of_spelling() {
    check("", "0..0 no expression found in input");
    check("# nothing\n", "0..0 no expression found in input");
    check("up § 1", "3..7 unexpected character: '§'");
    check("1.2.3", "0..5 bad number or duration syntax: \"1.2.\"");
    check("1 ! 2", "2..5 unexpected character after '!': ' '");
    check("up{job='a", "7..9 unterminated quoted string");
    check(r#""\q""#, "0..4 unknown escape sequence U+0071 'q'");
    check(r#""\x4g""#, "0..6 illegal character U+0067 'g' in escape sequence");
    check(r#""\ud800""#, "0..8 escape sequence is an invalid Unicode code point");
    check("(1))", "4..4 unexpected right parenthesis ')'");
    check("up]", "2..3 unexpected right bracket ']'");
    check("up{{", "3..4 unexpected left brace '{'");
    check("up[1m[", "5..6 unexpected left bracket '['");
    check("up[:1m]", "4..7 unexpected colon before duration in duration expression");
    check("up[1m:1m:1m]", "8..12 unexpected colon ':'");
    check("up[\"5m\"]", "3..8 unexpected character in duration expression: '\"'");
    check("up[1m", "5..5 unclosed left bracket");
    check("1e999", "0..5 error parsing number: strconv.ParseFloat: parsing \"1e999\": value out of range");
}

#[test]
fn mistakes_of_grammar_are_reported_by_the_innermost_rule() {
    check("* 1", "0..1 unexpected <op:*>");
    check("a + on(b) group_left != c", "21..23 unexpected <op:!=> in grouping opts, expected \"(\"");
    check("a * on(b) group_right bool c", "22..26 unexpected <bool> in grouping opts, expected \"(\"");
    check("up down", "3..7 unexpected identifier \"down\"");
    check("sum(up down)", "7..11 unexpected identifier \"down\" in aggregation");
    check("sum(rate(up[1m] 5))", "16..17 unexpected number \"5\" in aggregation");
    check("sum by (job up", "12..14 unexpected identifier \"up\" in grouping opts, expected \",\" or \")\"");
    check(
        "up offset up",
        "10..12 unexpected identifier \"up\" in offset, expected number, duration, step(), or range()",
    );
    check("up @ up", "5..7 unexpected identifier \"up\" in @, expected timestamp");
    check("up @ start", "10..10 unexpected end of input in @, expected timestamp");
    check(
        "up[]",
        "3..4 unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()",
    );
    check("up[5m)", "6..6 unexpected right parenthesis ')'");
    check("(up[5m))", "6..7 unexpected \")\" in subquery or range, expected \":\" or \"]\"");
    check(
        "up[5m:,]",
        "6..7 unexpected \",\" in subquery selector, expected number, duration, step(), range(), or \"]\"",
    );
    check("up[5m:1m,]", "8..9 unexpected \",\" in subquery selector, expected \"]\"");
    check(
        "up{job=\"a\" instance=\"b\"}",
        "11..19 unexpected identifier \"instance\" in label matching, expected \",\" or \"}\"",
    );
    check("up{\"a\"=b}", "7..8 unexpected identifier \"b\" in label matching, expected string");
    check("up + fill(x) down", "10..11 unexpected identifier \"x\"");
    check("abs(up,)", "6..7 trailing commas not allowed in function call args");
    check("a:b(up)", "3..4 unexpected \"(\"");
    check("by(up)", "2..3 unexpected \"(\"");
}

#[test]
fn mistakes_of_meaning() {
    check(
        "-\"text\"",
        "0..7 unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
    );
    check("up{__name__=\"down\"}", "0..19 metric name must not be set twice: \"up\" or \"down\"");
    check("{}", "0..2 vector selector must contain at least one non-empty matcher");
    check("up{job=~\"[\"}", "3..11 error parsing regexp: missing closing ]: `[`");
    check("sum(\"up\")", "4..8 expected type instant vector in aggregation expression, got string");
    check("up + \"x\"", "5..8 binary expression must contain only scalar and instant vector types");
    check("nope(up)", "0..4 unknown function with name \"nope\"");
    check("label_join(up)", "0..14 expected at least 3 argument(s) in call to \"label_join\", got 1");
    check("round(up, 1, 2)", "0..15 expected at most 2 argument(s) in call to \"round\", got 3");
    check("up @ 1 @ 2", "0..6 @ <timestamp> may not be set multiple times");
    check("1 + fill(0) up", "0..14 filling in missing series only allowed between instant vectors");
    check("up and fill(0) up", "0..17 filling in missing series not allowed for set operators");
    check("up anchored smoothed", "0..2 anchored and smoothed modifiers cannot be used together");
    check("up[5m:] anchored", "0..7 anchored modifier is not supported for subqueries");
    check("info(up, down)", "9..13 expected label selectors only, got vector selector instead");
    check("up[1m1s1s]", "3..9 not a valid duration string: \"1m1s1s\"");
}

#[test]
fn experimental_parts_are_refused_unless_they_are_on() {
    let stable = ParserOptions::stable();
    check_with(&stable, "mad_over_time(up[5m])", "0..13 function \"mad_over_time\" is not enabled");
    check_with(
        &stable,
        "limitk(1, up)",
        "0..13 limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
    );
    // Since 3.14 these need no feature any more.
    for text in ["first_over_time(up[5m])", "up[1m+1m]", "up[step()*2] offset -min_of(range(), 1h)"] {
        assert!(parse_expr(text, &stable).is_ok(), "{text}");
    }
    check_with(&stable, "up anchored", "0..2 anchored modifier is experimental and not enabled");
    check_with(&stable, "up + fill(0) up", "0..15 binop fill modifiers are experimental and not enabled");
    let mut options = ParserOptions::stable();
    for feature in [
        "promql-experimental-functions",
        "promql-duration-expr",
        "promql-extended-range-selectors",
        "promql-binop-fill-modifiers",
    ] {
        assert!(options.enable(feature), "{feature}");
    }
    assert!(!options.enable("promql-per-step-stats"));
    assert!(parse_expr("mad_over_time(up[1m+1m] anchored) + fill(0) up", &options).is_ok());
}

#[test]
fn depth_nodes_and_text_are_bounded_while_parsing() {
    let options = ParserOptions::experimental();
    let nested = |open: &str, inner: &str, close: &str, count: usize| {
        format!("{}{inner}{}", open.repeat(count), close.repeat(count))
    };
    assert!(parse_expr(&nested("(", "up", ")", 98), &options).is_ok());
    for text in [
        nested("(", "up", ")", 101),
        nested("(", "up", ")", 20_000),
        nested("abs(", "up", ")", 101),
        nested("-", "up", "", 101),
        nested("up + ", "up", "", 101),
        nested("2 ^ ", "2", "", 101),
        nested("", "up", "[1m:]", 101),
        format!("up[{}]", nested("(", "1m", ")", 101)),
        format!("up[{}]", nested("1m + ", "1m", "", 101)),
        format!("up[{}]", nested("-", "step()", "", 101)),
    ] {
        let error = parse_expr(&text, &options).expect_err("too deep").to_string();
        assert!(error.contains("nested more than 100 levels deep"), "{error}");
    }
    for text in [format!("abs({}1)", "1,".repeat(10_001)), format!("up{{{}}}", "a=\"\",".repeat(10_001))] {
        let error = parse_expr(&text, &options).expect_err("too many").to_string();
        assert!(error.contains("more than 10000 parts"), "{error}");
    }
    assert!(
        parse_expr(&" ".repeat(65_537), &options)
            .expect_err("too long")
            .to_string()
            .contains("longer than 65536")
    );
}

#[test]
fn the_expressions_of_a_query_together_are_bounded() {
    let options = ParserOptions::stable();
    let query = |count: usize| vec![r#"x{a=~"\\w{20}"}"#; count].join(" or ");
    assert!(parse_expr(&query(5), &options).is_ok());
    let error = parse_expr(&query(2_000), &ParserOptions { depth: 5_000, ..options }).expect_err("too large");
    assert!(error.to_string().contains("larger than 16777216 bytes when compiled"), "{error}");
}

#[test]
fn texts_that_are_no_utf8_are_kept_to_the_byte() {
    let printed =
        parse_expr(r#"count_values("a\xc5z", up)"#, &ParserOptions::stable()).expect("valid").to_string();
    assert_eq!(printed, r#"count_values("a\xc5z", up)"#);
}

// Found by fuzzing: a matcher's text that is no UTF-8 was printed as a character that is refused.
#[test]
fn a_replacement_character_is_printed_so_that_it_can_be_read() {
    let options = ParserOptions::stable();
    for query in [r#"{a="\377"}"#, r#"sum by ("\xff") (up)"#, r#"count_values("\ufffd", up)"#] {
        let printed = parse_expr(query, &options).expect("valid").to_string();
        let again = parse_expr(&printed, &options).map(|again| again.to_string());
        assert_eq!(again.as_deref(), Ok(printed.as_str()), "{query}");
    }
}

#[test]
fn selectors_are_read_alone() {
    let matchers = parse_metric_selector("up{job=~\"a|b\", \"x.y\"!=\"1\"}").expect("a selector");
    let shown: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["job=~\"a|b\"", "\"x.y\"!=\"1\"", "__name__=\"up\""]);
    for text in ["", "1", "sum(up)", "up[5m]", "up offset 5m"] {
        assert!(parse_metric_selector(text).is_err(), "{text}");
    }
}

#[test]
fn a_description_cannot_make_samples_without_bound() {
    for text in ["up 1x99999999999", "up 1+1x18446744073709551615", "up _x2000000", "up {{}}x2000000"] {
        assert!(parse_series_description(text).is_err(), "{text}");
    }
}
