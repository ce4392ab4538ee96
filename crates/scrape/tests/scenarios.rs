//! Scrapes told as text: what targets show in each second, and what the store then holds.

mod support;

use support::{World, relabel_rule, set_label};
use tidewatch_model::RelabelAction;
use tidewatch_scrape::ScrapeConfig;

/// A job with one in-process target, `a`, every 10 s.
fn job(world: &World) -> ScrapeConfig {
    let mut config = ScrapeConfig::new("job");
    config.scrape_interval_ms = 10_000;
    config.scrape_timeout_ms = 5_000;
    config.in_process = vec![world.source("a")];
    config
}

#[test]
fn each_scrape_writes_samples_and_reports_about_itself() {
    let world = World::new();
    world.show("a", "# TYPE m counter\nm{x=\"1\"} 5\nm{x=\"2\"} 6\n");
    world.apply(vec![job(&world)]);
    world.scrape_times(2);
    world.check(
        "",
        r#"
        m{instance="a", job="job", x="1"}  0s:5 10s:5
        m{instance="a", job="job", x="2"}  0s:6 10s:6
        scrape_duration_seconds{instance="a", job="job"}  0s:0 10s:0
        scrape_samples_post_metric_relabeling{instance="a", job="job"}  0s:2 10s:2
        scrape_samples_scraped{instance="a", job="job"}  0s:2 10s:2
        scrape_series_added{instance="a", job="job"}  0s:2 10s:0
        up{instance="a", job="job"}  0s:1 10s:1
        "#,
    );
}

#[test]
fn more_reports_are_written_when_asked_for() {
    let world = World::new();
    let mut config = job(&world);
    (config.extra_scrape_metrics, config.sample_limit) = (true, 7);
    world.show("a", "m 1\n");
    world.apply(vec![config]);
    world.scrape_times(1);
    world.check(
        "scrape_",
        r#"
        scrape_body_size_bytes{instance="a", job="job"}  0s:4
        scrape_duration_seconds{instance="a", job="job"}  0s:0
        scrape_sample_limit{instance="a", job="job"}  0s:7
        scrape_samples_post_metric_relabeling{instance="a", job="job"}  0s:1
        scrape_samples_scraped{instance="a", job="job"}  0s:1
        scrape_series_added{instance="a", job="job"}  0s:1
        scrape_timeout_seconds{instance="a", job="job"}  0s:5
        "#,
    );
}

// A series ends when it vanishes, and everything ends when the scrape fails; once, not each time.
#[test]
fn what_vanishes_gets_one_staleness_marker() {
    let world = World::new();
    world.apply(vec![job(&world)]);
    for text in ["m 1\nn 1\n", "m 2\n", "m 3\n", "m 4\nthis is no sample\n", "m{", "m 5\nn 5\n"] {
        world.show("a", text);
        world.scrape_times(1);
    }
    world.check(
        "m n up",
        r#"
        m{instance="a", job="job"}  0s:1 10s:2 20s:3 30s:stale 50s:5
        n{instance="a", job="job"}  0s:1 10s:stale 50s:5
        up{instance="a", job="job"}  0s:1 10s:1 20s:1 30s:0 40s:0 50s:1
        "#,
    );
}

#[test]
fn a_failed_fetch_ends_series_and_says_why() {
    let world = World::new();
    world.show("a", "m 1\n");
    world.apply(vec![job(&world)]);
    world.scrape_times(1);
    world.fail("a", "context deadline exceeded");
    world.scrape_times(1);
    world.check(
        "m up",
        r#"
        m{instance="a", job="job"}  0s:1 10s:stale
        up{instance="a", job="job"}  0s:1 10s:0
        "#,
    );
    let status = &world.scraper.targets().active[0];
    assert_eq!((status.health.as_str(), status.last_error.as_str()), ("down", "context deadline exceeded"));
}

#[test]
fn timestamps_are_honoured_unless_told_otherwise() {
    for (honor, track, expected) in [
        (true, false, "m{instance=\"a\", job=\"job\"}  -1s:1"),
        (true, true, "m{instance=\"a\", job=\"job\"}  -1s:1 10s:stale"),
        (false, false, "m{instance=\"a\", job=\"job\"}  0s:1 10s:stale"),
    ] {
        let world = World::new();
        let mut config = job(&world);
        (config.honor_timestamps, config.track_timestamps_staleness) = (honor, track);
        world.apply(vec![config]);
        world.show("a", &format!("m 1 {}\n", world.first_scrape_ms() - 1000));
        world.scrape_times(1);
        world.show("a", "n 1\n");
        world.scrape_times(1);
        world.check("m", expected);
    }
}

#[test]
fn the_first_of_two_samples_of_one_series_stays() {
    let world = World::new();
    world.show("a", "m{x=\"1\"} 1\nm{x=\"1\"} 2\nm{x=\"1\",} 3\n");
    world.apply(vec![job(&world)]);
    world.scrape_times(1);
    world.check(
        "m scrape_samples_scraped scrape_series_added",
        r#"
        m{instance="a", job="job", x="1"}  0s:1
        scrape_samples_scraped{instance="a", job="job"}  0s:3
        scrape_series_added{instance="a", job="job"}  0s:1
        "#,
    );
}

// The first at the scrape's own time stays; one with a time of its own is another, whichever comes first.
#[test]
fn a_sample_with_a_time_of_its_own_is_no_duplicate_of_one_without() {
    let world = World::new();
    let mut config = job(&world);
    config.metric_relabel_configs = vec![relabel_rule(|f| {
        f.regex = "a".into();
        f.action = RelabelAction::LabelDrop;
    })];
    world.apply(vec![config]);
    let (two, one) = (world.first_scrape_ms() - 2000, world.first_scrape_ms() - 1000);
    let text = "ee{a=\"é\"} 1 ONE\nee{} 2\nff 1 TWO\nff 2 ONE\nff 3\nff 4\nff 5 TWO\ngg 1\ngg 2 ONE\n";
    world.show("a", &text.replace("ONE", &one.to_string()).replace("TWO", &two.to_string()));
    world.scrape_times(2);
    world.check(
        "ee ff gg scrape_samples_scraped",
        r#"
        ee{instance="a", job="job"}  -1s:1 0s:2 -1s:1 10s:2
        ff{instance="a", job="job"}  -2s:1 -1s:2 0s:3 -2s:5 -2s:1 -1s:2 10s:3 -2s:5
        gg{instance="a", job="job"}  0s:1 -1s:2 10s:1 -1s:2
        scrape_samples_scraped{instance="a", job="job"}  0s:9 10s:9
        "#,
    );
}

#[test]
fn metric_relabelling_drops_and_rewrites() {
    let world = World::new();
    let mut config = job(&world);
    config.metric_relabel_configs = vec![
        relabel_rule(|f| {
            f.source_labels = vec!["__name__".into()];
            f.regex = "secret_.*".into();
            f.action = RelabelAction::Drop;
        }),
        set_label("team", "blue"),
    ];
    world.show("a", "secret_a 1\nsecret_b 1\nm 1\n");
    world.apply(vec![config]);
    world.scrape_times(2);
    world.check(
        "m secret_a scrape_samples_scraped scrape_samples_post_metric_relabeling scrape_series_added",
        r#"
        m{instance="a", job="job", team="blue"}  0s:1 10s:1
        scrape_samples_post_metric_relabeling{instance="a", job="job"}  0s:1 10s:1
        scrape_samples_scraped{instance="a", job="job"}  0s:3 10s:3
        scrape_series_added{instance="a", job="job"}  0s:1 10s:0
        "#,
    );
}

#[test]
fn labels_of_the_target_win_unless_honoured() {
    // A label that is exposed with an empty value is honoured, too: the series has no such label then.
    for (exposed, honor, expected) in [
        (r#"job="x""#, false, r#"exported_job="x", instance="a", job="job""#),
        (r#"job="x""#, true, r#"instance="a", job="x""#),
        (r#"instance="",job="x""#, false, r#"exported_job="x", instance="a", job="job""#),
        (r#"instance="",job="x""#, true, r#"job="x""#),
        (r#""instance"="",job="",exported_job="""#, false, r#"instance="a", job="job""#),
        (r#""instance"="",job="",exported_job="""#, true, ""),
    ] {
        let world = World::new();
        world.show("a", &format!("m{{{exposed}}} 1\n"));
        world.apply(vec![ScrapeConfig { honor_labels: honor, ..job(&world) }]);
        world.scrape_times(3);
        world.check("m", &format!("m{{{expected}}}  0s:1 10s:1 20s:1"));
    }
}

#[track_caller]
fn check_limit(change: impl Fn(&mut ScrapeConfig), text: &str, error: &str) {
    let world = World::new();
    let mut config = job(&world);
    change(&mut config);
    world.apply(vec![config]);
    world.show("a", "ok 1\n");
    world.scrape_times(1);
    world.show("a", text);
    world.scrape_times(1);
    assert_eq!(world.scraper.targets().active[0].last_error, error);
    world.check(
        "ok m up",
        r#"
        ok{instance="a", job="job"}  0s:1 10s:stale
        up{instance="a", job="job"}  0s:1 10s:0
        "#,
    );
}

#[test]
fn a_scrape_over_a_limit_fails_as_a_whole() {
    check_limit(|c| c.sample_limit = 2, "m 1\nok 2\nn 3\n", "sample limit exceeded");
    check_limit(
        |c| c.label_limit = 3,
        "m{x=\"1\"} 1\n",
        "label_limit exceeded (metric: m, number of labels: 4, limit: 3)",
    );
    check_limit(
        |c| c.label_name_length_limit = 8,
        "m{long_name=\"1\"} 1\n",
        "label_name_length_limit exceeded (metric: m, label name: long_name, length: 9, limit: 8)",
    );
    check_limit(
        |c| c.label_value_length_limit = 3,
        "m{x=\"1234\"} 1\n",
        "label_value_length_limit exceeded (metric: m, label name: x, value: \"1234\", length: 4, limit: 3)",
    );
    check_limit(|_| {}, "m 1\nm{a=\"1\",a=\"2\"} 1\n", "label name \"a\" is not unique: invalid sample");
}

#[test]
fn more_targets_than_the_limit_fail_all() {
    let world = World::new();
    let mut config = job(&world);
    config.in_process.push(world.source("b"));
    config.target_limit = 1;
    world.show("a", "m 1\n");
    world.show("b", "m 1\n");
    world.apply(vec![config.clone()]);
    world.run_for(10);
    assert_eq!(world.values("up"), [0.0, 0.0]);
    assert_eq!(
        world.scraper.targets().active[0].last_error,
        "target_limit exceeded (number of targets: 2, limit: 1)"
    );
    config.target_limit = 2;
    world.apply(vec![config]);
    world.run_for(10);
    assert_eq!(world.values("up"), [0.0, 1.0, 0.0, 1.0]);
}

// A reload leaves what did not change alone: the same times, no marker, no series counted anew.
#[test]
fn a_reload_without_change_changes_nothing() {
    let world = World::new();
    world.show("a", "m 1\n");
    let config = job(&world);
    world.apply(vec![config.clone()]);
    world.scrape_times(2);
    world.wait(3);
    world.apply(vec![config]);
    world.scrape_times(1);
    world.check(
        "m scrape_series_added",
        r#"
        m{instance="a", job="job"}  0s:1 10s:1 20s:1
        scrape_series_added{instance="a", job="job"}  0s:1 10s:0 20s:0
        "#,
    );
}

#[test]
fn a_changed_configuration_keeps_times_and_ends_only_what_vanishes() {
    let world = World::new();
    world.show("a", "m 1\nn 1\n");
    let mut config = job(&world);
    world.apply(vec![config.clone()]);
    world.scrape_times(1);
    config.metric_relabel_configs = vec![relabel_rule(|f| {
        f.source_labels = vec!["__name__".into()];
        f.regex = "n".into();
        f.action = RelabelAction::Drop;
    })];
    world.wait(4);
    world.apply(vec![config]);
    world.scrape_times(2);
    world.check(
        "m n up",
        r#"
        m{instance="a", job="job"}  0s:1 10s:1 20s:1
        n{instance="a", job="job"}  0s:1 10s:stale
        up{instance="a", job="job"}  0s:1 10s:1 20s:1
        "#,
    );
}

#[test]
fn a_target_that_goes_ends_when_it_would_have_been_scraped() {
    let world = World::new();
    world.show("a", "m 1\n");
    world.apply(vec![job(&world)]);
    world.scrape_times(1);
    world.wait(4);
    world.apply(vec![]);
    world.run_for(60);
    world.check(
        "m up",
        r#"
        m{instance="a", job="job"}  0s:1 10s:stale
        up{instance="a", job="job"}  0s:1 10s:stale
        "#,
    );
    assert!(world.scraper.targets().active.is_empty());
}

// Between going and coming back no marker may be written: it would lie among the new samples.
#[test]
fn a_target_that_comes_back_in_time_goes_on() {
    let world = World::new();
    world.show("a", "m 1\nn 1\n");
    let config = job(&world);
    world.apply(vec![config.clone()]);
    world.scrape_times(1);
    world.apply(vec![]);
    world.wait(4);
    world.show("a", "m 2\n");
    world.apply(vec![config]);
    world.run_for(16);
    world.check(
        "m n up",
        r#"
        m{instance="a", job="job"}  0s:1 10s:2 20s:2
        n{instance="a", job="job"}  0s:1 10s:stale
        up{instance="a", job="job"}  0s:1 10s:1 20s:1
        "#,
    );
}

#[test]
fn a_slow_scrape_under_a_reload_is_given_up_for_its_successor() {
    let world = World::new();
    world.show("a", "m 1\n");
    let mut config = job(&world);
    world.apply(vec![config.clone()]);
    world.scrape_times(1);
    world.advance_to_next();
    let under_way = world.scraper.due();
    assert_eq!(under_way.len(), 1);
    config.sample_limit = 100;
    world.apply(vec![config]);
    world.scrape_times(1);
    for task in under_way {
        world.finish(task);
    }
    world.check("m", r#"m{instance="a", job="job"}  0s:1 10s:1"#);
}

#[test]
fn files_add_and_remove_targets_while_running() {
    let world = World::new();
    let mut config = ScrapeConfig::new("files");
    config.scrape_interval_ms = 10_000;
    config.file_sd_configs = vec![tidewatch_scrape::FileSdConfig {
        files: vec!["/sd/*.yml".into()],
        refresh_interval_ms: 300_000,
    }];
    config.relabel_configs = vec![
        relabel_rule(|f| {
            f.source_labels = vec!["__meta_filepath".into()];
            f.target_label = "file".into();
        }),
        relabel_rule(|f| {
            f.source_labels = vec!["__address__".into()];
            f.regex = "dropped.*".into();
            f.action = RelabelAction::Drop;
        }),
    ];
    world.write_file("/sd/one.yml", "- targets: [a, 'dropped:1']\n  labels: {dc: x}\n");
    world.show("http://a/metrics", "m 1\n");
    world.show("http://b/metrics", "m 2\n");
    world.apply(vec![config]);
    world.run_for(10);
    let targets = world.scraper.targets();
    assert_eq!(
        targets.active[0].labels.to_string(),
        r#"{dc="x", file="/sd/one.yml", instance="a", job="files"}"#
    );
    assert_eq!(targets.dropped_counts, [("files".to_owned(), 1)]);
    assert_eq!(targets.dropped[0].discovered_labels.get("__address__"), Some("dropped:1"));
    world.write_file("/sd/one.yml", "- targets: [b]\n");
    world.run_for(30);
    let urls: Vec<String> = world.scraper.targets().active.iter().map(|t| t.scrape_url.clone()).collect();
    assert_eq!(urls, ["http://b/metrics"]);
    let (a, b) = (world.last("m", "a"), world.last("m", "b"));
    assert!(tidewatch_model::is_stale(a) && b == 2.0, "{a} {b}");
}

#[test]
fn families_are_described_for_each_target() {
    let world = World::new();
    world.show("a", "# HELP m Counts\\nthings.\n# TYPE m counter\nm 1\n");
    world.apply(vec![job(&world)]);
    world.scrape_times(1);
    let entries = world.scraper.metadata();
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!(
        (entry.family.as_str(), entry.kind.as_str(), entry.help.as_str(), entry.unit.as_str()),
        ("m", "counter", "Counts\nthings.", "")
    );
    assert_eq!(entry.target.to_string(), r#"{instance="a", job="job"}"#);
}

#[test]
fn a_store_that_takes_nothing_is_no_fault_of_the_target() {
    let world = World::new();
    world.show("a", "m 1\n");
    world.apply(vec![job(&world)]);
    world.refuse_all("the store is read-only: disk full");
    world.scrape_times(1);
    let status = &world.scraper.targets().active[0];
    assert_eq!(status.health.as_str(), "up");
    assert_eq!(status.last_error, "the store is read-only: disk full");
}

#[test]
fn in_process_targets_are_stepped_without_a_network() {
    let world = World::new();
    world.show("a", "m 1\n");
    let mut config = job(&world);
    config.static_configs =
        vec![tidewatch_scrape::StaticConfig { targets: vec!["b:1".into()], labels: vec![] }];
    world.apply(vec![config]);
    for _ in 0..2 {
        world.advance_to_next();
        world.step();
    }
    assert_eq!(world.values("m"), [1.0]);
    let mut up = world.values("up");
    up.sort_by(f64::total_cmp);
    assert_eq!(up, [0.0, 1.0]);
}
