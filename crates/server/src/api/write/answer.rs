//! What a sender is told: that its samples are durable, which were refused and why, and, of 2.0, how
//! many were written.

use hyper::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tidewatch_ingest::{LeftOut, WriteError};
use tidewatch_storage::{AppendError, Refusal};

use super::Taken;
use super::message::Message;
use crate::body::ResponseBody;
use crate::reply;
use crate::service::Service;

/// Samples, histograms and exemplars of a request that its sender need not send again: those that are
/// stored, be it by this request, by an earlier one or by the elected replica. Nothing, where the sender is
/// to send all again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    samples: u64,
    histograms: u64,
    exemplars: u64,
}

impl Written {
    /// Senders of 1.0 do not ask for it.
    pub(super) fn of(message: Message, taken: &Taken) -> Option<Written> {
        let Taken { outcome, examined, .. } = taken;
        let deduplicated_samples = examined.deduplicated - examined.deduplicated_histograms;
        let written = || Written {
            samples: outcome.accepted + deduplicated_samples,
            histograms: outcome.accepted_histograms + examined.deduplicated_histograms,
            exemplars: outcome.accepted_exemplars + examined.deduplicated_exemplars,
        };
        (message == Message::V2).then(written)
    }

    pub(super) fn add_to(self, headers: &mut HeaderMap) {
        for (name, count) in [
            ("x-prometheus-remote-write-samples-written", self.samples),
            ("x-prometheus-remote-write-histograms-written", self.histograms),
            ("x-prometheus-remote-write-exemplars-written", self.exemplars),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(count));
        }
    }
}

/// A refusal of a request or of parts of it: status, text, the limit under which it is counted, and what
/// was written nevertheless.
pub(super) struct Refused {
    status: StatusCode,
    text: String,
    limit: Option<&'static str>,
    written: Option<Written>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Refused {
        Refused { status, text: text.into(), limit: None, written: None }
    }

    pub(super) fn by(limit: &'static str, status: StatusCode, text: impl Into<String>) -> Refused {
        Refused { limit: Some(limit), ..Refused::new(status, text) }
    }

    /// What is received or decoded at this moment takes all memory that there is for it.
    pub(super) fn no_room() -> Refused {
        Refused::by("write_bytes_in_flight", StatusCode::SERVICE_UNAVAILABLE, WriteError::NoRoom.to_string())
    }

    pub(super) fn but(self, written: Option<Written>) -> Refused {
        Refused { written, ..self }
    }

    /// Of 2.0 every answer says what was written: nothing, where nothing else is known.
    pub(super) fn of(self, message: Message) -> Refused {
        let nothing = (message == Message::V2).then(Written::default);
        Refused { written: self.written.or(nothing), ..self }
    }

    pub(super) fn answer(self, service: &Service) -> Response<ResponseBody> {
        if let Some(limit) = self.limit {
            service.counters.refuse(limit);
        }
        let mut response = reply::text(self.status, self.text + "\n");
        let headers = response.headers_mut();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if let Some(written) = self.written {
            written.add_to(headers);
        }
        response
    }
}

impl From<WriteError> for Refused {
    fn from(error: WriteError) -> Refused {
        let text = error.to_string();
        match error {
            WriteError::Bomb { .. } => Refused::by("write_body_bytes", StatusCode::BAD_REQUEST, text),
            WriteError::NoRoom => Refused::no_room(),
            _ if error.is_too_large() => Refused::by("write_body_bytes", StatusCode::PAYLOAD_TOO_LARGE, text),
            _ => Refused::new(StatusCode::BAD_REQUEST, text),
        }
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Refused {
        let limit = match error {
            AppendError::ReadOnly { .. } => "read_only",
            AppendError::Overloaded { .. } => "memory",
        };
        Refused::by(limit, StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

/// How many samples were refused and, for the sender's log, what was refused and why.
pub(super) fn describe_refused(taken: &Taken) -> Option<(u64, String)> {
    let Taken { summary, outcome, examined } = taken;
    let LeftOut { malformed, over_limit, empty_series, exemplars, first } = &summary.left_out;
    let refused = outcome.refused_count() + malformed + over_limit + examined.refused;
    if refused + empty_series + exemplars == 0 {
        return None;
    }
    let mut parts = Vec::new();
    if refused > 0 {
        let sent = (summary.samples + summary.histograms) as u64 + malformed + over_limit;
        let causes = causes(taken).into_iter().map(|(cause, count)| format!("{count} {cause}"));
        let causes: Vec<String> = causes.collect();
        parts.push(format!("{refused} of {sent} samples refused ({})", causes.join(", ")));
    }
    if *empty_series > 0 {
        parts.push(format!("{empty_series} series without samples refused"));
    }
    if *exemplars > 0 {
        parts.push(format!("{exemplars} malformed exemplars refused"));
    }
    let mut text = parts.join(", ");
    if let Some(first) = first.as_ref().or(outcome.first_refusal.as_ref()) {
        text.push_str("; the first: ");
        text.push_str(first);
    }
    Some((refused, text))
}

/// Refused samples by cause: those that the decoder refused, then those that the store did.
fn causes(taken: &Taken) -> Vec<(&'static str, u64)> {
    let LeftOut { malformed, over_limit, .. } = taken.summary.left_out;
    let of_clusters = ("of more HA clusters than --ha-tracker.max-clusters", taken.examined.refused);
    let by_store = taken.outcome.refused.iter().map(|(cause, count)| (cause_text(*cause), *count));
    let mut causes =
        vec![of_clusters, ("of malformed series", malformed), (cause_text(Refusal::LabelLimit), over_limit)];
    causes.retain(|(_, count)| *count > 0);
    for (cause, count) in by_store {
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, known)) => *known += count,
            None => causes.push((cause, count)),
        }
    }
    causes
}

fn cause_text(cause: Refusal) -> &'static str {
    match cause {
        Refusal::InvalidLabels => "with invalid labels",
        Refusal::LabelLimit => "over a label limit",
        Refusal::TooOld => "too old",
        Refusal::TooFarInFuture => "too far in the future",
        Refusal::Conflict => "in conflict with a stored value",
        Refusal::InvalidHistogram => "with an invalid histogram",
    }
}
