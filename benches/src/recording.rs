//! A recording of scrapes: which series there were, and each series' value second by second.
//!
//! The file is gzip of text, so that it is small, diffable when unpacked, and free of any codec
//! that is being measured:
//!
//! ```text
//! series NAME{LABELS}       one line a series, in the order of its index
//! tick                      a second passed
//! INDEX VALUE               a series whose value changed at this tick
//! ```

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Scrapes at one-second steps, as columns.
#[derive(Debug, Default)]
pub struct Recording {
    /// `name{label="value",…}` as exposed.
    pub series: Vec<String>,
    /// Values by series, one for each tick.
    pub values: Vec<Vec<f64>>,
}

impl Recording {
    pub fn ticks(&self) -> usize {
        self.values.first().map_or(0, Vec::len)
    }

    pub fn read(path: &Path) -> Result<Recording> {
        let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        Recording::parse(GzDecoder::new(file)).with_context(|| format!("read {}", path.display()))
    }

    fn parse(input: impl Read) -> Result<Recording> {
        let mut recording = Recording::default();
        let mut now: Vec<f64> = Vec::new();
        let mut started = false;
        for line in BufReader::new(input).lines() {
            let line = line?;
            if let Some(series) = line.strip_prefix("series ") {
                recording.series.push(series.to_owned());
                recording.values.push(Vec::new());
                now.push(0.0);
            } else if line == "tick" {
                if started {
                    recording.keep(&now);
                }
                started = true;
            } else {
                let (index, value) = line.split_once(' ').context("INDEX VALUE")?;
                let slot = now.get_mut(index.parse::<usize>()?).context("an index of a series")?;
                *slot = value.parse()?;
            }
        }
        recording.keep(&now);
        Ok(recording)
    }

    fn keep(&mut self, now: &[f64]) {
        for (column, value) in self.values.iter_mut().zip(now) {
            column.push(*value);
        }
    }
}

/// Turns expositions into a recording, one call a second.
#[derive(Default)]
pub struct Recorder {
    index: HashMap<String, usize>,
    series: Vec<String>,
    ticks: Vec<HashMap<usize, String>>,
}

impl Recorder {
    /// Takes all samples of the expositions of one second.
    pub fn tick(&mut self, expositions: &[String]) {
        let mut values = HashMap::new();
        for line in expositions.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let next = self.series.len();
            let index = *self.index.entry(series.to_owned()).or_insert(next);
            if index == next {
                self.series.push(series.to_owned());
            }
            values.insert(index, value.to_owned());
        }
        self.ticks.push(values);
    }

    /// Writes the series that were there from the first tick to the last.
    pub fn write(&self, path: &Path) -> Result<usize> {
        let kept: Vec<usize> = (0..self.series.len())
            .filter(|index| self.ticks.iter().all(|tick| tick.contains_key(index)))
            .collect();
        if kept.is_empty() {
            bail!("no series was there all the time");
        }
        let mut out = GzEncoder::new(std::fs::File::create(path)?, Compression::best());
        for index in &kept {
            writeln!(out, "series {}", self.series[*index])?;
        }
        let mut last: Vec<&str> = vec![""; kept.len()];
        for tick in &self.ticks {
            writeln!(out, "tick")?;
            for (slot, (index, last)) in kept.iter().zip(&mut last).enumerate() {
                let value = tick[index].as_str();
                if value != *last {
                    writeln!(out, "{slot} {value}")?;
                    *last = value;
                }
            }
        }
        out.finish()?;
        Ok(kept.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_reads_back_as_it_was_taken() {
        let mut recorder = Recorder::default();
        for second in 0..3 {
            recorder.tick(&[format!("# HELP x y\nup 1\nt{{a=\"b c\"}} {second}.5\n")]);
        }
        recorder.tick(&["up 1\nt{a=\"b c\"} 9\nlate 1\n".to_owned()]);
        let folder = std::env::temp_dir().join(format!("tidewatch-recording-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("r.gz");
        assert_eq!(recorder.write(&path).expect("written"), 2);
        let recording = Recording::read(&path).expect("read");
        std::fs::remove_dir_all(folder).expect("removed");
        assert_eq!(recording.series, ["up", "t{a=\"b c\"}"]);
        assert_eq!(recording.values, [vec![1.0; 4], vec![0.5, 1.5, 2.5, 9.0]]);
    }
}
