//! Who may come in: the web configuration in force, basic authentication, the rate limit.
//!
//! The file and what it names are read again when one of them changes, so that certificates and
//! users can be replaced while connections stay. A file that became unusable changes nothing.
//!
//! Passwords cost a bcrypt each: at most two are computed at once, a user who does not exist
//! costs as much as one who does, and a pair that was right is remembered by its keyed digest.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use parking_lot::Mutex;
use ring::hmac;
use rustls::ServerConfig;
use tidewatch_env::Env;
use tokio::sync::Semaphore;

use crate::body::ResponseBody;
use crate::reply;
use crate::tls;
use crate::web_config::{WebConfig, WebConfigError};

/// Passwords that are computed at once.
const BCRYPT_CONCURRENCY: usize = 2;
/// How long a request waits for its turn to be checked.
const BCRYPT_WAIT: Duration = Duration::from_secs(10);
/// Pairs of name and password that are remembered.
const REMEMBERED_MAX: usize = 1_000;

/// The door.
pub(crate) struct Access {
    path: Option<PathBuf>,
    current: ArcSwap<Current>,
    env: Env,
    /// Of this process alone, so that remembered digests are worth nothing elsewhere.
    secret: hmac::Key,
    /// Digests of pairs that were right.
    remembered: Mutex<HashSet<[u8; 32]>>,
    computing: Semaphore,
    bucket: Mutex<Bucket>,
}

/// The configuration in force.
struct Current {
    config: WebConfig,
    headers: Vec<(HeaderName, HeaderValue)>,
    tls: Option<Arc<ServerConfig>>,
    stamps: Vec<Stamp>,
}

/// What tells one content of a file from the next.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    modified: Option<SystemTime>,
    size: u64,
}

impl Stamp {
    fn of(path: PathBuf) -> Stamp {
        let metadata = fs::metadata(&path).ok();
        let modified = metadata.as_ref().and_then(|m| m.modified().ok());
        Stamp { path, modified, size: metadata.map_or(0, |m| m.len()) }
    }
}

impl Current {
    fn open() -> Current {
        Current { config: WebConfig::default(), headers: Vec::new(), tls: None, stamps: Vec::new() }
    }

    fn read(path: &Path) -> Result<Current, WebConfigError> {
        // Stamped before it is read: a change in between is seen next time.
        let own_stamp = Stamp::of(path.to_owned());
        let config = WebConfig::read(path)?;
        let tls_config = &config.tls_server_config;
        let mut stamps = vec![own_stamp];
        stamps.extend(tls_config.files().map(|path| Stamp::of(path.to_owned())));
        let tls = match tls_config.is_enabled() {
            false => None,
            true => {
                let error = |reason| WebConfigError { path: path.to_owned(), reason };
                Some(tls::server_config(tls_config, config.http_server_config.http2).map_err(error)?)
            }
        };
        Ok(Current { headers: config.headers(), config, tls, stamps })
    }

    fn changed(&self) -> bool {
        self.stamps.iter().any(|stamp| Stamp::of(stamp.path.clone()) != *stamp)
    }
}

impl Access {
    pub(crate) fn new(path: Option<PathBuf>, env: Env) -> Result<Access, WebConfigError> {
        let current = path.as_deref().map_or_else(|| Ok(Current::open()), Current::read)?;
        let mut secret = [0; 32];
        env.entropy.fill(&mut secret);
        let bucket =
            Bucket { tokens: f64::from(current.config.rate_limit.burst), at_ns: env.clock.monotonic_ns() };
        Ok(Access {
            path,
            current: ArcSwap::from_pointee(current),
            env,
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            remembered: Mutex::new(HashSet::new()),
            computing: Semaphore::new(BCRYPT_CONCURRENCY),
            bucket: Mutex::new(bucket),
        })
    }

    /// Reads the files again if one of them changed.
    pub(crate) fn refresh(&self) {
        let Some(path) = &self.path else { return };
        if !self.current.load().changed() {
            return;
        }
        match Current::read(path) {
            Ok(new) => {
                let had_tls = self.tls().is_some();
                if had_tls != new.tls.is_some() {
                    tracing::warn!(file = %path.display(), "turning TLS on or off takes a restart; nothing was changed");
                    return;
                }
                self.current.store(Arc::new(new));
                self.remembered.lock().clear();
                tracing::info!(file = %path.display(), "web configuration and certificates were read again");
            }
            Err(error) => {
                tracing::error!(%error, "web configuration can not be used; the last good one stays")
            }
        }
    }

    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.current.load().tls.clone()
    }

    pub(crate) fn http2(&self) -> bool {
        self.current.load().config.http_server_config.http2
    }

    pub(crate) fn requires_password(&self) -> bool {
        !self.current.load().config.basic_auth_users.is_empty()
    }

    /// Headers that go with every answer.
    pub(crate) fn add_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.current.load().headers {
            headers.insert(name, value.clone());
        }
    }

    /// Lets a request in, or says what to answer instead.
    pub(crate) async fn check(self: &Arc<Self>, headers: &HeaderMap) -> Result<(), Response<ResponseBody>> {
        if !self.within_rate() {
            return Err(reply::text(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n"));
        }
        let current = self.current.load_full();
        let users = &current.config.basic_auth_users;
        if users.is_empty() {
            return Ok(());
        }
        let Some((user, password)) = headers.get(AUTHORIZATION).and_then(basic_credentials) else {
            return Err(unauthorized());
        };
        // Whom nobody knows is compared with somebody's hash, for the time that it takes.
        let known = users.get(&user);
        let hash = known.or_else(|| users.values().next()).expect("there are users").clone();
        let digest = self.digest(&user, &hash, &password);
        if known.is_some() && self.remembered.lock().contains(&digest) {
            return Ok(());
        }
        let Ok(Ok(turn)) = tokio::time::timeout(BCRYPT_WAIT, self.computing.acquire()).await else {
            return Err(reply::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many passwords wait to be checked\n",
            ));
        };
        let right =
            tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        drop(turn);
        if known.is_none() || !right.unwrap_or(false) {
            return Err(unauthorized());
        }
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest);
        Ok(())
    }

    fn digest(&self, user: &str, hash: &str, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.secret);
        for part in [user.as_bytes(), hash.as_bytes(), password] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn within_rate(&self) -> bool {
        let current = self.current.load();
        let limit = &current.config.rate_limit;
        let interval_ms = tidewatch_model::parse_duration_ms(&limit.interval).unwrap_or(0);
        interval_ms == 0
            || self.bucket.lock().take(
                self.env.clock.monotonic_ns(),
                interval_ms as f64 * 1e6,
                f64::from(limit.burst),
            )
    }
}

/// A token bucket: one token each interval, up to the burst.
struct Bucket {
    tokens: f64,
    at_ns: u64,
}

impl Bucket {
    fn take(&mut self, now_ns: u64, interval_ns: f64, burst: f64) -> bool {
        let passed_ns = now_ns.saturating_sub(self.at_ns);
        self.at_ns = now_ns;
        self.tokens = burst.min(self.tokens + passed_ns as f64 / interval_ns);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

fn basic_credentials(value: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

fn unauthorized() -> Response<ResponseBody> {
    let mut response = reply::text(StatusCode::UNAUTHORIZED, "Unauthorized\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_each_interval() {
        let mut bucket = Bucket { tokens: 2.0, at_ns: 0 };
        let mut taken = |now_ns| bucket.take(now_ns, 10.0, 2.0);
        assert_eq!([taken(0), taken(0), taken(0)], [true, true, false]);
        assert_eq!(
            [taken(9), taken(10), taken(11), taken(1000), taken(1000), taken(1000)],
            [false, true, false, true, true, false]
        );
    }

    #[test]
    fn credentials_are_read_as_browsers_send_them() {
        let read = |text: &str| basic_credentials(&HeaderValue::from_str(text).expect("a header"));
        assert_eq!(read("Basic YTpiOmM="), Some(("a".to_owned(), b"b:c".to_vec())));
        assert_eq!(read("basic YTo="), Some(("a".to_owned(), Vec::new())));
        assert_eq!(read("Bearer YTpi"), None);
        assert_eq!(read("Basic YWI="), None);
        assert_eq!(read("Basic !"), None);
    }
}
