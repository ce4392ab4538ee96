//! Series as rows of a Parquet file, for DuckDB, Spark, DataFusion and what else reads columns.
//!
//! ```text
//! name       STRING, absent where a series has no metric name
//! labels     MAP of STRING to STRING: the other labels
//! timestamp  TIMESTAMP in milliseconds, UTC
//! value      DOUBLE
//! ```
//!
//! ```text
//! push, push, … ─► rows of one group ─ full ─► column after column ─► the file ─ finish ─► footer
//! ```
//!
//! Invariants: rows stand in the order in which they were pushed, so that those of a series are
//! together and ascend in time; memory is that of one group, whatever is pushed. The writing crate
//! has a major release every few months: its types stay inside.
//!
//! Not here: which series, and what floats can not say (the binary).

#![cfg(feature = "parquet")]
#![forbid(unsafe_code)]

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use tidewatch_model::{Labels, METRIC_NAME};

const SCHEMA: &str = "
message samples {
  optional binary name (STRING);
  required group labels (MAP) {
    repeated group key_value {
      required binary key (STRING);
      required binary value (STRING);
    }
  }
  required int64 timestamp (TIMESTAMP(MILLIS,true));
  required double value;
}";

/// Rows of a group: 16 MiB before they are encoded. A file can have 32,767 groups.
const GROUP_ROWS: usize = 1 << 20;

/// Entries of a column that are handed over at once.
const BATCH_ENTRIES: usize = 16 << 10;

/// Why a file can not be written.
#[derive(Debug)]
pub struct WriteError(ParquetError);

impl std::fmt::Display for WriteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the Parquet file can not be written: {}", self.0)
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl From<ParquetError> for WriteError {
    fn from(error: ParquetError) -> WriteError {
        WriteError(error)
    }
}

/// Writes a file. See the module.
pub struct ParquetWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    /// The series of the next group, and how many rows each has.
    series: Vec<(Series, usize)>,
    times: Vec<i64>,
    values: Vec<f64>,
    group_rows: usize,
}

/// The texts of a series, shared by its rows.
struct Series {
    labels: Labels,
    name: Option<ByteArray>,
    /// Names and values of the others.
    pairs: Vec<(ByteArray, ByteArray)>,
}

impl Series {
    fn new(labels: &Labels) -> Series {
        let text = |text: &str| ByteArray::from(Bytes::copy_from_slice(text.as_bytes()));
        let others = labels.iter().filter(|(name, _)| *name != METRIC_NAME);
        Series {
            labels: labels.clone(),
            name: labels.metric_name().map(text),
            pairs: others.map(|(name, value)| (text(name), text(value))).collect(),
        }
    }
}

impl<W: Write + Send> ParquetWriter<W> {
    pub fn new(out: W) -> Result<ParquetWriter<W>, WriteError> {
        ParquetWriter::with_group_rows(out, GROUP_ROWS)
    }

    fn with_group_rows(out: W, group_rows: usize) -> Result<ParquetWriter<W>, WriteError> {
        let schema = parse_message_type(SCHEMA)?;
        let timestamp = ColumnPath::from("timestamp");
        let properties = WriterProperties::builder()
            .set_created_by("tidewatch".to_owned())
            .set_compression(Compression::SNAPPY)
            .set_column_dictionary_enabled(timestamp.clone(), false)
            .set_column_encoding(timestamp, Encoding::DELTA_BINARY_PACKED)
            .build();
        let file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        Ok(ParquetWriter { file, series: Vec::new(), times: Vec::new(), values: Vec::new(), group_rows })
    }

    /// Adds a row for each sample of a series.
    pub fn push(&mut self, labels: &Labels, times: &[i64], values: &[f64]) -> Result<(), WriteError> {
        assert_eq!(times.len(), values.len(), "columns of one run are equally long");
        let mut at = 0;
        while at < times.len() {
            let count = (times.len() - at).min(self.group_rows - self.times.len());
            match self.series.last_mut() {
                Some((series, rows)) if series.labels == *labels => *rows += count,
                _ => self.series.push((Series::new(labels), count)),
            }
            self.times.extend_from_slice(&times[at..at + count]);
            self.values.extend_from_slice(&values[at..at + count]);
            at += count;
            if self.times.len() == self.group_rows {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes the footer and gives back what was written to.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.flush()?;
        Ok(self.file.into_inner()?)
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.times.is_empty() {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        write_names(&mut group, &self.series)?;
        write_pairs(&mut group, &self.series, |(name, _)| name)?;
        write_pairs(&mut group, &self.series, |(_, value)| value)?;
        let mut column = group.next_column()?.expect("the schema has it");
        column.typed::<Int64Type>().write_batch(&self.times, None, None)?;
        column.close()?;
        let mut column = group.next_column()?.expect("the schema has it");
        column.typed::<DoubleType>().write_batch(&self.values, None, None)?;
        column.close()?;
        group.close()?;
        self.series.clear();
        self.times.clear();
        self.values.clear();
        Ok(())
    }
}

/// The rows of a series in parts that are handed over at once.
fn batches(rows: usize, entries_each: usize) -> impl Iterator<Item = Range<usize>> {
    let each = (BATCH_ENTRIES / entries_each.max(1)).max(1);
    (0..rows).step_by(each).map(move |from| from..rows.min(from + each))
}

fn write_names<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    series: &[(Series, usize)],
) -> Result<(), WriteError> {
    let mut column = group.next_column()?.expect("the schema has it");
    for (series, rows) in series {
        for batch in batches(*rows, 1) {
            let names = vec![series.name.clone(); batch.len()].into_iter().flatten().collect::<Vec<_>>();
            let defined = vec![i16::from(series.name.is_some()); batch.len()];
            column.typed::<ByteArrayType>().write_batch(&names, Some(&defined), None)?;
        }
    }
    Ok(column.close()?)
}

/// Writes one side of the labels' map. A row without labels has an entry that says so.
fn write_pairs<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    series: &[(Series, usize)],
    side: impl Fn(&(ByteArray, ByteArray)) -> &ByteArray,
) -> Result<(), WriteError> {
    let mut column = group.next_column()?.expect("the schema has it");
    let (mut texts, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    for (series, rows) in series {
        for batch in batches(*rows, series.pairs.len()) {
            texts.clear();
            defined.clear();
            repeated.clear();
            for _ in batch {
                texts.extend(series.pairs.iter().map(|pair| side(pair).clone()));
                let entries = series.pairs.len().max(1);
                defined.extend(std::iter::repeat_n(i16::from(!series.pairs.is_empty()), entries));
                repeated.extend((0..entries).map(|entry| i16::from(entry > 0)));
            }
            column.typed::<ByteArrayType>().write_batch(&texts, Some(&defined), Some(&repeated))?;
        }
    }
    Ok(column.close()?)
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, RowAccessor};

    use super::*;

    /// Name, labels, time and the bits of the value.
    type Row = (Option<String>, Vec<(String, String)>, i64, u64);

    fn read(file: Vec<u8>) -> (usize, Vec<Row>) {
        let reader = SerializedFileReader::new(Bytes::from(file)).expect("a file");
        let row = |row: parquet::record::Row| {
            let name = row.get_string(0).ok().cloned();
            let labels = row.get_map(1).expect("a map").entries().iter();
            let text = |field: &Field| match field {
                Field::Str(text) => text.clone(),
                other => panic!("{other} is no text"),
            };
            let labels = labels.map(|(name, value)| (text(name), text(value))).collect();
            let time = row.get_timestamp_millis(2).expect("a time");
            (name, labels, time, row.get_double(3).expect("a value").to_bits())
        };
        let rows = reader.get_row_iter(None).expect("rows").map(|read| row(read.expect("whole")));
        (reader.num_row_groups(), rows.collect())
    }

    #[test]
    fn rows_read_back_in_bounded_groups() {
        let series = [
            Labels::from_pairs([("__name__", "up"), ("job", "a"), ("zone", "ü")]),
            Labels::from_pairs([("__name__", "up"), ("job", "b")]),
            Labels::from_pairs([("__name__", "alone")]),
            Labels::from_pairs([("job", "nameless")]),
        ];
        let values = [1.5, -0.0, f64::NAN, f64::INFINITY, 5e-324, 0.1, 7.0];
        let times: Vec<i64> = (0..values.len() as i64).map(|at| at * 15_000 - 30_000).collect();
        let mut writer = ParquetWriter::with_group_rows(Vec::new(), 10).expect("a file");
        let mut expected = Vec::new();
        for labels in &series {
            writer.push(labels, &times[..2], &values[..2]).expect("written");
            writer.push(labels, &times[2..], &values[2..]).expect("written");
            for (time, value) in times.iter().zip(&values) {
                let name = labels.metric_name().map(str::to_owned);
                let others = labels.iter().filter(|(name, _)| *name != METRIC_NAME);
                let others = others.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                expected.push((name, others, *time, value.to_bits()));
            }
        }
        let (groups, rows) = read(writer.finish().expect("written"));
        assert_eq!(groups, 3);
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_group_larger_than_a_batch_reads_back() {
        let pairs = (0..40).map(|at| (format!("label_{at}"), "x".to_owned()));
        let labels = Labels::from_pairs(pairs);
        let times: Vec<i64> = (0..40_000).collect();
        let values: Vec<f64> = times.iter().map(|time| *time as f64 / 3.0).collect();
        let mut writer = ParquetWriter::new(Vec::new()).expect("a file");
        writer.push(&labels, &times, &values).expect("written");
        let file = writer.finish().expect("written");
        assert!(file.len() < 1 << 20, "{} bytes", file.len());
        let (groups, rows) = read(file);
        assert_eq!((groups, rows.len()), (1, 40_000));
        assert!(rows.iter().zip(&values).all(|(row, value)| row.1.len() == 40 && row.3 == value.to_bits()));
    }

    #[test]
    fn nothing_is_a_file_without_rows() {
        let file = ParquetWriter::new(Vec::new()).expect("a file").finish().expect("written");
        assert_eq!(read(file), (0, Vec::new()));
    }
}
