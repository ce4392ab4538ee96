//! Sleeps of the process and clocks that are set: when groups wait, and for how long.

use super::*;

#[test]
fn after_a_long_sleep_rules_wait_for_fresh_samples() {
    let nothing = Scripted::new("");
    let mut append = |_: &[RuleSample]| Ok(());
    let mut before = groups(DOWN, &settings());
    run(&mut before, &Scripted::new(r#"down{job="a"} 1 1 1 1"#), &[0, 30, 60, 90], false);
    let mut after = groups(DOWN, &settings()).remove(0);
    after.restore(Some(90_000), Some(95_000), &mut kept(&before));
    // What fires is told again meanwhile: receivers would take silence for its end.
    let effects = after.step(1_000_000, &nothing, &mut append).expect("a reminder");
    assert!(!effects.evaluated && effects.gap.is_none() && effects.failures.is_empty());
    assert_eq!(effects.changes.iter().map(|change| change.kind).collect::<Vec<_>>(), [ChangeKind::Sent]);
    assert!(effects.notifications[0].ends_at_ms > 1_190_000, "{:?}", effects.notifications);
    assert!(after.step(1_005_000, &nothing, &mut append).is_none());
    assert_eq!(after.next_due_ms(), 1_060_000);
    assert!(after.step(1_059_999, &nothing, &mut append).is_none());
    // Stopped in the middle of it, for so long that what came in is seen no more: it begins anew.
    after.slept(1_050_000, 1_330_000);
    assert_eq!(after.waits_until_ms(1_330_000), Some(1_390_000));
    let effects = after.step(1_330_000, &nothing, &mut append).expect("a reminder");
    assert!(!effects.evaluated && effects.notifications[0].state == AlertState::Firing);
    // Stopped for less: nothing came in meanwhile.
    after.slept(1_340_000, 1_360_000);
    assert_eq!(after.waits_until_ms(1_360_000), Some(1_410_000));
    let effects = after.step(1_410_007, &nothing, &mut append).expect("it is due");
    // As of a time at which all had come back, not as of the slot before it.
    assert!(effects.evaluated && effects.at_ms == 1_410_000, "{effects:?}");
    let gap = effects.gap.expect("what was missed");
    assert!(gap.from_ms > 90_000 && gap.from_ms <= 120_000 && gap.to_ms < 1_410_000, "{gap:?}");
    assert_eq!(gap.evaluations as i64, (gap.to_ms - gap.from_ms) / STEP_MS + 1);
    assert_eq!(effects.changes[0].kind, ChangeKind::Resolved);
    assert!(after.next_due_ms() > 1_410_000 && after.next_due_ms() <= 1_440_000);
}

/// Sleeps of a group as `SINCE-UNTIL`, in seconds, and until when it waits after each of them.
#[track_caller]
fn check_sleeps(refill: i64, sleeps: &str, expected: &str) {
    let settings = Settings { refill_ms: refill * 1000, interval_ms: STEP_MS, ..Settings::default() };
    let rules = "groups: [{name: g, rules: [{alert: A, expr: a}]}]";
    let mut group = groups(rules, &Arc::new(settings)).remove(0);
    let waits: Vec<String> = sleeps
        .split(' ')
        .map(|sleep| {
            let (since, until) = sleep.split_once('-').expect("SINCE-UNTIL");
            let ms = |seconds: &str| seconds.parse::<i64>().expect("seconds") * 1000;
            group.slept(ms(since), ms(until));
            group.waits_until_ms(ms(until)).map_or("-".to_owned(), |ms| (ms / 1000).to_string())
        })
        .collect();
    assert_eq!(waits.join(" "), expected);
}

// A virtual machine that is denied the CPU for a moment each minute: rules waited for ever.
#[test]
fn a_process_that_stutters_during_a_wait_still_ends_it() {
    check_sleeps(240, "1000-2000 2060-2076 2136-2152 2212-2228 2288-2304", "2240 2256 2272 2288 -");
}

// A laptop that looks for mail each five minutes: alerts ended for want of samples.
#[test]
fn sleeps_with_a_moment_awake_between_them_are_one() {
    check_sleeps(30, "1000-1250 1255-1505", "- 1565");
    // Here all series came back in between.
    check_sleeps(30, "1000-1250 1281-1531", "- -");
    // Many short ones do not add up.
    check_sleeps(120, "1000-1070 1190-1260 1380-1450 1570-1640", "- - - -");
}

/// How many seconds each group waits after a long sleep.
fn waits(rules: &str) -> Vec<(String, i64)> {
    let mut groups = groups(rules, &settings());
    groups.iter_mut().for_each(|group| group.slept(1_000_000, 2_000_000));
    let wait = |group: &Group| group.waits_until_ms(2_000_000).expect("it waits") / 1000 - 2000;
    groups.iter().map(|group| (group.name().to_owned(), wait(group))).collect()
}

// Alerts that read what another group records were judged before it was recorded, as a group that
// records and alerts waited as long as its readers.
#[test]
fn a_group_waits_for_those_that_record_what_it_reads() {
    let named = |list: &[(&str, i64)]| -> Vec<(String, i64)> {
        list.iter().map(|(name, wait)| ((*name).to_owned(), *wait)).collect()
    };
    let chain = r#"
groups:
- {name: last, rules: [{alert: Z, expr: t > 1}]}
- {name: mixed, rules: [{record: r, expr: a}, {alert: X, expr: r > 1}]}
- {name: second, interval: 15s, rules: [{record: s, expr: 'avg_over_time(r[5m])'}]}
- {name: third, interval: 10m, rules: [{record: t, expr: 's{x="1"}'}]}
- {name: plain, rules: [{alert: P, expr: up == 0}]}
- {name: regex, rules: [{alert: R, expr: '{__name__=~"[ab]|s"}'}]}
- {name: meta, rules: [{alert: M, expr: 'ALERTS{alertname="P"}'}]}
- {name: any, rules: [{alert: N, expr: 'ALERTS{alertname!~"A|B"}'}]}
"#;
    let expected = [
        ("last", 60 + 30 + 15 + 60),
        ("mixed", 60),
        ("second", 60 + 30),
        ("third", 60 + 30 + 15),
        ("plain", 60),
        ("regex", 60 + 30 + 15),
        ("meta", 60 + 30),
        ("any", 60 + 30 + 15 + 60 + 30),
    ];
    assert_eq!(waits(chain), named(&expected));
    // Nobody waits for himself by way of another.
    let circle =
        "groups: [{name: a, rules: [{record: r, expr: s}]}, {name: b, rules: [{record: s, expr: r}]}]";
    assert_eq!(waits(circle), named(&[("a", 90), ("b", 60)]));
}

// The ninth of a chain was taken for one that reads nothing, and judged before the others recorded.
#[test]
fn each_group_of_a_long_chain_waits_for_the_one_before() {
    let chain = |places: &mut dyn Iterator<Item = usize>| -> String {
        let group =
            |n| format!("- {{name: g{n:02}, interval: 15s, rules: [{{record: r{}, expr: r{n}}}]}}\n", n + 1);
        format!("groups:\n{}", places.map(group).collect::<String>())
    };
    let expected: Vec<(String, i64)> = (0..12).map(|n| (format!("g{n:02}"), 60 + 15 * n)).collect();
    assert_eq!(waits(&chain(&mut (0..12))), expected);
    let mut waits = waits(&chain(&mut (0..12).rev()));
    waits.sort();
    assert_eq!(waits, expected);
}

// The rules looked into the sleep, and took for resolved what had come back.
#[test]
fn a_group_that_looks_into_the_past_waits_until_the_sleep_is_behind_it() {
    let rules = "groups: [{name: g, query_offset: 2m, rules: [{alert: A, expr: a}]}]";
    assert_eq!(waits(rules), [("g".to_owned(), 180)]);
}

// A clock that was an hour ahead: `for`, the next telling and the end of an alert came an hour late.
#[test]
fn alerts_of_a_clock_that_was_ahead_go_on_when_it_is_set_back() {
    let rules = r#"
groups:
- name: g
  rules:
  - {alert: Held, expr: held, for: 1m}
  - {alert: Told, expr: told}
  - {alert: Kept, expr: told, keep_firing_for: 1m}
"#;
    check(
        rules,
        "held 1 1 1 1 1 1 1 1 _ 1\n told _ _ _ _ _ _ _ _ _ 1 1",
        &[270, 0, 30, 60],
        false,
        r#"
        270s Pending {alertname="Held"} since 270s
        270s Firing {alertname="Told"} since 270s
        270s Firing {alertname="Kept"} since 270s
        270s tell firing 270s..510s {}
        270s tell firing 270s..510s {}
        0s Redated {alertname="Held"} since 0s
        0s Redated {alertname="Told"} since 0s
        0s Resolved {alertname="Told"} since 0s
        0s Redated {alertname="Kept"} since 0s
        0s Kept {alertname="Kept"} since 0s
        0s tell inactive 0s..0s {}
        0s tell firing 0s..240s {}
        60s Firing {alertname="Held"} since 0s
        60s Resolved {alertname="Kept"} since 0s
        60s tell firing 60s..300s {}
        60s tell inactive 0s..60s {}
        "#,
    );
}

#[test]
fn a_group_that_a_reload_brings_waits_as_the_others_do() {
    let settings = settings();
    let file = |text: &str| RuleFile::parse(text, "rules.yml", &LoadOptions::default()).expect("valid");
    let mut old = groups(DOWN, &settings);
    old[0].slept(0, 1_000_000);
    let with_new = format!("{DOWN}\n- {{name: new, rules: [{{alert: Gone, expr: absent(down)}}]}}");
    let reloaded = reload(old, vec![file(&with_new)], &settings, 1_001_000);
    let due: Vec<i64> = reloaded.groups.iter().map(Group::next_due_ms).collect();
    assert_eq!(due, [1_060_000, 1_060_000]);
}

#[test]
fn a_clock_that_was_ahead_for_a_while_stops_no_group() {
    let evaluator = Scripted::new("a 1 1 1 1 1 1 1 1 1 1 1 1");
    let mut append = |_: &[RuleSample]| Ok(());
    let rules = "groups: [{name: g, interval: 30s, rules: [{record: r, expr: a}]}]";
    let mut group = groups(rules, &settings()).remove(0);
    assert!(group.step(60_000, &evaluator, &mut append).is_some());
    let year_ms = 365 * 86_400_000;
    group.slept(60_000, year_ms);
    assert!(group.step(year_ms, &evaluator, &mut append).is_none());
    assert!(group.step(90_000, &evaluator, &mut append).is_none());
    assert!(group.step(150_000, &evaluator, &mut append).is_some());
}

/// Sleeps and what they lead to: how long rules wait, in seconds.
#[test]
fn a_sleep_that_the_window_does_not_bridge_makes_rules_wait() {
    let alert = |expr: &str| format!("groups: [{{name: g, rules: [{{alert: A, expr: '{expr}'}}]}}]");
    let wait = |rules: &str, lookback: i64, refill: i64, slept: i64| {
        let (lookback_ms, refill_ms) = (lookback * 1000, refill * 1000);
        let settings = Settings { lookback_ms, refill_ms, interval_ms: STEP_MS, ..Settings::default() };
        let mut group = groups(rules, &Arc::new(settings)).remove(0);
        let now_ms = 10_000_000;
        group.slept(now_ms - slept * 1000, now_ms);
        (group.next_due_ms() - now_ms).max(0) / 1000
    };
    // What the head holds lasts for five minutes, of which new samples need half a minute.
    assert_eq!(wait(&alert("a"), 300, 30, 270), 0);
    assert_eq!(wait(&alert("a"), 300, 30, 271), 60);
    // Alerts may read what is recorded once the samples are there.
    let both = "groups: [{name: g, rules: [{alert: A, expr: r}]}, {name: h, interval: 1m, rules: [{record: r, expr: a}]}]";
    assert_eq!(wait(both, 300, 30, 271), 120);
    // Targets that are scraped every two minutes.
    assert_eq!(wait(&alert("a"), 300, 240, 149), 0);
    assert_eq!(wait(&alert("a"), 300, 240, 151), 240);
    // The narrowest window counts, also one of the server's.
    assert_eq!(wait(&alert("a > b or rate(c[1m]) > 1"), 300, 30, 31), 60);
    assert_eq!(wait(&alert("rate(c[10m]) > 1"), 300, 30, 60), 0);
    assert_eq!(wait(&alert("max_over_time(a[1h:1m]) > 1"), 300, 30, 271), 60);
    assert_eq!(wait(&alert("a"), 20, 30, 30), 60);
    // The clock was set back.
    assert_eq!(wait(&alert("a"), 300, 30, -3_000), 0);
}
