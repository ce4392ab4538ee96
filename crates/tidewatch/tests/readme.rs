//! The README's example, compiled and run; and the README shows just this.

use tidewatch::{Tidewatch, minutes, seconds};

const RULES: &str = r#"
groups:
- name: api
  interval: 10s
  rules:
  - alert: ApiDown
    expr: up{job="api"} == 0
    for: 30s
"#;

#[test]
fn a_dead_api_pages_after_thirty_seconds() {
    let mut tidewatch = Tidewatch::builder().rules(RULES).in_memory().expect("valid rules");
    tidewatch.scrape_text("up{job=\"api\"} 0\n");
    tidewatch.advance(seconds(20));
    assert_eq!(tidewatch.alerts()[0].state.as_str(), "pending");
    tidewatch.advance(minutes(1));
    assert_eq!(tidewatch.alerts()[0].state.as_str(), "firing");
    assert_eq!(tidewatch.notifications().len(), 1);
}

#[test]
fn the_readme_shows_the_example_above() {
    let source = include_str!("readme.rs");
    let start = source.find("use tidewatch").expect("the example begins with its import");
    let end = source.find("\n#[test]\nfn the_readme").expect("this test follows it");
    let readme = include_str!("../../../README.md");
    assert!(
        readme.contains(source[start..end].trim_end()),
        "README.md and crates/tidewatch/tests/readme.rs differ"
    );
}
