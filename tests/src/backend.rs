//! A service that a test can disconnect, and that keeps what was posted to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;

use crate::http::read_headers;

#[derive(Default)]
struct State {
    /// The text to answer with; `None` closes each connection at once, as a dead service does.
    answer: Option<String>,
    posted: Vec<String>,
}

/// An HTTP server on a free port. It lives until the process ends.
pub struct Backend {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Backend {
    pub fn start(answer: &str) -> Result<Backend> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(Mutex::new(State { answer: Some(answer.to_owned()), posted: Vec::new() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || serve_one(stream, &shared));
            }
        });
        Ok(Backend { port, state })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on answers with `text`; `None` disconnects it.
    pub fn set(&self, text: Option<&str>) {
        lock(&self.state).answer = text.map(str::to_owned);
    }

    /// Bodies that were posted, in order.
    pub fn posted(&self) -> Vec<String> {
        lock(&self.state).posted.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no panic while it is held")
}

fn serve_one(mut stream: TcpStream, state: &Mutex<State>) -> Result<()> {
    let Some(text) = lock(state).answer.clone() else { return Ok(()) };
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut String::new())?;
    let headers = read_headers(&mut reader)?;
    if let Some((_, length)) = headers.iter().find(|(name, _)| name == "content-length") {
        let mut body = vec![0; length.parse()?];
        reader.read_exact(&mut body)?;
        if !body.is_empty() {
            lock(state).posted.push(String::from_utf8_lossy(&body).into_owned());
        }
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )?;
    Ok(())
}
