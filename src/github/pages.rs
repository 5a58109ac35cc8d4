//! Lists in pages: cached by their ETags, in smaller pages after failures, and read over several turns.

use std::sync::Arc;

use hyper::{
    Method,
    header::{self, HeaderName},
};
use jiff::Timestamp;

use super::{
    api::{GitHub, Repeat},
    auth::{Credentials, Principal},
    bodies::Mark,
    cache::Proof,
    error::Error,
    etags,
    limits::READS,
    listed::Gap,
    pagination::{Walk, next_link, on_same_host},
    reading::{Pages, Reading},
    sizes::{self},
    wire::Page,
};
use crate::github::sizes::PageFailure;

/// At most this many pages of a list are skipped after errors before the rest is given up.
const LOST_AT_MOST: usize = 3;

/// The single sign-on header of a list (contract §8).
const SINGLE_SIGN_ON: HeaderName = HeaderName::from_static("x-github-sso");

/// Whether the pages of a list are cached with their ETags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caching {
    /// Requested by ETag: free of the primary limit while nothing changes.
    ByEtag,
    Nothing,
}

/// One page, from GitHub or, after a 304, from the cache.
pub(super) struct Fetched<P> {
    pub value: Arc<P>,
    next: Option<String>,
    pub gap: Option<Gap>,
    pub date: Option<Timestamp>,
}

impl GitHub {
    /// One page.
    pub(super) async fn page<P: Page>(
        &self,
        principal: &Principal,
        path: &str,
        caching: Caching,
    ) -> Result<Fetched<P>, Error> {
        // In this order, a request that waits for its share does not block others.
        if let Some(turn) = self.turn() {
            self.in_time(turn.ask()).await??;
        }
        let url = self.url(path);
        let is_cached = caching == Caching::ByEtag;
        let known = |who: &str| if is_cached { self.0.cache.get::<P>(who, &url) } else { None };
        let renewed = if is_cached { self.renewed::<P>(principal, &url).await } else { None };
        let etag_for = |credentials: &Credentials| match &renewed {
            Some((etag, proof)) if proof.token == credentials.tag() => Some(etag.clone()),
            _ => known(&credentials.who).map(|known| known.etag),
        };
        let (response, credentials) = self
            .authorized(principal, READS, Repeat::AfterFailures, |credentials| {
                let request = self.request(Method::GET, path);
                match etag_for(credentials) {
                    Some(etag) => request.header_text(header::IF_NONE_MATCH, &etag),
                    None => request,
                }
            })
            .await?;
        let date = response.date();
        match response.status.as_u16() {
            200 => {
                let value = Arc::new(response.json::<P>()?);
                let next = response.header(header::LINK).and_then(next_link);
                let gap = response.header(SINGLE_SIGN_ON).and_then(Gap::of_single_sign_on);
                // An incomplete page is not cached: it is unknown whether a later 304 would mean the same.
                if is_cached
                    && gap.is_none()
                    && let Some(etag) = response.header(header::ETAG)
                {
                    let proof = self.proof(principal, &credentials, etag, &response.body);
                    self.0.cache.put(&credentials.who, &url, (etag, proof), next, &value);
                    if let Some(proof) = proof {
                        self.0.cache.bodies.keep(proof.body, &response.body).await;
                    }
                }
                self.0.sizes.answered();
                Ok(Fetched { value, next: next.map(str::to_owned), gap, date })
            }
            304 => match known(&credentials.who) {
                Some(known) => {
                    if let Some((etag, proof)) = renewed.filter(|(_, proof)| proof.token == credentials.tag())
                    {
                        self.0.cache.renew(&credentials.who, &url, &etag, proof);
                    }
                    self.0.sizes.answered();
                    Ok(Fetched { value: known.value, next: known.next, gap: None, date })
                }
                None => Err(Error::Unexpected(format!("{}: unexpected 304 Not Modified", response.exchange))),
            },
            _ => Err(Error::from_answer(&response)),
        }
    }

    /// The ETag of a known page for the current token, if another token has replaced the one that it was computed for.
    /// Installation tokens live for an hour.
    async fn renewed<P: Page>(&self, principal: &Principal, url: &str) -> Option<(String, Proof)> {
        if !self.are_tokens_replaced(principal) {
            return None;
        }
        let credentials = Box::pin(self.credentials(principal)).await.ok()?;
        let known = self.0.cache.get::<P>(&credentials.who, url)?;
        let token = credentials.tag();
        let Proof { body, .. } = known.proof.filter(|proof| proof.token != token)?;
        let text = self.0.cache.bodies.get(body).await?;
        let etag = etags::for_token(&known.etag, &credentials.token, &text)?;
        Some((etag, Proof { token, body }))
    }

    /// What an ETag was computed from, if it was computed in GitHub's way and will be needed for another
    /// token.
    fn proof(
        &self,
        principal: &Principal,
        credentials: &Credentials,
        etag: &str,
        body: &[u8],
    ) -> Option<Proof> {
        let is_needed = self.are_tokens_replaced(principal) && self.0.cache.bodies.are_kept();
        let is_proven = is_needed && etags::is_made_so(etag, &credentials.token, body);
        is_proven.then(|| Proof { token: credentials.tag(), body: Mark::of(body) })
    }

    fn are_tokens_replaced(&self, principal: &Principal) -> bool {
        matches!(principal, Principal::Owner(_))
            && self.keyring().is_app(self.keyring().of_principal(principal))
    }

    /// A list from its first page, a path on the host. Pages that fail are requested in smaller pieces. What still
    /// fails leaves a gap, unless nothing of the list could be read.
    pub(super) async fn all_pages<P: Page>(
        &self,
        principal: &Principal,
        first: String,
        caching: Caching,
    ) -> Result<Pages<P::Item>, Error> {
        let mut reading = self.begin::<P>(first);
        self.go_on::<P>(principal, &mut reading, caching).await?;
        Ok(reading.end())
    }

    /// A list that has not been read yet.
    pub(super) fn begin<P: Page>(&self, first: String) -> Reading<P::Item> {
        let mut walk = Walk::new(&self.0.api, self.0.sizes.first(&first));
        if !P::FILTERED {
            walk = walk.unfiltered();
        }
        Reading { first, walk, now: None, total: None, date: None, read: false, lost: 0 }
    }

    /// Reads a list to its end. After [`Error::OutOfTime`] it can be continued: what was read is kept.
    pub(super) async fn go_on<P: Page>(
        &self,
        principal: &Principal,
        reading: &mut Reading<P::Item>,
        caching: Caching,
    ) -> Result<(), Error> {
        while let Some(path) = reading.now.clone().or_else(|| reading.walk.next_page()) {
            reading.now = Some(path.clone());
            let Reading { first, walk, .. } = reading;
            let error = match self.page::<P>(principal, &path, caching).await {
                Ok(page) => {
                    reading.now = None;
                    if let Some(gap) = page.gap {
                        walk.miss(gap);
                    }
                    walk.take(&path, page.value.items(), page.value.total(), page.next.as_deref());
                    self.0.sizes.worked(first, &path);
                    reading.total = page.value.total().or(reading.total);
                    reading.date = page.date.or(reading.date);
                    reading.read = true;
                    continue;
                }
                Err(error) if error.is_of_the_answer() => error,
                Err(error) => return Err(error),
            };
            reading.now = None;
            if let Some(smaller) = self.0.sizes.smaller(first, &path, PageFailure::of(&error)) {
                walk.instead(smaller);
                continue;
            }
            if !reading.read {
                self.0.sizes.failed(first);
                return Err(error);
            }
            walk.miss(Gap::Page { error: error.to_string() });
            reading.lost += 1;
            if reading.lost <= LOST_AT_MOST
                && let Some(next) = sizes::after(&path, reading.total)
            {
                walk.instead(next);
            }
        }
        Ok(())
    }

    /// The first pages of a list until `enough` accepts the items, at most `most`; each by ETag.
    pub(super) async fn first_pages<P: Page>(
        &self,
        principal: &Principal,
        first: String,
        most: usize,
        mut enough: impl FnMut(&[P::Item]) -> bool,
    ) -> Result<Vec<P::Item>, Error> {
        let (mut items, mut path) = (Vec::new(), first);
        for _ in 0..most {
            let page = self.page::<P>(principal, &path, Caching::ByEtag).await?;
            items.extend(page.value.items().map(|(_, item)| item));
            let next = page.next.as_deref().and_then(|next| on_same_host(&self.0.api, &path, next));
            match next {
                Some(next) if !enough(&items) && next != path => path = next,
                _ => break,
            }
        }
        Ok(items)
    }

    /// A single object, by ETag.
    pub(super) async fn one<P: Page>(&self, principal: &Principal, path: &str) -> Result<Arc<P>, Error> {
        Ok(self.page::<P>(principal, &self.path(path), Caching::ByEtag).await?.value)
    }
}
