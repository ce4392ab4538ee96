//! A batch to `prometheus.WriteRequest`, for what we send ourselves, for tests and benchmarks.

use tidewatch_model::{Batch, BatchExemplar, BatchSeries, Metadata, RawLabels, Sample, spell_pair};

use super::histogram::encode_histogram;
use super::wire::{put_bytes, put_varint, varint_len};

/// Appends the request's protobuf bytes to `out`. Label bytes must be well formed: those of a
/// [`tidewatch_model::Labels`], or such as [`super::decode_write_request`] gave for a series that
/// the store took; a label after malformed bytes is left out.
pub fn encode_write_request(batch: &Batch<'_>, out: &mut Vec<u8>) {
    let mut scratch = Vec::new();
    for series in &batch.series {
        scratch.clear();
        encode_series(batch, series, &mut scratch);
        put_bytes(out, 1, &scratch);
    }
    for exemplar in &batch.exemplars {
        scratch.clear();
        encode_exemplar(exemplar, &mut scratch);
        put_bytes(out, 1, &scratch);
    }
    for metadata in &batch.metadata {
        scratch.clear();
        encode_metadata(metadata, &mut scratch);
        put_bytes(out, 3, &scratch);
    }
}

/// Wraps a request's bytes into the snappy block that travels.
pub fn compress(body: &[u8], out: &mut Vec<u8>) {
    out.resize(snap::raw::max_compress_len(body.len()), 0);
    let len = snap::raw::Encoder::new().compress(body, out).expect("the buffer has the largest size");
    out.truncate(len);
}

fn encode_series(batch: &Batch<'_>, series: &BatchSeries<'_>, out: &mut Vec<u8>) {
    encode_labels(&series.labels, out);
    for sample in &batch.samples[series.samples.start as usize..series.samples.end as usize] {
        encode_sample(*sample, out);
    }
    let histograms = series.histograms.start as usize..series.histograms.end as usize;
    let mut message = Vec::new();
    for histogram in &batch.histograms[histograms] {
        message.clear();
        encode_histogram(histogram, &mut message);
        put_bytes(out, 4, &message);
    }
}

/// A series of its own for each exemplar, as Prometheus sends them.
fn encode_exemplar(exemplar: &BatchExemplar<'_>, out: &mut Vec<u8>) {
    let mut message = Vec::new();
    encode_labels(&exemplar.labels, &mut message);
    message.push(0x11);
    message.extend_from_slice(&exemplar.value.to_le_bytes());
    message.push(0x18);
    put_varint(&mut message, exemplar.timestamp as u64);
    encode_labels(&exemplar.series, out);
    put_bytes(out, 3, &message);
}

fn encode_labels(labels: &RawLabels<'_>, out: &mut Vec<u8>) {
    match labels {
        RawLabels::Proto(bytes) => out.extend_from_slice(bytes),
        RawLabels::Canonical(_) => {
            for (name, value) in labels.pairs().map_while(|pair| pair) {
                spell_pair(name, value, out);
            }
        }
    }
}

fn encode_sample(sample: Sample, out: &mut Vec<u8>) {
    out.push(0x12);
    put_varint(out, (1 + 8 + 1 + varint_len(sample.timestamp as u64)) as u64);
    out.push(0x09);
    out.extend_from_slice(&sample.value.to_le_bytes());
    out.push(0x10);
    put_varint(out, sample.timestamp as u64);
}

fn encode_metadata(metadata: &Metadata<'_>, out: &mut Vec<u8>) {
    out.push(0x08);
    put_varint(out, metadata.kind as u64);
    put_bytes(out, 2, metadata.family.as_bytes());
    put_bytes(out, 4, metadata.help.as_bytes());
    put_bytes(out, 5, metadata.unit.as_bytes());
}
