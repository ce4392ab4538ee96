//! Requests and what the API answers, text in and text out.

mod support;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use support::{NOW_MS, Scene, options};
use tidewatch_model::Limits;

#[test]
fn instant_queries_answer_as_prometheus_does() {
    let scene = Scene::new();
    scene.check(
        "GET /api/v1/query?query=up",
        r#"200 {"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"api"},"value":[3600,"0"]},{"metric":{"__name__":"up","job":"node"},"value":[3600,"1"]}]}}"#,
    );
    scene.check(
        "POST /api/v1/query query=sum(up)&time=1970-01-01T00:59:30.5Z",
        r#"200 {"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[3570.500,"2"]}]}}"#,
    );
    scene.check(
        "GET /api/v1/query?query=1%2B1&time=10",
        r#"200 {"status":"success","data":{"resultType":"scalar","result":[10,"2"]}}"#,
    );
    scene.check(
        "GET /api/v1/query?query=%22x%22&time=10",
        r#"200 {"status":"success","data":{"resultType":"string","result":[10,"x"]}}"#,
    );
    scene.check(
        "GET /api/v1/query?query=up&limit=1",
        r#"200 {"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"api"},"value":[3600,"0"]}]},"warnings":["results truncated due to limit"]}"#,
    );
    scene.check(
        "GET /api/v1/query?query=up&lookback_delta=1s&time=3600.5",
        r#"200 {"status":"success","data":{"resultType":"vector","result":[]}}"#,
    );
}

#[test]
fn range_queries_answer_as_prometheus_does() {
    let scene = Scene::new();
    scene.check(
        "GET /api/v1/query_range?query=up%7Bjob%3D%22api%22%7D&start=3540&end=3600&step=30s",
        r#"200 {"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"api"},"values":[[3540,"1"],[3570,"1"],[3600,"0"]]}]}}"#,
    );
    scene.check(
        "GET /api/v1/query_range?query=rate(up%7Bjob%3D%22node%22%7D%5B2m%5D)&start=3600&end=3600&step=1",
        r#"200 {"status":"success","data":{"resultType":"matrix","result":[{"metric":{"job":"node"},"values":[[3600,"0"]]}]},"infos":["PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"up\" (1:6)"]}"#,
    );
}

#[test]
fn statistics_come_when_asked_for() {
    let answer = Scene::new().ask("GET /api/v1/query?query=up&stats=all");
    let json: serde_json::Value =
        serde_json::from_str(answer.strip_prefix("200 ").expect("200")).expect("JSON");
    let stats = &json["data"]["stats"];
    assert!(stats["timings"]["execTotalTime"].is_number(), "{stats}");
    assert_eq!(stats["samples"]["totalQueryableSamples"], 2);
    assert_eq!(stats["samples"]["totalQueryableSamplesPerStep"], serde_json::json!([[3600, 2]]));
}

#[test]
fn statistics_by_step_want_their_feature() {
    let options = tidewatch_server::ServerOptions { per_step_statistics: false, ..options() };
    let answer = Scene::with(options, Limits::default()).ask("GET /api/v1/query?query=up&stats=all");
    assert!(answer.contains("totalQueryableSamples") && !answer.contains("PerStep"), "{answer}");
}

#[test]
fn what_needs_more_memory_than_there_is_gets_refused() {
    let small = Limits { query_memory_bytes: 80, ..Limits::default() };
    let scene = Scene::with(options(), small);
    let refused = |path: &str, words: &str| {
        let answer = scene.ask(&format!("GET {path}"));
        assert!(answer.starts_with("422 ") && answer.contains(words), "{path}: {answer}");
    };
    refused("/api/v1/query?query=up", "query needs more than 80 bytes of memory");
    refused("/api/v1/series?match[]=up&match[]=up&match[]=up&match[]=up", "narrow match[]");
    refused("/api/v1/label/__name__/values", "narrow match[]");
    let metrics = scene.ask("GET /metrics");
    assert!(metrics.contains("tidewatch_http_refused_total{limit=\"query_memory_bytes\"} 1"), "{metrics}");
    let none = Limits { queries_memory_bytes: 10, ..Limits::default() };
    let scene = Scene::with(options(), none);
    for path in ["/api/v1/query?query=up", "/api/v1/label/job/values", "/federate?match[]=up"] {
        let answer = scene.ask(&format!("GET {path}"));
        assert!(answer.starts_with("503 ") && answer.contains("unavailable"), "{path}: {answer}");
    }
    let metrics = scene.ask("GET /metrics");
    assert!(metrics.contains("tidewatch_queries_memory_bytes 0\n"), "{metrics}");
}

#[test]
fn wrong_parameters_are_refused_in_prometheus_words() {
    let scene = Scene::new();
    let cases = [
        (
            "/api/v1/query?query=up&time=x",
            r#"invalid parameter \"time\": Invalid time value for 'time': cannot parse \"x\" to a valid timestamp"#,
        ),
        (
            "/api/v1/query?query=up&timeout=x",
            r#"invalid parameter \"timeout\": cannot parse \"x\" to a valid duration"#,
        ),
        ("/api/v1/query?query=up&limit=-1", r#"invalid parameter \"limit\": limit must be non-negative"#),
        (
            "/api/v1/query?query=up&limit=x",
            r#"invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax"#,
        ),
        (
            "/api/v1/query?query=up&lookback_delta=x",
            r#"error parsing lookback delta duration: cannot parse \"x\" to a valid duration"#,
        ),
        (
            "/api/v1/query?query=up%2B",
            r#"invalid parameter \"query\": 1:4: parse error: unexpected end of input"#,
        ),
        (
            "/api/v1/query?query=",
            r#"invalid parameter \"query\": unknown position: parse error: no expression found in input"#,
        ),
        ("/api/v1/query?query=%zz", r#"error parsing form values: invalid URL escape \"%zz\""#),
        (
            "/api/v1/query_range?query=up&end=1&step=1",
            r#"invalid parameter \"start\": cannot parse \"\" to a valid timestamp"#,
        ),
        (
            "/api/v1/query_range?query=up&start=2&end=1&step=1",
            r#"invalid parameter \"end\": end timestamp must not be before start time"#,
        ),
        (
            "/api/v1/query_range?query=up&start=1&end=2&step=0",
            r#"invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer"#,
        ),
        (
            "/api/v1/query_range?query=up&start=0&end=11001&step=1",
            r#"exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"#,
        ),
        ("/api/v1/series", "no match[] parameter provided"),
        (
            "/api/v1/series?match[]=%7B%7D",
            r#"invalid parameter \"match[]\": match[] must contain at least one non-empty matcher"#,
        ),
        (
            "/api/v1/labels?start=x",
            r#"invalid parameter \"start\": Invalid time value for 'start': cannot parse \"x\" to a valid timestamp"#,
        ),
        ("/api/v1/rules?type=x", r#"invalid parameter \"type\": not supported value \"x\""#),
        (
            "/api/v1/rules?exclude_alerts=x",
            r#"invalid parameter \"exclude_alerts\": error converting exclude_alerts: strconv.ParseBool: parsing \"x\": invalid syntax"#,
        ),
        (
            "/api/v1/rules?group_next_token=x",
            r#"invalid parameter \"group_next_token\": group_limit needs to be present in order to paginate over the groups"#,
        ),
        ("/api/v1/metadata?limit=x", "limit must be a number"),
        ("/api/v1/status/tsdb?limit=0", "limit must be a positive number"),
    ];
    for (path, message) in cases {
        let expected = format!(r#"400 {{"status":"error","errorType":"bad_data","error":"{message}"}}"#);
        scene.check(&format!("GET {path}"), &expected);
    }
}

#[test]
fn queries_over_a_limit_are_refused() {
    let limits = Limits { query_text_bytes: 10, response_bytes: 100, ..Limits::default() };
    let scene = Scene::with(options(), limits);
    scene.check(
        "GET /api/v1/query?query=up%2Bup%2Bup%2Bup",
        r#"400 {"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": text of 11 bytes is longer than 10"}"#,
    );
    scene.check(
        "GET /api/v1/query?query=up%5B5m%5D",
        r#"422 {"status":"error","errorType":"execution","error":"the answer needs more than 133 bytes and the limit is 100: narrow the query"}"#,
    );
    scene.check(
        "GET /api/v1/query?query=up&timeout=0",
        r#"503 {"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}"#,
    );
    let metrics = scene.ask("GET /metrics");
    assert!(metrics.contains("tidewatch_http_refused_total{limit=\"query_text_bytes\"} 1\n"), "{metrics}");
    assert!(metrics.contains("tidewatch_http_refused_total{limit=\"response_bytes\"} 1\n"), "{metrics}");
}

#[test]
fn series_and_labels_are_listed() {
    let scene = Scene::new();
    scene.check(
        "GET /api/v1/series?match[]=up&match[]=%7Bjob%3D%22api%22%7D",
        r#"200 {"status":"success","data":[{"__name__":"http.size","job":"api"},{"__name__":"up","job":"api"},{"__name__":"up","job":"node"}]}"#,
    );
    scene.check(
        "POST /api/v1/series match[]=up&limit=1",
        r#"200 {"status":"success","data":[{"__name__":"up","job":"api"}],"warnings":["results truncated due to limit"]}"#,
    );
    scene.check("GET /api/v1/series?match[]=none", r#"200 {"status":"success","data":[]}"#);
    scene.check("GET /api/v1/series?match[]=up&end=1", r#"200 {"status":"success","data":[]}"#);
    scene.check("GET /api/v1/labels", r#"200 {"status":"success","data":["__name__","job"]}"#);
    scene.check(
        "GET /api/v1/labels?limit=1",
        r#"200 {"status":"success","data":["__name__"],"warnings":["results truncated due to limit"]}"#,
    );
    scene.check("GET /api/v1/label/job/values", r#"200 {"status":"success","data":["api","node"]}"#);
    scene.check(
        "GET /api/v1/label/U______name____/values?match[]=%7Bjob%3D%22node%22%7D&match[]=%7Bjob%3D%22api%22%7D",
        r#"200 {"status":"success","data":["http.size","up"]}"#,
    );
    scene.check("GET /api/v1/query_exemplars?query=up&end=12", r#"200 {"status":"success","data":[]}"#);
    scene.check("GET /api/v1/query_exemplars?query=down", r#"200 {"status":"success","data":[]}"#);
    scene.check(
        "GET /api/v1/query_exemplars?query=rate(down[5m])%2Bup",
        r#"200 {"status":"success","data":[{"seriesLabels":{"__name__":"up"},"exemplars":[{"labels":{"trace_id":"a"},"value":"6","timestamp":12.500}]}]}"#,
    );
}

#[test]
fn rules_and_alerts_are_shown_filtered_and_in_pages() {
    let scene = Scene::new();
    let alert = r#"{"labels":{"alertname":"Down","job":"api"},"annotations":{"summary":"\u003cb\u003edown\u003c/b\u003e"},"state":"firing","activeAt":"1970-01-01T00:59:30Z","value":"0e+00"}"#;
    scene.check(
        "GET /api/v1/alerts",
        &format!(r#"200 {{"status":"success","data":{{"alerts":[{alert},{alert}]}}}}"#),
    );
    let recording = r#"{"name":"job:up:sum","query":"sum by (job) (up)","labels":{"severity":"page"},"health":"ok","evaluationTime":0.0005,"lastEvaluation":"1970-01-01T01:00:00Z","type":"recording"}"#;
    let group = |name: &str, file: &str, rules: &str| {
        format!(
            r#"{{"name":"{name}","file":"{file}","rules":[{rules}],"interval":15,"limit":0,"evaluationTime":0.001,"lastEvaluation":"1970-01-01T01:00:00Z"}}"#
        )
    };
    let alerting = |alerts: &str| {
        format!(
            r#"{{"state":"firing","name":"Down","query":"up == 0","duration":30,"keepFiringFor":0,"labels":{{"severity":"page"}},"annotations":{{"summary":"\u003cb\u003edown\u003c/b\u003e"}},"alerts":{alerts},"health":"ok","evaluationTime":0.0005,"lastEvaluation":"1970-01-01T01:00:00Z","type":"alerting"}}"#
        )
    };
    let answer = |groups: &str| format!(r#"200 {{"status":"success","data":{{"groups":[{groups}]}}}}"#);
    scene.check(
        "GET /api/v1/rules?type=record&rule_group[]=second",
        &answer(&group("second", "b.yml", recording)),
    );
    scene.check(
        "GET /api/v1/rules?file[]=a.yml&rule_name[]=Down&exclude_alerts=true",
        &answer(&group("first", "a.yml", &alerting("null"))),
    );
    scene.check(
        "GET /api/v1/rules?file[]=a.yml&type=alert&match[]=%7Bseverity%3D%22page%22%7D",
        &answer(&group("first", "a.yml", &alerting(&format!("[{alert}]")))),
    );
    scene.check("GET /api/v1/rules?match[]=%7Bseverity%3D%22none%22%7D", &answer(""));

    let page = |query: &str| {
        let answer = scene.ask(&format!("GET /api/v1/rules?type=record&group_limit=1{query}"));
        let json: serde_json::Value = serde_json::from_str(&answer[4..]).expect("JSON");
        let names = json["data"]["groups"].as_array().expect("groups").iter().map(|g| g["name"].to_string());
        (names.collect::<String>(), json["data"]["groupNextToken"].as_str().map(str::to_owned))
    };
    let (names, token) = page("");
    assert_eq!(names, "\"first\"");
    assert_eq!(
        page(&format!("&group_next_token={}", token.expect("a next page"))),
        ("\"second\"".to_owned(), None)
    );
}

#[test]
fn targets_and_their_metadata_are_shown() {
    let scene = Scene::new();
    let active = r#"{"discoveredLabels":{"__address__":"localhost:9100","job":"node"},"labels":{"instance":"localhost:9100","job":"node"},"scrapePool":"node","scrapeUrl":"http://localhost:9100/metrics","globalUrl":"http://host:9100/metrics","lastError":"","lastScrape":"1970-01-01T00:59:58.5Z","lastScrapeDuration":0.0125,"health":"up","scrapeInterval":"15s","scrapeTimeout":"10s"}"#;
    let dropped = r#"{"discoveredLabels":{"__address__":"old:9100"},"scrapePool":"node"}"#;
    let answer = |data: &str| format!(r#"200 {{"status":"success","data":{data}}}"#);
    scene.check(
        "GET /api/v1/targets",
        &answer(&format!(r#"{{"activeTargets":[{active}],"droppedTargets":[{dropped}],"droppedTargetCounts":{{"node":1,"other":0}}}}"#)),
    );
    scene.check(
        "GET /api/v1/targets?state=active&scrapePool=other",
        &answer(r#"{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}"#),
    );
    scene.check("GET /api/v1/scrape_pools", &answer(r#"{"scrapePools":["node","other"]}"#));
    scene.check(
        "GET /api/v1/alertmanagers",
        &answer(
            r#"{"activeAlertmanagers":[{"url":"http://am:9093/api/v2/alerts"}],"droppedAlertmanagers":[]}"#,
        ),
    );
    scene.check(
        "GET /api/v1/metadata",
        &answer(r#"{"requests":[{"type":"counter","help":"Requests.","unit":""}],"up":[{"type":"gauge","help":"Is it up.","unit":""},{"type":"gauge","help":"Is it up?","unit":""}]}"#),
    );
    scene.check(
        "GET /api/v1/metadata?metric=up&limit_per_metric=1",
        &answer(r#"{"up":[{"type":"gauge","help":"Is it up.","unit":""}]}"#),
    );
    scene.check(
        "GET /api/v1/targets/metadata?metric=up&match_target=%7Binstance%3D%22b%22%7D",
        &answer(r#"[{"target":{"instance":"b"},"type":"gauge","help":"Is it up?","unit":""}]"#),
    );
}

// An empty list would say that nothing is wrong.
#[test]
fn alerts_metadata_and_blocks_are_not_told_while_a_start_brings_them_back() {
    let scene = Scene::new();
    scene.backend.restoring.store(true, Ordering::Relaxed);
    let refused = r#"503 {"status":"error","errorType":"unavailable","error":"the store is recovering and not complete yet"}"#;
    for path in ["alerts", "rules", "rules?type=alert&exclude_alerts=true", "metadata", "status/tsdb/blocks"]
    {
        scene.check(&format!("GET /api/v1/{path}"), refused);
    }
    assert!(scene.ask("GET /-/ready").starts_with("200 "));
    scene.backend.restoring.store(false, Ordering::Relaxed);
    assert!(scene.ask("GET /api/v1/alerts").contains("firing"));
}

#[test]
fn status_pages_say_how_the_server_is() {
    let scene = Scene::new();
    let answer = |data: &str| format!(r#"200 {{"status":"success","data":{data}}}"#);
    scene.check("GET /api/v1/status/config", &answer(r#"{"yaml":"global:\n  scrape_interval: 15s\n"}"#));
    scene.check("GET /api/v1/status/flags", &answer(r#"{"log.level":"info"}"#));
    scene.check(
        "GET /api/v1/status/buildinfo",
        &answer(r#"{"version":"1.2.3","revision":"","branch":"","buildUser":"","buildDate":"","goVersion":"","application":"tidewatch"}"#),
    );
    scene.check(
        "GET /api/v1/status/runtimeinfo",
        &answer(r#"{"startTime":"1970-01-01T00:00:00Z","CWD":"","hostname":"","serverTime":"1970-01-01T01:00:00Z","reloadConfigSuccess":true,"lastConfigTime":"1970-01-01T00:00:00Z","corruptionCount":0,"goroutineCount":0,"GOMAXPROCS":2,"GOMEMLIMIT":0,"GOGC":"","GODEBUG":"","storageRetention":"15d"}"#),
    );
    scene.check(
        "GET /api/v1/status/tsdb?limit=1",
        &answer(r#"{"headStats":{"numSeries":3,"numLabelPairs":0,"chunkCount":0,"minTime":0,"maxTime":0},"seriesCountByMetricName":[{"name":"up","value":2}],"labelValueCountByLabelName":[],"memoryInBytesByLabelName":[],"seriesCountByLabelValuePair":[],"memoryInBytesByPart":[{"name":"labels","value":700},{"name":"index","value":203}],"memoryInBytesPerSeries":301,"growth":{"since":1000,"seriesCountByMetricName":[{"name":"up","value":1}],"labelValueCountByLabelName":[]},"storage":{"complete":true,"readOnly":"no room","headSamples":0,"staleSeries":0,"logBytes":0,"imageBytes":0,"blocks":0,"blockBytes":0,"disk":{"totalBytes":9,"freeBytes":1,"reserveBytes":2}},"damage":{"count":2,"found":[{"file":"blocks/00000001.block","offset":7,"reason":"a column"}]}}"#),
    );
    scene.check(
        "GET /api/v1/status/tsdb/blocks",
        &answer(r#"{"blocks":[{"ulid":"00000007","minTime":5,"maxTime":10,"stats":{"numSamples":4,"numSeries":2,"numChunks":3},"compaction":{"level":1,"sources":["00000007"]},"version":1,"bytes":0},{"ulid":"00000009","minTime":0,"maxTime":1,"stats":{"numSamples":0,"numSeries":0,"numChunks":0,"numTombstones":1},"compaction":{"level":2,"sources":["00000004","00000005"]},"version":1,"bytes":99}]}"#),
    );
    scene.check("GET /api/v1/status/walreplay", &answer(r#"{"min":3,"max":7,"current":5}"#));
    scene.check(
        "GET /api/tidewatch/notices",
        &answer(r#"{"title":"Tidewatch","phase":"complete","series":3,"notices":["remote_read is not served yet"]}"#),
    );
    scene.check(
        "POST /api/v1/admin/tsdb/delete_series",
        r#"503 {"status":"error","errorType":"unavailable","error":"admin APIs disabled"}"#,
    );
}

#[test]
fn queries_are_formatted_and_taken_apart() {
    let scene = Scene::new();
    scene.check(
        "GET /api/v1/format_query?query=sum(up)by(job)",
        r#"200 {"status":"success","data":"sum by (job) (up)"}"#,
    );
    scene.check(
        "GET /api/v1/parse_query?query=rate(up%7Bjob!%3D%22x%22%7D%5B5m%5D%20offset%201m)%20%3E%20bool%202",
        r#"200 {"status":"success","data":{"bool":true,"lhs":{"args":[{"anchored":false,"matchers":[{"name":"job","type":"!=","value":"x"},{"name":"__name__","type":"=","value":"up"}],"name":"up","offset":60000,"offsetExpr":null,"range":300000,"rangeExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"matrixSelector"}],"func":{"argTypes":["matrix"],"name":"rate","returnType":"vector","variadic":0},"type":"call"},"matching":null,"op":"\u003e","rhs":{"type":"numberLiteral","val":"2"},"type":"binaryExpr"}}"#,
    );
    scene.check(
        "GET /api/v1/parse_query?query=-sum%20without(a)(x%20@%20start()%20%2B%20on(b)%20group_left(c)%20y)",
        r#"200 {"status":"success","data":{"expr":{"expr":{"bool":false,"lhs":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"x"}],"name":"x","offset":0,"offsetExpr":null,"smoothed":false,"startOrEnd":"start","timestamp":null,"type":"vectorSelector"},"matching":{"card":"many-to-one","fillValues":{"lhs":null,"rhs":null},"include":["c"],"labels":["b"],"on":true},"op":"+","rhs":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"y"}],"name":"y","offset":0,"offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"type":"binaryExpr"},"grouping":["a"],"op":"sum","param":null,"type":"aggregation","without":true},"op":"-","type":"unaryExpr"}}"#,
    );
    scene.check(
        "GET /api/v1/parse_query?query=x%5B(step()*2)%5D",
        r#"200 {"status":"success","data":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"x"}],"name":"x","offset":0,"offsetExpr":null,"range":0,"rangeExpr":{"lhs":{"lhs":null,"op":"step","rhs":null,"type":"durationExpr","wrapped":false},"op":"*","rhs":{"duration":false,"type":"numberLiteral","val":"2"},"type":"durationExpr","wrapped":true},"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"matrixSelector"}}"#,
    );
}

#[test]
fn parameters_mean_what_they_mean_in_prometheus() {
    let scene = Scene::new();
    let check = |path: &str, answer: &str| scene.check(&format!("GET /api/v1/{path}"), answer);
    // The part below a second is rounded by itself.
    check(
        "query?query=1&time=1.0005",
        r#"200 {"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#,
    );
    check(
        "query?query=1e30&time=1",
        r#"200 {"status":"success","data":{"resultType":"scalar","result":[1,"1000000000000000000000000000000"]}}"#,
    );
    check(
        "query_range?query=1&start=1&end=3&step=1e-9",
        r#"400 {"status":"error","errorType":"bad_data","error":"exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"}"#,
    );
    check(
        "query_range?query=up%5B5m%5D&start=1&end=3&step=1",
        r#"400 {"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"}"#,
    );
    check(
        "query?query=foo%5B1m-2m%5D&time=1",
        r#"400 {"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 4:9: duration must be greater than 0"}"#,
    );
    let with = |lookback: &str| scene.ask(&format!("GET /api/v1/query?query=up&time=1435781451{lookback}"));
    assert_eq!(with("&lookback_delta=-5"), with(""));
    let answer = scene.ask("GET /api/v1/query?query=1&stats=yes");
    assert!(answer.contains(r#"value \"yes\" for parameter \"stats\" is deprecated"#), "{answer}");
}

#[test]
fn federation_gives_the_newest_samples_as_text() {
    Scene::new().check(
        "GET /federate?match[]=up&match[]=%7Bjob%3D%22api%22%7D",
        "200 # TYPE \"http.size\" untyped\n\
         {\"http.size\",job=\"api\",region=\"eu\",instance=\"\"} 1.2345675e+06 3599000\n\
         # TYPE up untyped\n\
         up{job=\"api\",region=\"eu\",instance=\"\"} 0 3599000\n\
         up{job=\"node\",region=\"eu\",instance=\"\"} 1 3599000\n",
    );
}

#[test]
fn federation_speaks_protobuf_to_who_asks_for_it() {
    let scene = Scene::new();
    let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                  text/plain;q=0.5";
    let request = hyper::Request::builder().uri("/federate?match[]=up&match[]=%7Bjob%3D%22api%22%7D");
    let request = request.header("accept", accept).body(Bytes::new()).expect("a request");
    let (parts, body) = scene.send(request);
    let content_type = parts.headers["content-type"].to_str().expect("ASCII");
    assert!(
        content_type.starts_with("application/vnd.google.protobuf; proto=io.prometheus"),
        "{content_type}"
    );
    // Two families behind their lengths: name, then the type untyped.
    let (first, rest) = body[1..].split_at(usize::from(body[0]));
    assert!(first.starts_with(b"\x0a\x09http.size\x18\x03"), "{first:?}");
    let (second, rest) = rest[1..].split_at(usize::from(rest[0]));
    assert!(second.starts_with(b"\x0a\x02up\x18\x03"), "{second:?}");
    assert_eq!(rest, b"");
}

#[test]
fn health_readiness_and_lifecycle() {
    use std::sync::atomic::Ordering;

    let scene = Scene::new();
    scene.check("GET /-/healthy", "200 Tidewatch Server is Healthy.\n");
    scene.check("GET /-/ready", "200 Tidewatch Server is Ready.\n");
    scene.check("POST /-/reload", "403 Lifecycle API is not enabled.");
    scene.check("PUT /-/quit", "403 Lifecycle API is not enabled.");
    scene.check("GET /-/quit", "405 Only POST or PUT requests allowed");
    assert!(!scene.backend.quit.load(Ordering::Relaxed));
    scene.backend.stopping.store(true, Ordering::Relaxed);
    scene.check("GET /-/ready", "503 Service Unavailable");

    let scene = Scene::with(
        tidewatch_server::ServerOptions { enable_lifecycle: true, ..options() },
        Limits::default(),
    );
    scene.check("POST /-/reload", "200 ");
    scene.backend.reload_fails.store(true, Ordering::Relaxed);
    scene.check("POST /-/reload", "500 failed to reload config: tide.yml:3:5: no\n");
    scene.check("POST /-/quit", "200 Requesting termination... Goodbye!");
    assert!(scene.backend.quit.load(Ordering::Relaxed));

    // Enabled, but the whole network could call it.
    let listen = vec!["0.0.0.0:9090".parse().expect("an address")];
    let exposed = tidewatch_server::ServerOptions { enable_lifecycle: true, listen, ..options() };
    let scene = Scene::with(exposed, Limits::default());
    assert!(scene.ask("POST /-/quit").starts_with("403 Lifecycle API is off: "));
    assert!(!scene.backend.quit.load(Ordering::Relaxed));
}

#[test]
fn unknown_addresses_and_methods_are_refused() {
    let scene = Scene::new();
    scene.check("GET /nothing", "404 404 page not found\n");
    scene.check("DELETE /api/v1/query", "405 Method Not Allowed\n");
    scene.check("GET /api/v1/write", "405 Method Not Allowed\n");
}

#[test]
fn an_answer_is_compressed_and_shared_with_other_origins_when_asked() {
    let scene = Scene::new();
    let ask = |path: &str, headers: &[(&str, &str)]| {
        let mut request = hyper::Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        scene.send(request.body(Bytes::new()).expect("a request"))
    };
    let (parts, body) =
        ask("/api/v1/rules", &[("accept-encoding", "br, gzip;q=0.5"), ("origin", "http://x")]);
    assert_eq!(parts.headers["content-encoding"], "gzip");
    assert_eq!(parts.headers["access-control-allow-origin"], "*");
    assert_eq!(body[..2], [0x1f, 0x8b]);
    let (parts, _) = ask("/api/v1/rules", &[("accept-encoding", "gzip;q=0")]);
    assert!(!parts.headers.contains_key("content-encoding"));
    assert!(!parts.headers.contains_key("access-control-allow-origin"));
    let (parts, _) = ask("/api/v1/labels", &[("accept-encoding", "gzip")]);
    assert!(!parts.headers.contains_key("content-encoding"), "too short to be worth it");

    let scene = Scene::with(
        tidewatch_server::ServerOptions { cors_origin: "https://(a|b)".to_owned(), ..options() },
        Limits::default(),
    );
    let origin = |origin: &str| {
        let request =
            hyper::Request::builder().method("OPTIONS").uri("/api/v1/query").header("origin", origin);
        let (parts, _) = scene.send(request.body(Bytes::new()).expect("a request"));
        assert_eq!(parts.status, 204);
        parts
            .headers
            .get("access-control-allow-origin")
            .map(|value| value.to_str().expect("ASCII").to_owned())
    };
    assert_eq!(origin("https://a"), Some("https://a".to_owned()));
    assert_eq!(origin("https://ab"), None);
}

#[test]
fn the_page_is_served_under_a_strict_policy_and_not_twice() {
    let scene = Scene::new();
    let get = |path: &str, tag: &str| {
        let request = hyper::Request::builder().uri(path).header("if-none-match", tag);
        scene.send(request.body(Bytes::new()).expect("a request"))
    };
    let (parts, body) = get("/graph?g0.expr=up", "");
    assert_eq!(parts.status, 200);
    assert_eq!(parts.headers["content-type"], "text/html; charset=utf-8");
    let policy = parts.headers["content-security-policy"].to_str().expect("ASCII");
    assert!(policy.starts_with("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
    assert!(String::from_utf8_lossy(&body).contains("<script"), "a page");
    let tag = parts.headers["etag"].to_str().expect("ASCII").to_owned();
    let (parts, body) = get("/graph", &tag);
    assert_eq!((parts.status.as_u16(), body.len()), (304, 0));
}

#[test]
fn metrics_count_requests_by_address_and_status() {
    let scene = Scene::new();
    scene.ask("GET /api/v1/label/a/values");
    scene.ask("GET /api/v1/label/b/values");
    scene.ask("GET /api/v1/query?query=");
    let metrics = scene.ask("GET /metrics");
    for line in [
        "tidewatch_something 1",
        "prometheus_http_requests_total{code=\"200\",handler=\"/api/v1/label/:name/values\"} 2",
        "prometheus_http_requests_total{code=\"400\",handler=\"/api/v1/query\"} 1",
        "# TYPE prometheus_engine_queries gauge",
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line} is missing in {metrics}");
    }
}

#[test]
fn a_query_whose_client_goes_away_gives_its_place_back() {
    let scene =
        Scene::with(tidewatch_server::ServerOptions { query_concurrency: 1, ..options() }, Limits::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        use http_body_util::{BodyExt, Empty};
        let request = || {
            let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
            hyper::Request::builder().uri("/api/v1/query?query=up").body(body).expect("a request")
        };
        for _ in 0..50 {
            let dropped = scene.service.handle(request());
            let _ = tokio::time::timeout(std::time::Duration::from_micros(50), dropped).await;
        }
        let response = scene.service.handle(request()).await;
        assert_eq!(response.status(), 200);
    });
    let _ = NOW_MS;
}
