//! `/api/v1/admin/tsdb/…`: deleting, cleaning up, compaction, snapshots.
//!
//! Off unless `--web.enable-admin-api` is given; and also then where others than this host reach
//! the port and nobody has to log in. Errors are those of Prometheus where it has them.

use std::sync::Arc;

use hyper::{Response, StatusCode};

use super::blocking;
use crate::backend::AdminError;
use crate::body::ResponseBody;
use crate::error::{ApiError, ErrorKind};
use crate::reply::{self, Reply};
use crate::request::Params;
use crate::router::Route;
use crate::service::Service;

/// Answers with nothing but 204, or with what was made.
pub(crate) async fn answer(service: &Arc<Service>, route: Route, params: &Params) -> Response<ResponseBody> {
    match run(service, route, params).await {
        Ok(Some(made)) => made.into_response(service.app.limits.response_bytes),
        Ok(None) => reply::empty(StatusCode::NO_CONTENT),
        Err(error) => reply::error(&error),
    }
}

async fn run(service: &Arc<Service>, route: Route, params: &Params) -> Result<Option<Reply>, ApiError> {
    if !service.app.options.enable_admin {
        return Err(ApiError::new(ErrorKind::Unavailable, "admin APIs disabled"));
    }
    if service.is_open_to_others() {
        let text = "admin APIs disabled: the server listens beyond this host and asks for no password (--web.config.file)";
        return Err(ApiError::new(ErrorKind::Unavailable, text));
    }
    match route {
        Route::DeleteSeries => delete_series(service, params).await.map(|()| None),
        Route::CleanTombstones => {
            blocking(service, |service| service.app.backend.clean_tombstones()).await??;
            Ok(None)
        }
        Route::Compact => {
            blocking(service, |service| service.app.backend.compact()).await??;
            Ok(None)
        }
        _ => snapshot(service, params).await.map(Some),
    }
}

async fn delete_series(service: &Arc<Service>, params: &Params) -> Result<(), ApiError> {
    let selectors = super::selectors(params)?;
    if selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let start_ms = params.time_or("start", i64::MIN)?;
    let end_ms = params.time_or("end", i64::MAX)?;
    let delete = move |service: &Service| {
        let backend = &service.app.backend;
        selectors.iter().try_for_each(|matchers| backend.delete_series(matchers, start_ms, end_ms))
    };
    Ok(blocking(service, delete).await??)
}

async fn snapshot(service: &Arc<Service>, params: &Params) -> Result<Reply, ApiError> {
    let skip_head = match params.get("skip_head") {
        "" => false,
        text => parse_bool(text).ok_or_else(|| {
            ApiError::parameter("skip_head", format!("unable to parse boolean {text:?} argument"))
        })?,
    };
    let name = blocking(service, move |service| service.app.backend.snapshot(skip_head)).await??;
    Ok(Reply::json(|json| json.object(|json| json.key("name").string(&name))))
}

/// What Go takes for a truth value.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> ApiError {
        match error {
            AdminError::Unavailable(text) => ApiError::new(ErrorKind::Unavailable, text),
            AdminError::Failed(text) => ApiError::new(ErrorKind::Internal, text),
        }
    }
}
