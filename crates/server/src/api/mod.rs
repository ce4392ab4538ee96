//! The handlers of the API, one module for each family.

mod account;
pub(crate) mod admin;
pub(crate) mod expression;
pub(crate) mod families;
pub(crate) mod federate;
pub(crate) mod query;
pub(crate) mod rules;
pub(crate) mod series;
pub(crate) mod status;
pub(crate) mod targets;
pub(crate) mod tsdb;
pub(crate) mod value;
pub(crate) mod write;

use std::sync::Arc;

use tidewatch_model::Matcher;

use crate::error::{ApiError, ErrorKind};
use crate::request::Params;
use crate::service::Service;

/// Runs work that computes or reads on a thread where it may take its time.
pub(crate) async fn blocking<T: Send + 'static>(
    service: &Arc<Service>,
    work: impl FnOnce(&Service) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let service = service.clone();
    tokio::task::spawn_blocking(move || work(&service)).await.map_err(|error| {
        tracing::error!(%error, "a request's work failed; this is a bug");
        ApiError::new(ErrorKind::Internal, "the request failed for a bug in the server; its log says more")
    })
}

/// The selectors of the parameters `match[]`.
pub(crate) fn selectors(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    let mut selectors = Vec::new();
    for text in params.all("match[]") {
        let matchers = tidewatch_parser::parse_metric_selector(text)
            .map_err(|error| ApiError::parameter("match[]", error))?;
        if matchers.iter().all(|matcher| matcher.matches("")) {
            let cause = "match[] must contain at least one non-empty matcher";
            return Err(ApiError::parameter("match[]", cause));
        }
        selectors.push(matchers);
    }
    Ok(selectors)
}
