//! An import that is killed at any moment goes on where it was, loses nothing and doubles nothing.

use super::*;

/// Texts so large that they are written in several parts: series with long labels fill a part soon.
const SERIES: usize = 12_000;

fn large_text() -> String {
    let long = "x".repeat(3900);
    let mut text = "# TYPE big gauge\n".to_owned();
    for series in 0..SERIES {
        let time = NEWEST_MS / 1000 - (series % 40) as i64 * 600;
        text += &format!("big{{n=\"{series}\",a=\"{long}\",b=\"{long}\",c=\"{long}\"}} {series} {time}\n");
    }
    text + "# EOF\n"
}

/// Series by their number, and the value and time of each.
fn numbers(folder: &Path) -> Result<Vec<(usize, String, i64)>> {
    let mut found = Vec::new();
    for line in export(folder, "jsonl", &[])?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let number = line["metric"]["n"].as_str().context("a number")?.parse()?;
        let times = line["timestamps"].as_array().context("times")?;
        ensure!(times.len() == 1, "series {number} has {} samples", times.len());
        found.push((number, line["values"][0].to_string(), times[0].as_i64().context("a time")?));
    }
    found.sort_unstable();
    Ok(found)
}

#[test]
fn an_import_that_is_killed_goes_on_where_it_was() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let source = write(folder.path(), "in.txt", &large_text())?;
    let arguments = import_arguments(&data, "openmetrics", &source);
    let log = folder.path().join("log");
    let (mut kills, mut patience_ms) = (0, 100);
    loop {
        let mut process = Process::start(tidewatch()?, &arguments, &log)?;
        std::thread::sleep(Duration::from_millis(patience_ms));
        if let Some(status) = process.ended()? {
            ensure!(status.success(), "{}", std::fs::read_to_string(&log)?);
            break;
        }
        process.kill()?;
        kills += 1;
        // A part takes its time, so that each run has to get further than the last.
        patience_ms += 150;
    }
    let said = std::fs::read_to_string(&log)?;
    ensure!(kills > 1 && said.contains("goes on at line"), "{kills} kills\n{said}");
    let found = numbers(&data)?;
    ensure!(found.len() == SERIES, "{} series", found.len());
    for (at, (number, value, time)) in found.iter().enumerate() {
        let expected = (NEWEST_MS / 1000 - (at % 40) as i64 * 600) * 1000;
        ensure!(*number == at && *time == expected, "series {number} at {time}");
        ensure!(value.parse::<f64>()? == at as f64, "series {number} is {value}");
    }
    Ok(())
}
