//! Every limit on what others may ask of us, in one place, with its number and its reason.

/// Limits of one server. All are on by default; each refusal is counted under the limit's name.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one write request after decompression: what a sender's largest shard packs, tenfold.
    pub write_body_bytes: usize,
    /// Bytes of one write request as sent.
    pub write_compressed_bytes: usize,
    /// Samples of one write request.
    pub write_samples: usize,
    /// Bytes of one scrape after decompression.
    pub scrape_body_bytes: usize,
    pub scrape_samples: usize,
    pub labels_per_series: usize,
    pub label_name_bytes: usize,
    pub label_value_bytes: usize,
    pub label_set_bytes: usize,
    /// How far ahead of our clock a sample may be: a sender's clock may be wrong, ours too.
    pub future_ms: i64,
    /// How far behind the newest sample of its series an older one is still taken.
    pub out_of_order_window_ms: i64,
    pub query_text_bytes: usize,
    pub query_depth: usize,
    pub query_nodes: usize,
    /// Steps of one range query, as Prometheus has it.
    pub query_points: usize,
    pub query_timeout_ms: u64,
    pub query_queue_ms: u64,
    /// Bytes that one query may hold at once, and all of them together: shares of the memory
    /// budget where the program knows how much memory there is.
    pub query_memory_bytes: usize,
    pub queries_memory_bytes: usize,
    /// Bytes that all rules under evaluation may hold.
    pub rules_memory_bytes: usize,
    pub regex_pattern_bytes: usize,
    pub regex_compiled_bytes: usize,
    /// Bytes of all compiled expressions of one query: they are compiled before anything is asked.
    pub query_regex_bytes: usize,
    pub response_bytes: usize,
    pub connections: usize,
    pub header_bytes: usize,
    pub headers: usize,
    pub header_timeout_ms: u64,
    pub idle_timeout_ms: u64,
    pub alerts_per_rule: usize,
    pub outbox_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            write_body_bytes: 32 << 20,
            write_compressed_bytes: 16 << 20,
            write_samples: 200_000,
            scrape_body_bytes: 32 << 20,
            scrape_samples: 200_000,
            labels_per_series: 64,
            label_name_bytes: 1024,
            label_value_bytes: 4096,
            label_set_bytes: 16 << 10,
            future_ms: 10 * 60 * 1000,
            out_of_order_window_ms: 60 * 60 * 1000,
            query_text_bytes: 64 << 10,
            query_depth: 100,
            query_nodes: 10_000,
            query_points: 11_000,
            query_timeout_ms: 120_000,
            query_queue_ms: 10_000,
            query_memory_bytes: 1 << 30,
            queries_memory_bytes: 5 << 29,
            rules_memory_bytes: 1 << 30,
            regex_pattern_bytes: 16 << 10,
            regex_compiled_bytes: 2 << 20,
            query_regex_bytes: 16 << 20,
            response_bytes: 256 << 20,
            connections: 512,
            header_bytes: 16 << 10,
            headers: 64,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            alerts_per_rule: 10_000,
            outbox_bytes: 256 << 20,
        }
    }
}
