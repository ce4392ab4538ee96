//! The admin calls: when they are on, what they take, and in which words they refuse.

mod support;

use std::sync::atomic::Ordering;

use support::{Scene, options};
use tidewatch_model::Limits;
use tidewatch_server::ServerOptions;

fn enabled() -> Scene {
    Scene::with(ServerOptions { enable_admin: true, ..options() }, Limits::default())
}

#[test]
fn they_are_off_unless_they_are_switched_on() {
    let disabled = r#"503 {"status":"error","errorType":"unavailable","error":"admin APIs disabled"}"#;
    let scene = Scene::new();
    for call in ["delete_series?match[]=up", "clean_tombstones", "compact", "snapshot"] {
        scene.check(&format!("POST /api/v1/admin/tsdb/{call}"), disabled);
        scene.check(&format!("PUT /api/v1/admin/tsdb/{call}"), disabled);
    }
    let listen = vec!["0.0.0.0:9090".parse().expect("an address")];
    let exposed = ServerOptions { enable_admin: true, listen, ..options() };
    let answer = Scene::with(exposed, Limits::default()).ask("POST /api/v1/admin/tsdb/snapshot");
    assert!(answer.starts_with("503 ") && answer.contains("asks for no password"), "{answer}");
    assert!(enabled().ask("GET /api/v1/admin/tsdb/snapshot").starts_with("405 "));
}

#[test]
fn series_are_deleted_by_selectors_and_time() {
    let scene = enabled();
    scene.check(
        "POST /api/v1/admin/tsdb/delete_series?match[]=up&match[]=%7Bjob=~%22a.*%22%7D&start=10&end=20.5",
        "204 ",
    );
    scene.check("PUT /api/v1/admin/tsdb/delete_series match[]=up", "204 ");
    let asked = scene.backend.admin.lock().clone();
    let all = format!("delete __name__=\"up\" {} {}", i64::MIN, i64::MAX);
    assert_eq!(
        asked,
        ["delete __name__=\"up\" 10000 20500", "delete job=~\"a.*\" 10000 20500", all.as_str()]
    );
    for (call, error) in [
        ("", "no match[] parameter provided"),
        ("?match[]=up&start=x", "cannot parse"),
        ("?match[]=up%7B", "invalid parameter \\\"match[]\\\""),
        ("?match[]=%7B%7D", "at least one non-empty matcher"),
    ] {
        let answer = scene.ask(&format!("POST /api/v1/admin/tsdb/delete_series{call}"));
        assert!(answer.starts_with("400 ") && answer.contains(error), "{call}: {answer}");
    }
    assert_eq!(scene.backend.admin.lock().len(), 3);
    scene.backend.broken.store(true, Ordering::Relaxed);
    scene.check(
        "POST /api/v1/admin/tsdb/delete_series?match[]=up",
        r#"503 {"status":"error","errorType":"unavailable","error":"the store is recovering"}"#,
    );
}

#[test]
fn snapshots_are_named_tombstones_cleaned_and_blocks_compacted() {
    let scene = enabled();
    let made = r#"200 {"status":"success","data":{"name":"19700101T010000Z-0123456789abcdef"}}"#;
    scene.check("POST /api/v1/admin/tsdb/snapshot", made);
    scene.check("PUT /api/v1/admin/tsdb/snapshot?skip_head=true", made);
    scene.check(
        "POST /api/v1/admin/tsdb/snapshot?skip_head=maybe",
        r#"400 {"status":"error","errorType":"bad_data","error":"invalid parameter \"skip_head\": unable to parse boolean \"maybe\" argument"}"#,
    );
    scene.check("POST /api/v1/admin/tsdb/clean_tombstones", "204 ");
    scene.check("POST /api/v1/admin/tsdb/compact", "204 ");
    assert_eq!(*scene.backend.admin.lock(), ["snapshot false", "snapshot true", "clean", "compact"]);
}
