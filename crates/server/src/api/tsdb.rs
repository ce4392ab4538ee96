//! `/api/v1/status/tsdb`: what Prometheus says of its store there, and what ours says beyond that.

use std::sync::Arc;

use tidewatch_storage::SelectError;

use super::blocking;
use crate::backend::{BlockView, StoreStatus, TsdbStatus};
use crate::error::ApiError;
use crate::json::Json;
use crate::reply::Reply;
use crate::request::Params;
use crate::service::Service;

/// Entries of each list of statistics, unless `limit` asks for another number.
const STATISTICS: usize = 10;
const STATISTICS_MAX: usize = 10_000;

pub(crate) async fn status(service: &Arc<Service>, params: &Params) -> Result<Reply, ApiError> {
    let limit = match params.integer("limit") {
        Ok(None) => STATISTICS,
        Ok(Some(limit)) if limit >= 1 => limit as usize,
        _ => return Err(ApiError::bad_data("limit must be a positive number")),
    };
    let TsdbStatus {
        series_count,
        chunk_count,
        label_pair_count,
        min_time_ms,
        max_time_ms,
        series_by_metric,
        values_by_label,
        memory_by_label,
        series_by_label_pair,
        store,
    } = blocking(service, move |service| service.app.backend.tsdb_status(limit.min(STATISTICS_MAX))).await?;
    Ok(Reply::json(|json| {
        json.object(|json| {
            json.key("headStats").object(|json| {
                json.key("numSeries").integer(series_count);
                json.key("numLabelPairs").integer(label_pair_count);
                json.key("chunkCount").integer(chunk_count);
                json.key("minTime").integer(min_time_ms);
                json.key("maxTime").integer(max_time_ms);
            });
            statistics(json, "seriesCountByMetricName", &series_by_metric);
            statistics(json, "labelValueCountByLabelName", &values_by_label);
            statistics(json, "memoryInBytesByLabelName", &memory_by_label);
            statistics(json, "seriesCountByLabelValuePair", &series_by_label_pair);
            write_store(json, series_count, &store);
        });
    }))
}

/// Fields of our own.
fn write_store(json: &mut Json<'_>, series_count: u64, store: &StoreStatus) {
    let bytes: u64 = store.memory.iter().map(|(_, bytes)| bytes).sum();
    statistics(json, "memoryInBytesByPart", &store.memory);
    json.key("memoryInBytesPerSeries").integer(bytes / series_count.max(1));
    json.key("growth").object(|json| {
        match store.growth_since_ms {
            Some(since_ms) => json.key("since").integer(since_ms),
            None => json.key("since").null(),
        }
        statistics(json, "seriesCountByMetricName", &store.growth_by_metric);
        statistics(json, "labelValueCountByLabelName", &store.growth_by_label);
    });
    json.key("storage").object(|json| {
        json.key("complete").bool(store.complete);
        match &store.read_only {
            Some(reason) => json.key("readOnly").string(reason),
            None => json.key("readOnly").null(),
        }
        json.key("headSamples").integer(store.head_samples);
        json.key("staleSeries").integer(store.stale_series);
        json.key("logBytes").integer(store.log_bytes);
        json.key("imageBytes").integer(store.image_bytes);
        json.key("blocks").integer(store.block_count);
        json.key("blockBytes").integer(store.block_bytes);
        match store.disk {
            None => json.key("disk").null(),
            Some(disk) => json.key("disk").object(|json| {
                json.key("totalBytes").integer(disk.total_bytes);
                json.key("freeBytes").integer(disk.free_bytes);
                json.key("reserveBytes").integer(disk.reserve_bytes);
            }),
        }
    });
    json.key("damage").object(|json| {
        json.key("count").integer(store.damage_found);
        json.key("found").array(&store.damage, |json, damage| {
            json.object(|json| {
                json.key("file").string(&damage.file);
                json.key("offset").integer(damage.offset);
                json.key("reason").string(&damage.reason);
            });
        });
    });
}

fn statistics<S: AsRef<str>>(json: &mut Json<'_>, name: &str, rows: &[(S, u64)]) {
    json.key(name).array(rows, |json, (name, value)| {
        json.object(|json| {
            json.key("name").string(name.as_ref());
            json.key("value").integer(*value);
        });
    });
}

/// The blocks as Prometheus lists its own; ours have a number where those have a ULID. 503 as for queries until a start
/// is complete.
pub(crate) async fn blocks(service: &Arc<Service>) -> Result<Reply, ApiError> {
    let blocks = blocking(service, |service| service.app.backend.tsdb_blocks()).await?;
    let blocks = blocks.ok_or(SelectError::Recovering)?;
    Ok(Reply::json(|json| {
        json.object(|json| json.key("blocks").array(&blocks, write_block));
    }))
}

fn write_block(json: &mut Json<'_>, block: &BlockView) {
    json.object(|json| {
        json.key("ulid").string(&block.name);
        json.key("minTime").integer(block.min_time_ms);
        json.key("maxTime").integer(block.max_time_ms.saturating_add(1));
        json.key("stats").object(|json| {
            json.key("numSamples").integer(block.samples);
            json.key("numSeries").integer(block.series);
            json.key("numChunks").integer(block.chunks);
            if block.tombstones > 0 {
                json.key("numTombstones").integer(block.tombstones);
            }
        });
        json.key("compaction").object(|json| {
            json.key("level").integer(block.level);
            let own = std::slice::from_ref(&block.name);
            json.key("sources").strings(if block.parents.is_empty() { own } else { &block.parents });
        });
        json.key("version").integer(1);
        json.key("bytes").integer(block.bytes);
    });
}
