//! Delivers GitHub's webhooks, over HTTP or to a program in the same process.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    github::Parcel,
    world::{Shared, lock},
};

/// GitHub's timeout for a response (contract github.md §5).
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// The maximum number of concurrent deliveries. Later ones wait.
const MOST_AT_ONCE: usize = 64;

/// Delivers webhooks until `shutdown`. The world's fault decides about each: lost, late, duplicated, changed. `post`
/// delivers one and returns the status of the response, if there is one.
pub async fn carry<P, F>(shared: Shared, post: P, shutdown: impl Future<Output = ()>)
where
    P: Fn(Parcel) -> F + Clone + Send + 'static,
    F: Future<Output = Option<u16>> + Send + 'static,
{
    let mut shutdown = std::pin::pin!(shutdown);
    let posted = lock(&shared).posted();
    let mut under_way = JoinSet::new();
    loop {
        let parcels = match under_way.len() < MOST_AT_ONCE {
            true => lock(&shared).take_parcels(),
            false => Vec::new(),
        };
        for (wait, parcel) in parcels {
            let (shared, post) = (Arc::clone(&shared), post.clone());
            under_way.spawn(async move {
                sleep(wait).await;
                let delivery = parcel.delivery;
                let status = post(parcel).await;
                lock(&shared).github.delivered(delivery, status);
            });
        }
        tokio::select! {
            biased;
            () = &mut shutdown => return,
            () = posted.notified(), if under_way.len() < MOST_AT_ONCE => {}
            Some(_) = under_way.join_next(), if !under_way.is_empty() => {}
        }
    }
}

/// Posts a delivery as GitHub does. Redirects are not followed, and only plain `http` is supported.
pub async fn over_http(parcel: Parcel) -> Option<u16> {
    timeout(ANSWERED_WITHIN, exchange(parcel)).await.ok().flatten()
}

async fn exchange(parcel: Parcel) -> Option<u16> {
    let url = url::Url::parse(&parcel.url).ok().filter(|url| url.scheme() == "http")?;
    let address = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
    let stream = TcpStream::connect(&address).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let answer = async {
        let answer = sender.send_request(request(&parcel, url.path(), &address)?).await.ok()?;
        let status = answer.status().as_u16();
        // The response's text is in the log. Nobody reads it here.
        let _ = answer.into_body().collect().await;
        Some(status)
    };
    tokio::select! {
        status = answer => status,
        // The connection runs while the response is read, and ends with it.
        () = async { let _ = connection.await; std::future::pending::<()>().await } => None,
    }
}

/// A delivery as a request.
pub fn request(parcel: &Parcel, path: &str, host: &str) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::post(path)
        .header("host", host)
        .header("user-agent", "GitHub-Hookshot/044aadd")
        .header("accept", "*/*")
        .header("content-type", parcel.content_type)
        .header("x-github-event", &parcel.event)
        .header("x-github-delivery", &parcel.guid);
    if let Some(signature) = &parcel.signature {
        request = request.header("x-hub-signature-256", signature);
    }
    request.body(Full::new(Bytes::from(parcel.body.clone()))).ok()
}
