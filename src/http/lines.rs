//! A long response, line by line or in chunks: Nomad's event stream, a task's log.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{StatusCode, body::Incoming};

use super::error::{Error, Exchange};

/// The lines of a streamed response, from [`super::Client::lines`].
#[derive(Debug)]
pub struct Lines {
    pub(super) exchange: Exchange,
    pub(super) status: StatusCode,
    pub(super) body: Incoming,
    pub(super) buffer: BytesMut,
    /// How much of the buffer is known to contain no line end.
    pub(super) searched: usize,
    pub(super) max_line: usize,
}

impl Lines {
    /// The next line without its end, or `None` if the server ended the response. Text after the last line end is
    /// dropped, because it may be part of a line. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Timeout`] if no complete line came within `wait`, [`Error::Closed`] if the connection broke,
    /// [`Error::BodyTooLarge`] for a line longer than the request's limit.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<Bytes>, Error> {
        let exchange = self.exchange.clone();
        match tokio::time::timeout(wait, self.read_line()).await {
            Ok(line) => line,
            Err(_) => Err(Error::Timeout { exchange: Box::new(exchange), after: wait, sent: true }),
        }
    }

    /// The next chunk, or `None` if the server ended the response. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Timeout`] if nothing came within `wait`, [`Error::Closed`] if the connection broke.
    pub async fn chunk(&mut self, wait: Duration) -> Result<Option<Bytes>, Error> {
        if !self.buffer.is_empty() {
            self.searched = 0;
            return Ok(Some(self.buffer.split().freeze()));
        }
        let exchange = || Box::new(self.exchange.clone());
        loop {
            let frame = match tokio::time::timeout(wait, self.body.frame()).await {
                Err(_) => return Err(Error::Timeout { exchange: exchange(), after: wait, sent: true }),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    return Err(Error::Closed { exchange: exchange(), detail: error.to_string() });
                }
                Ok(Some(Ok(frame))) => frame,
            };
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
    }

    async fn read_line(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(self.searched + end + 1);
                self.searched = 0;
                line.truncate(line.len() - 1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                if line.len() > self.max_line {
                    return Err(self.too_long());
                }
                return Ok(Some(line.freeze()));
            }
            self.searched = self.buffer.len();
            if self.searched > self.max_line {
                return Err(self.too_long());
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(Error::Closed {
                        exchange: Box::new(self.exchange.clone()),
                        detail: error.to_string(),
                    });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn too_long(&self) -> Error {
        Error::BodyTooLarge {
            exchange: Box::new(self.exchange.clone()),
            status: self.status,
            limit: self.max_line,
            headers: Box::default(),
        }
    }
}
