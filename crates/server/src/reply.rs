//! From a handler's result to an answer.

use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tidewatch_model::Annotations;

use crate::body::{More, Producer, ResponseBody};
use crate::error::{ApiError, ErrorKind};
use crate::json::Json;

/// Annotations of each kind that an answer carries.
const ANNOTATIONS_MAX: usize = 10;

/// What a handler of the API answers: `data` and what goes with it.
pub(crate) struct Reply {
    data: Producer,
    warnings: Vec<String>,
    infos: Vec<String>,
}

impl Reply {
    /// Data that is written at once.
    pub(crate) fn json(write: impl FnOnce(&mut Json<'_>)) -> Reply {
        let mut text = Vec::new();
        write(&mut Json::new(&mut text));
        let mut text = Some(text);
        Reply::produce(Box::new(move |out| {
            if let Some(text) = text.take() {
                out.extend_from_slice(&text);
            }
            More::Nothing
        }))
    }

    /// Data that is written as the client takes it.
    pub(crate) fn produce(data: Producer) -> Reply {
        Reply { data, warnings: Vec::new(), infos: Vec::new() }
    }

    pub(crate) fn warn(mut self, warning: Option<&str>) -> Reply {
        self.warnings.extend(warning.map(str::to_owned));
        self
    }

    pub(crate) fn annotate(mut self, annotations: Annotations) -> Reply {
        self.warnings.extend(bounded(annotations.warnings, "warning"));
        self.infos.extend(bounded(annotations.infos, "info"));
        self
    }

    pub(crate) fn into_response(self, response_bytes: usize) -> Response<ResponseBody> {
        let mut tail = Vec::new();
        for (name, texts) in [("warnings", self.warnings), ("infos", self.infos)] {
            if !texts.is_empty() {
                tail.push(b',');
                Json::new(&mut tail).key(name).strings(texts);
            }
        }
        tail.push(b'}');
        let mut data = self.data;
        let mut begun = false;
        let body = ResponseBody::produce(
            Box::new(move |out| {
                if !begun {
                    begun = true;
                    out.extend_from_slice(b"{\"status\":\"success\",\"data\":");
                }
                let more = data(out);
                if more == More::Nothing {
                    out.append(&mut tail);
                }
                more
            }),
            response_bytes,
        );
        with_type(StatusCode::OK, "application/json", body)
    }
}

/// The first texts, and how many more there were.
fn bounded(texts: impl IntoIterator<Item = String>, kind: &str) -> Vec<String> {
    let mut texts: Vec<String> = texts.into_iter().collect();
    if texts.len() > ANNOTATIONS_MAX {
        let more = texts.len() - ANNOTATIONS_MAX;
        texts.truncate(ANNOTATIONS_MAX);
        texts.push(format!("{more} more {kind} annotations omitted"));
    }
    texts
}

pub(crate) fn error(error: &ApiError) -> Response<ResponseBody> {
    let mut text = Vec::new();
    Json::new(&mut text).object(|json| {
        json.key("status").string("error");
        json.key("errorType").string(error.kind.as_str());
        json.key("error").string(&error.message);
    });
    let mut response = with_type(error.kind.status(), "application/json", ResponseBody::whole(text));
    if error.kind == ErrorKind::Unavailable {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<ResponseBody> {
    with_type(status, "text/plain; charset=utf-8", ResponseBody::whole(text.into()))
}

pub(crate) fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
}

pub(crate) fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: ResponseBody,
) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
